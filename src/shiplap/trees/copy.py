"""Copying from a tree into a layer under construction, with the exact results of BuildKit's COPY."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from shiplap.errors import TreeError
from shiplap.trees.change import ChangeTree, Spot
from shiplap.trees.descent import Walk, descend
from shiplap.trees.digest import split_parents
from shiplap.trees.entry import Entry
from shiplap.trees.mode import apply_mode, parse_octal
from shiplap.trees.patterns import PatternSet
from shiplap.trees.select import Selected, has_wildcard, not_found, select
from shiplap.trees.tree import Directory, Tree

CHUNK = 1 << 20
CAPABILITY = "security.capability"
"""Not taken from a context: it does not survive BuildKit's transfer, in which attributes come before the bytes."""


class CopyRule(msgspec.Struct, frozen=True):
    """How a copy is made. ``owner``: (uid, gid) for all that is copied or made on the way, None keeps the source's.

    ``mode``: as typed, empty keeps the source's. ``check`` is called now and then, and raises to stop the copy.
    """

    owner: tuple[int, int] | None = None
    mode: str = ""
    exclude: tuple[str, ...] = ()
    parents: bool = False
    check: Callable[[], None] = lambda: None


class Copier:
    """Copies what sources name in ``tree`` to ``dest`` of ``target``, one after the other."""

    def __init__(self, tree: Tree, target: ChangeTree, rule: CopyRule, now: int) -> None:
        self.tree = tree
        self.target = target
        self.rule = rule
        self._now = now
        self._octal = parse_octal(rule.mode) if rule.mode else None
        self._exclude = PatternSet(rule.exclude) if rule.exclude else None
        self._include: PatternSet | None = None
        self._literal = ""
        self._inodes: dict[tuple[int, int], str] = {}

    def copy(
        self, source: str, dest: str, unpack: Callable[[Selected, Callable[[], Spot]], bool] | None = None
    ) -> None:
        """Copy the matches of ``source``. ``dest`` is absolute; a trailing ``/`` or ``/.`` says it is a directory.

        ``unpack(match, make)`` may take a match over (ADD of an archive): it returns True if it did; ``make()`` gives
        the directory that ``dest`` means, made if it is missing.
        Raises TreeError: not-found, copy-conflict, not-a-directory.
        """
        if self.rule.parents:
            base, pattern = split_parents(source)
            if not pattern:
                raise not_found("/")
            self._literal = ""
            if not has_wildcard(base) and not has_wildcard(pattern):
                self._literal = f"{base.rstrip('/')}/{pattern}"
                select(self.tree, self._literal)
            self._include = PatternSet((pattern,))
            source = base
        for match in select(self.tree, source):
            if unpack is not None and match.entry.is_file and unpack(match, lambda: self._unpack_spot(dest)):
                continue
            self._copy_match(match, dest)
            match.found.parent.close()

    def place_file(self, name: str, data: bytes, mode: int, dest: str) -> None:
        """Write a file that has no source (a heredoc): owner root, mode ``mode`` unless the rule says otherwise."""
        spot, leaf = self._destination(dest, name)
        self._clear_for_file(spot, leaf)
        fd = spot.create_file(leaf)
        write_all(fd, data)
        uid, gid = self.rule.owner or (0, 0)
        spot.finish_file(fd, leaf, self._mode(mode, False), uid, gid, self._now)

    def make_parents(self, parent: Spot, name: str) -> Spot:
        """Make a directory that is missing on the way to the destination."""
        uid, gid = self.rule.owner or (0, 0)
        return parent.make_directory(name, 0o755 if self._octal is None else self._octal & 0o777, uid, gid)

    def _unpack_spot(self, dest: str) -> Spot:
        def create(parent: Spot, name: str) -> Spot:
            return parent.make_directory(name, 0o755, *(self.rule.owner or (0, 0)))

        return self.target.spot(dest, create=create)

    def _copy_match(self, match: Selected, dest: str) -> None:
        found = match.found
        self._inodes = {}
        if not found.name or match.entry.is_dir:
            directory = found.directory()
            spot, leaf = self._enter(dest)
            entry = found.entry if found.entry is not None else self.tree.root_entry()
            copied = self._copy_top(directory, entry, spot, leaf)
            if not copied and self._literal and self._exclude is None:
                raise not_found(self._literal)  # it is there, but beyond a link, into which no pattern looks
            if directory is not found.parent:
                directory.close()
            return
        name = match.source.rpartition("/")[2]
        spot, leaf = self._destination(dest, name)
        self._copy_entry(found.parent, match.entry, spot, leaf, fresh=False)

    def _enter(self, dest: str) -> tuple[Spot, str]:
        """Where the contents of a directory go: the directory that ``dest`` means, its parents made."""
        if dest.endswith(("/", "/.")):
            self.target.spot(dest, create=self.make_parents)
        return self.target.place(dest.rstrip("/.") if dest.endswith("/.") else dest, create=self.make_parents)

    def _destination(self, dest: str, name: str) -> tuple[Spot, str]:
        """Where a file goes: into ``dest`` if that is a directory or said to be one, else it is the new name."""
        if dest.endswith(("/", "/.")):
            return self.target.spot(dest, create=self.make_parents), name
        spot, leaf = self.target.place(dest, create=self.make_parents)
        if not leaf:
            return spot, name
        entry = spot.lookup(leaf)
        if entry is not None and entry.is_dir:
            return spot.child(leaf), name
        return spot, leaf

    def _copy_top(self, directory: Directory, entry: Entry, spot: Spot, leaf: str) -> bool:
        """The directory that was named itself: one that exists keeps mode and owner, and gets the source's time.

        True if anything in it was copied.
        """
        existing = spot.lookup(leaf) if leaf else None
        if leaf and existing is None:
            # Made as the directories on the way are: of what was named itself only the contents and the time arrive.
            below, fresh = self.make_parents(spot, leaf), True
        else:
            if existing is not None and not existing.is_dir:
                raise TreeError(f"cannot copy to non-directory: /{spot.where(leaf)}", code="copy-conflict")
            below, fresh = (spot.child(leaf) if leaf else spot), False
        copied = descend(self._copy_contents(directory, below, "", fresh))
        if directory.path or not self.tree.live:
            # The root of a context is no part of what BuildKit is sent, so its time never shows.
            below.set_time(entry.mtime)
        return copied

    def _copy_contents(self, directory: Directory, spot: Spot, prefix: str, fresh: bool) -> Walk[bool]:
        """Copy what is in ``directory``; True if anything was. With ``--parents`` directories are made when needed."""
        copied = False
        self.rule.check()
        for entry in directory.entries():
            path = prefix + entry.name
            excluded = self._exclude is not None and self._exclude.matches(path)
            wanted = not excluded and (self._include is None or self._include.matches(path))
            if not entry.is_dir:
                if wanted:
                    self._copy_entry(directory, entry, spot, entry.name, fresh)
                    copied = True
            elif wanted:
                yield self._copy_directory(directory, entry, spot, path, fresh)
                copied = True
            elif self._may_hold(path, excluded):
                copied |= yield self._copy_below(directory, entry, spot, path)
        return copied

    def _copy_directory(self, directory: Directory, entry: Entry, spot: Spot, path: str, fresh: bool) -> Walk[None]:
        child = directory.child(entry)
        existing = None if fresh else spot.lookup(entry.name)
        if existing is None:
            below = self._make_like(directory, entry, spot, entry.name)
        elif not existing.is_dir:
            raise TreeError(f"cannot copy to non-directory: /{spot.where(entry.name)}", code="copy-conflict")
        else:
            below = spot.child(entry.name)
            below.ensure()
            self._dress(directory, entry, below)
        yield self._copy_contents(child, below, path + "/", fresh=existing is None)
        below.set_time(entry.mtime)
        child.close()

    def _copy_below(self, directory: Directory, entry: Entry, spot: Spot, path: str) -> Walk[bool]:
        """A directory that is not wanted itself, but may hold what is: made only then."""
        child = directory.child(entry)
        if not (yield self._any_wanted(child, path + "/")):
            child.close()
            return False
        existing = spot.lookup(entry.name)
        if existing is not None and not existing.is_dir:
            raise TreeError(f"cannot copy to non-directory: /{spot.where(entry.name)}", code="copy-conflict")
        if existing is None:
            below = self._make_like(directory, entry, spot, entry.name)
        else:
            below = spot.child(entry.name)
            below.ensure()
            below.set_entry(existing.uid, existing.gid, entry.permissions)
        yield self._copy_contents(child, below, path + "/", fresh=existing is None)
        child.close()
        return True

    def _may_hold(self, path: str, excluded: bool) -> bool:
        """Whether something below the unwanted directory ``path`` may be wanted."""
        if excluded:
            return self._exclude is not None and not self._exclude.prunes(path)
        return self._include is not None

    def _any_wanted(self, directory: Directory, prefix: str) -> Walk[bool]:
        for entry in directory.entries():
            path = prefix + entry.name
            excluded = self._exclude is not None and self._exclude.matches(path)
            if not excluded and (self._include is None or self._include.matches(path)):
                return True
            if entry.is_dir:
                child = directory.child(entry)
                wanted = yield self._any_wanted(child, path + "/")
                child.close()
                if wanted:
                    return True
        return False

    def _make_like(self, parent: Directory, entry: Entry, spot: Spot, name: str) -> Spot:
        uid, gid = self.rule.owner or (entry.uid, entry.gid)
        made = spot.make_directory(name, self._mode(entry.permissions, True), uid, gid, entry.mtime)
        for key, value in parent.xattrs(entry).items():
            made.set_xattr("", key, value)
        return made

    def _dress(self, parent: Directory, entry: Entry, spot: Spot) -> None:
        uid, gid = self.rule.owner or (entry.uid, entry.gid)
        spot.set_entry(uid, gid, self._mode(entry.permissions, True))
        for key, value in parent.xattrs(entry).items():
            spot.set_xattr("", key, value)

    def _copy_entry(self, directory: Directory, entry: Entry, spot: Spot, name: str, fresh: bool) -> None:
        """One entry that is no directory. ``fresh``: nothing can bear the name yet."""
        if not fresh:
            self._clear_for_file(spot, name)
        uid, gid = self.rule.owner or (entry.uid, entry.gid)
        if entry.is_file:
            if entry.nlink > 1:
                key = (entry.device, entry.inode)
                first = self._inodes.get(key)
                if first is not None:
                    spot.hard_link(name, first)
                    return
                self._inodes[key] = spot.where(name)
            self._copy_file(directory, entry, spot, name, uid, gid)
        elif entry.is_link:
            spot.make_link(name, directory.read_link(entry), uid, gid, entry.mtime)
        elif entry.mode & 0o170000 == 0o140000:
            # A socket cannot be carried: it arrives as an empty file, as through BuildKit's context transfer.
            spot.finish_file(spot.create_file(name), name, self._mode(entry.permissions, False), uid, gid, entry.mtime)
        else:
            mode = (entry.mode & 0o170000) | self._mode(entry.permissions, False)
            spot.make_node(name, mode, entry.rdev, uid, gid, entry.mtime)

    def _copy_file(self, directory: Directory, entry: Entry, spot: Spot, name: str, uid: int, gid: int) -> None:
        permissions = self._mode(entry.permissions, False)
        if spot.plans:
            attributes = self._carried(directory.xattrs(entry))
            spot.take(directory, entry, name, permissions, uid, gid, attributes)
            return
        once = self.tree.once
        known = once.attributes(directory.where(entry.name), entry) if once is not None else None
        if known is not None:
            fd = spot.create_file(name)
            try:
                write_all(fd, directory.read_file(entry))
            except BaseException:
                os.close(fd)
                raise
            spot.finish_file(fd, name, permissions, uid, gid, entry.mtime, self._carried(known))
            return
        source = directory.open_file(entry)
        try:
            fd = spot.create_file(name)
            try:
                copied = transfer(source, fd, entry.size, self.rule.check)
                if copied != entry.size:
                    raise TreeError(
                        f"{directory.where(entry.name)}: changed while it was read", code="changed-while-read"
                    )
                attributes = {key: os.getxattr(source, key) for key in os.listxattr(source) if ".overlay." not in key}
            except BaseException:
                os.close(fd)
                raise
            spot.finish_file(fd, name, permissions, uid, gid, entry.mtime, self._carried(attributes))
        finally:
            os.close(source)

    def _carried(self, attributes: dict[str, bytes]) -> dict[str, bytes]:
        """Those that a copy has: a build context gives no capabilities."""
        if self.tree.live and CAPABILITY in attributes:
            return {key: value for key, value in attributes.items() if key != CAPABILITY}
        return attributes

    def _clear_for_file(self, spot: Spot, name: str) -> None:
        existing = spot.lookup(name)
        if existing is None:
            return
        if existing.is_dir:
            raise TreeError(f"cannot replace to directory /{spot.where(name)} with file", code="copy-conflict")
        spot.remove(name)

    def _mode(self, permissions: int, is_dir: bool) -> int:
        if self._octal is not None:
            return self._octal
        return apply_mode(self.rule.mode, permissions, is_dir=is_dir) if self.rule.mode else permissions


def transfer(source: int, target: int, size: int, check: Callable[[], None]) -> int:
    """Copy the bytes of one file to another; how many there were. Small ones in one read and one write."""
    if size <= CHUNK:
        data = os.read(source, size + 1)
        write_all(target, data)
        if len(data) >= size:
            return len(data)
    total = len(data) if size <= CHUNK else 0
    while True:
        check()
        try:
            sent = os.copy_file_range(source, target, CHUNK * 16)
        except OSError:
            chunk = os.read(source, CHUNK)
            write_all(target, chunk)
            sent = len(chunk)
        if sent == 0:
            return total
        total += sent


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``: a short write is followed by another."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
