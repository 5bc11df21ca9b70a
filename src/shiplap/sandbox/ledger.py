"""Owners and device numbers of files, kept by inode while a step runs, where the kernel would not set them.

An inode outlives renames and further names, so it is what a record is about; but its number is given to another file
once it is gone. So a record also knows when its file was born (statx, Linux 4.11; ext4, xfs, btrfs, f2fs, tmpfs since 6.x
tell). Files of lower layers keep their number while they are there, and overlayfs shows it also after copying them up, so
of those no birth is kept.

Only a file of several names in a lower layer changes its number when it is copied up, for it then is another file than its
other names show, and overlayfs leaves no mark of where it came from (ovl_copy_up_one: no origin unless there is an index). So
each such name is held open (O_PATH). A descriptor goes with what it was opened for, through the copying up and from name to
name; a file that takes its place it does not show. When its number changes, the record is written for the new one too.
"""

from __future__ import annotations

import os
import resource
import stat
import time

from shiplap.sandbox import linux

TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Record = tuple[int, int, int, int, int]

    Owner = tuple[int, int, int, int]

FOLLOW, NO_FOLLOW, EMPTY = 0, 0x100, 0x1000
_WANTED = 0xFFF | 0x1000
"""STATX_BASIC_STATS, STATX_BTIME and STATX_MNT_ID (Linux 5.8)."""
_BTIME = 0x800
_SECOND = 10**9
_SPARE = 256
"""Descriptors that are left for all else."""
_SEARCHED = 100
"""Of more names than these it is only asked in the end which were copied up: to ask of a hundred takes a third of a
millisecond, for each file that a step makes and looks at."""


def key(device: int, inode: int) -> bytes:
    """What records are found by."""
    return inode.to_bytes(8, "little") + os.major(device).to_bytes(4, "little") + os.minor(device).to_bytes(4, "little")


class Found:
    """What statx(2) says of a file."""

    __slots__ = ("born", "gid", "key", "links", "mode", "uid")

    def __init__(self, raw: bytes) -> None:
        number = int.from_bytes
        self.links = number(raw[16:20], "little")
        self.uid = number(raw[20:24], "little")
        self.gid = number(raw[24:28], "little")
        self.mode = number(raw[28:30], "little")
        self.key = raw[32:40] + raw[136:144]
        known = number(raw[0:4], "little") & _BTIME
        self.born = number(raw[80:88], "little") * _SECOND + number(raw[88:92], "little") if known else -1


