"""A root file system as a directory or a plain tar: ``--output type=local`` and ``type=tar``."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shiplap.errors import ExportError
from shiplap.layers import header as tar
from shiplap.layers.header import Header
from shiplap.layers.pack import tree_members
from shiplap.layers.times import Times
from shiplap.oci.platform import Platform
from shiplap.trees.descent import Walk, descend
from shiplap.trees.entry import Entry
from shiplap.trees.held import Held
from shiplap.trees.tree import Directory, Tree


class Folder(NamedTuple):
    """The tree of one platform, and the directory of the output that it belongs in ("": the output itself)."""

    name: str
    platform: Platform
    tree: Tree
    beside: Mapping[str, bytes]
    """Further files, by name: attestations."""


def folders(
    trees: Mapping[Platform, Tree], split: bool, beside: Mapping[Platform, Mapping[str, bytes]]
) -> list[Folder]:
    """Where the tree of each platform and the files ``beside`` it go; ``split``: to a folder of its own, ``linux_arm_v7``.

    Raises ExportError (platforms-clash) if they are not split and hold the same file.
    """
    parts = [
        Folder(str(platform).replace("/", "_") if split else "", platform, tree, beside.get(platform, {}))
        for platform, tree in trees.items()
    ]
    if not split:
        for number, later in enumerate(parts):
            for earlier in parts[:number]:
                descend(_refuse_clash(earlier, later, earlier.tree.root(), later.tree.root()))
    return parts


def _refuse_clash(earlier: Folder, later: Folder, before: Directory, after: Directory) -> Walk[None]:
    for entry in after.entries():
        there = before.lookup(entry.name)
        if there is None:
            continue
        if not (there.is_dir and entry.is_dir):
            raise ExportError(
                f"cannot overwrite {after.where(entry.name)} from {earlier.platform} with {later.platform}"
                " when split option is disabled",
                code="platforms-clash",
                hint="leave out platform-split=false",
            )
        with closing(before.child(there)) as lower, closing(after.child(entry)) as upper:
            yield _refuse_clash(earlier, later, lower, upper)


def write_rootfs_tar(parts: Sequence[Folder], out: BinaryIO, epoch: int | None, check: Callable[[], None]) -> None:
    """Write the whole of each tree to a tar; owners are kept, times are clamped to ``epoch`` (seconds).

    Files beside a tree take the place of the tree's of the same names, as in BuildKit's.
    """
    times = Times(epoch) if epoch is not None else None
    for name, _, tree, beside in parts:
        below = f"{name}/" if name else ""
        if name:
            out.write(tar.encode_header(Header(below, tar.DIRECTORY, 0o755)))
        for piece in tree_members(tree, times, check, below=below, without=beside):
            out.write(piece)
        for file, data in beside.items():
            out.write(tar.encode_header(Header(below + file, mode=0o600, size=len(data), mtime=epoch or 0)))
            out.write(data + tar.padding(len(data)))
    out.write(tar.END)


def write_rootfs(parts: Sequence[Folder], directory: Path, epoch: int | None, check: Callable[[], None]) -> None:
    """Write each tree into ``directory``, owned by the caller; what is there stays unless it has the same name.

    Devices and FIFOs are left out (a plain user cannot make the former), as are sockets. A link that is already there
    is replaced, never followed: ``directory`` may hold links of an earlier image.
    """
    try:
        for name, _, tree, beside in parts:
            (directory / name).mkdir(parents=True, exist_ok=True)
            fd = os.open(directory / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if name else 0))
            try:
                writer = _Writer(epoch, check)
                descend(writer.write(tree.root(), Held(fd)))
                for file, data in beside.items():
                    writer.put(fd, file, data)
            finally:
                os.close(fd)
    except OSError as error:
        place = directory if error.filename is None else error.filename
        raise ExportError(
            f"cannot write to {place}: {error.strerror or error}",
            code="cannot-write",
            hint="choose another dest=, or make room there",
        ) from None


class _Writer:
    def __init__(self, epoch: int | None, check: Callable[[], None]) -> None:
        self._latest = None if epoch is None else epoch * 1_000_000_000
        self._check = check

    def write(self, directory: Directory, target: Held) -> Walk[None]:
        self._check()
        for entry in directory.entries():
            if entry.is_dir:
                yield self._directory(directory, entry, target)
            elif entry.is_file:
                self._clear(target.fd(), entry.name)
                self._file(directory, entry, target.fd())
            elif entry.is_link:
                self._clear(target.fd(), entry.name)
                os.symlink(directory.read_link(entry), entry.name, dir_fd=target.fd())
                self._time(target.fd(), entry)

    def put(self, fd: int, name: str, data: bytes) -> None:
        """Write ``data`` as the file ``name`` of the directory ``fd``, for its owner to read."""
        self._clear(fd, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=fd), "wb") as target:
            target.write(data)
        if self._latest is not None:
            os.utime(name, ns=(self._latest, self._latest), dir_fd=fd, follow_symlinks=False)

    def _directory(self, directory: Directory, entry: Entry, target: Held) -> Walk[None]:
        fd = target.fd()
        try:
            os.mkdir(entry.name, 0o700, dir_fd=fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(entry.name, dir_fd=fd, follow_symlinks=False).st_mode):
                self._clear(fd, entry.name)
                os.mkdir(entry.name, 0o700, dir_fd=fd)
        child = target.child(entry.name)
        try:
            with closing(directory.child(entry)) as below:
                yield self.write(below, child)
            os.fchmod(child.fd(), entry.permissions)
        finally:
            child.close()
        self._time(target.fd(), entry)

    def _file(self, directory: Directory, entry: Entry, fd: int) -> None:
        with open(directory.open_file(entry), "rb") as source:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(entry.name, flags, 0o600, dir_fd=fd), "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                os.fchmod(target.fileno(), entry.permissions)
        self._time(fd, entry)

    def _time(self, fd: int, entry: Entry) -> None:
        mtime = entry.mtime if self._latest is None else min(entry.mtime, self._latest)
        os.utime(entry.name, ns=(mtime, mtime), dir_fd=fd, follow_symlinks=False)

    @staticmethod
    def _clear(fd: int, name: str) -> None:
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                raise ExportError(f"cannot replace the directory {name} with a file", code="cannot-write")
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return
