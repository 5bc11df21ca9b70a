"""A tree as one plain directory, for where no overlay can be mounted; and what a process has changed in it since.

The change time of an inode tells whether it was touched: nobody can set it, and everything sets it. So what to look at is
found without reading a file, and what is found moves into the layer instead of being copied. Names of one file are
separate files in the copy, as they are once overlayfs (``index=off``) copies one of them up.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from shiplap.trees.change import ChangeTree, Spot
from shiplap.trees.copy import transfer
from shiplap.trees.descent import Walk, descend
from shiplap.trees.entry import Entry
from shiplap.trees.owners import Owners
from shiplap.trees.tree import Directory, Tree

Check = Callable[[], None]


def lay_flat(source: Directory, root: Entry | None, path: str, check: Check, only: str = "") -> int:
    """Copy all that ``source`` shows (or what is called ``only``) into the empty directory ``path``, which takes mode,
    owner and time of ``root``.

    Returns a time (ns) of the file system's clock: what has a later change time was changed by somebody else. Owners
    that the kernel refuses are put on record beside ``path``.
    """
    with ChangeTree(path, None) as target:
        if root is not None:
            target.root().set_entry(root.uid, root.gid, root.permissions)
        descend(_fill(source, target.root(), check, only))
        if root is not None:
            target.root().set_time(root.mtime)
    return _settled(path)


def _fill(source: Directory, spot: Spot, check: Check, only: str = "") -> Walk[None]:
    check()
    for entry in source.entries():
        if only and entry.name != only:
            continue
        name, uid, gid = entry.name, entry.uid, entry.gid
        if entry.is_dir:
            below = spot.make_directory(name, entry.permissions, uid, gid)
            for key, value in source.xattrs(entry).items():
                below.set_xattr("", key, value)
            child = source.child(entry)
            yield _fill(child, below, check)
            child.close()
            below.set_time(entry.mtime)
        elif entry.is_link:
            spot.make_link(name, source.read_link(entry), uid, gid, entry.mtime)
        elif entry.is_file:
            opened = source.open_file(entry)
            try:
                fd = spot.create_file(name)
                try:
                    transfer(opened, fd, entry.size, check)
                except BaseException:
                    os.close(fd)
                    raise
            finally:
                os.close(opened)
            spot.finish_file(fd, name, entry.permissions, uid, gid, entry.mtime, source.xattrs(entry))
        else:
            spot.make_node(name, entry.mode, entry.rdev, uid, gid, entry.mtime)


def _settled(path: str) -> int:
    """Wait until the clock of the file system (it ticks every few ms) has moved on from all that was done so far."""
    last = os.stat(path).st_ctime_ns
    marker = f"{path}.clock"
    try:
        while True:
            os.close(os.open(marker, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            os.utime(marker)
            now = os.stat(marker).st_ctime_ns
            if now > last:
                return last
            time.sleep(0.001)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(marker)


def take_changes(path: str, base: Tree, since: int, layer: str) -> None:
    """Move what changed in the directory ``path``, once ``base``, later than ``since`` into the empty directory ``layer``.

    ``layer`` then is what overlayfs would have made of the same changes, records of owners beside it; ``path`` is spoilt.
    """
    with Tree((path,)) as flat, ChangeTree(layer, base if base.layers else None) as target:
        _Mover(path, since, flat.layers[0].owners, target).run(flat, base)


class _Mover:
    def __init__(self, path: str, since: int, owners: Owners, target: ChangeTree) -> None:
        self._path = path
        self._since = since
        self._owners = owners
        self._target = target

    def run(self, flat: Tree, base: Tree) -> None:
        root = flat.root_entry()
        top = self._target.root()
        descend(self._walk(flat.root(), base.root() if base.layers else None, ""))
        top.set_entry(root.uid, root.gid, root.permissions)
        top.set_time(root.mtime)
        for path, owner in self._owners.paths.items():
            if path and self._holds(path):
                self._target.owners.record(path, owner)

    def _holds(self, path: str) -> bool:
        try:
            found = os.stat(path, dir_fd=self._target.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return not (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0)

    def _spot(self, path: str) -> Spot:
        """The directory of that canonical path in the layer: each name in it was seen to be a directory."""
        spot = self._target.root()
        for name in path.split("/") if path else ():
            spot = spot.child(name)
        return spot

    def _walk(self, flat: Directory, base: Directory | None, path: str) -> Walk[bool]:
        """Whether the layer now has this directory."""
        entries = flat.entries()
        changed = False
        for entry in entries:
            old = base.lookup(entry.name) if base is not None else None
            if entry.is_dir:
                changed |= yield self._directory(flat, entry, base, old, path)
            elif old is None or entry.ctime > self._since:
                self._take(entry, path)
                changed = True
        if base is not None:
            present = {entry.name for entry in entries}
            for old in base.entries():
                if old.name not in present:
                    self._spot(path).remove(old.name)
                    changed = True
        return changed

    def _directory(
        self, flat: Directory, entry: Entry, base: Directory | None, old: Entry | None, above: str
    ) -> Walk[bool]:
        path = flat.where(entry.name)
        if old is None or not old.is_dir or base is None:
            self._take(entry, above)
            return True
        below = yield self._walk(flat.child(entry), base.child(old), path)
        if entry.ctime <= self._since and not below:
            return False
        spot = self._spot(path)
        spot.ensure()
        spot.set_entry(entry.uid, entry.gid, entry.permissions)
        for key, value in flat.xattrs(entry).items():
            spot.set_xattr("", key, value)
        spot.set_time(entry.mtime)
        return True

    def _take(self, entry: Entry, above: str) -> None:
        """Move a file, or a directory that the base does not have, with all in it."""
        spot = self._spot(above)
        spot.adopt(entry.name, f"{self._path}/{spot.where(entry.name)}")