class Ledger:
    """Records by inode and device (``key``): uid, gid, type of the file (0: as it is), device number, birth (-1: any)."""

    def __init__(self, machine: str, owners: bool) -> None:
        """``owners``: chown(2) is heard; else the file system knows owners, and records are of device nodes."""
        self.status = linux.Status(machine)
        self._owners = owners
        self.records: dict[bytes, Record] = {}
        self.groups = False
        """Whether any directory belongs to another group than root: what is made in it may take that."""
        self._linked: list[tuple[int, int, bytes]] = []
        """Names of files of several names in lower layers that have not been copied up: descriptor, inode, key."""
        self._began = time.time_ns() - _SECOND
        """What was born later may have been copied up. (Times of files are up to 10 ms behind the clock.)"""
        self._others: set[bytes] = set()
        """Keys of files that were born later, and are none of these."""

    def look(self, directory: int, path: bytes, flags: int) -> Found:
        """statx(2) of ``path``. Raises OSError."""
        return Found(self.status.statx(directory, path, flags, _WANTED))

    def recorded(self, directory: int, path: bytes, flags: int) -> Record | None:
        """The record of the file at ``path``, quickly where there is none. Raises OSError."""
        raw = self.status.statx(directory, path, flags, _WANTED)
        return self.of(Found(raw)) if self._asks() or raw[32:40] + raw[136:144] in self.records else None

    def mounted(self, directory: int, path: bytes) -> bytes:
        """What tells the directory at ``path``, and the mount it is reached by, from every other. Raises OSError."""
        raw = self.status.statx(directory, path, FOLLOW, _WANTED)
        return raw[32:40] + raw[136:152]

    def of(self, found: Found) -> Record | None:
        """The record of a file, if it is about this very file."""
        record = self.records.get(found.key)
        if record is None and self._asks() and found.key not in self._others and not 0 <= found.born < self._began:
            self._follow_links()
            record = self.records.get(found.key)
            if record is None:
                self._others.add(found.key)
        if record is None or record[4] in (-1, found.born):
            return record
        del self.records[found.key]
        return None

    def owner(self, found: Found) -> tuple[int, int]:
        """User and group, as a step shall see them."""
        record = self.of(found)
        return (found.uid, found.gid) if record is None else (record[0], record[1])

    def write(self, found: Found, uid: int, gid: int, kind: int = 0, rdev: int = 0) -> None:
        """Put a file on record; ``kind`` (S_IFMT bits) and ``rdev`` are those it already has if 0."""
        old = self.of(found)
        if old is not None and not kind:
            kind, rdev = old[2], old[3]
        self.records[found.key] = (uid, gid, kind, rdev, found.born)
        self.groups |= gid != 0 and stat.S_ISDIR(found.mode)

    def seed(self, root: int, owners: Mapping[str, Owner], lower: bool) -> None:
        """Records of the base: path below the directory ``root`` to uid, gid, mode and device number (-1: as it is).

        ``lower``: these files lie in lower layers of an overlay.
        """
        for path, (uid, gid, mode, rdev) in owners.items():
            try:
                found = self.look(root, os.fsencode(path), NO_FOLLOW if path else EMPTY)
            except OSError:
                continue
            self.write(found, uid, gid, stat.S_IFMT(mode) if mode >= 0 else 0, max(rdev, 0))
            if lower:
                self.records[found.key] = (*self.records[found.key][:4], -1)
                if found.links > 1 and not stat.S_ISDIR(found.mode):
                    self._hold(root, os.fsencode(path), found.key)

    def _asks(self) -> bool:
        return 0 < len(self._linked) <= _SEARCHED

    def _hold(self, root: int, path: bytes, key: bytes) -> None:
        if len(self._linked) + _SPARE > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
            return  # the rest lose their owner if written to
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        self._linked.append((fd, os.fstat(fd).st_ino, key))

    def _follow_links(self) -> None:
        """Give those that were copied up since the record of the file they were copied from."""
        left = []
        for fd, inode, key in self._linked:
            if os.fstat(fd).st_ino == inode:
                left.append((fd, inode, key))
                continue
            found, old = self.look(fd, b"", EMPTY), self.records.get(key)
            known = self.records.get(found.key)
            if old is not None and (
                known is None or known[4] != found.born
            ):  # else it has been given to somebody since
                self.records[found.key] = (*old[:4], found.born)
            os.close(fd)
        self._linked = left

    def close(self) -> None:
        """Let go of all files."""
        for fd, _, _ in self._linked:
            os.close(fd)
        self._linked = []

    def collect(self, upper: int, root: int) -> dict[str, Owner]:
        """Records of what lies in the directory ``upper``, by path, as ``seed`` takes them; ``root`` is the same with
        lower layers below it."""
        self._follow_links()
        collected: dict[str, Owner] = {}
        for path in _paths(upper):
            try:
                found = self.look(root, os.fsencode(path), NO_FOLLOW if path else EMPTY)
            except OSError:
                continue  # a whiteout
            record = self.of(found)
            if record is not None:
                uid, gid, kind, rdev, _ = record
                if not self._owners:
                    uid, gid = found.uid, found.gid
                if kind:
                    collected[path] = (uid, gid, kind | stat.S_IMODE(found.mode), rdev)
                elif (uid, gid) != (found.uid, found.gid):
                    collected[path] = (uid, gid, -1, -1)
        return collected


def _paths(upper: int) -> Iterator[str]:
    """Every path below the directory ``upper``, and "" for itself."""
    yield ""
    pending = [""]
    while pending:
        here = pending.pop()
        fd = os.open(here or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=upper)
        try:
            with os.scandir(fd) as items:
                for item in items:
                    path = f"{here}/{item.name}" if here else item.name
                    yield path
                    if item.is_dir(follow_symlinks=False):
                        pending.append(path)
        finally:
            os.close(fd)
