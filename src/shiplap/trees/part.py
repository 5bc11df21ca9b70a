"""How one layer's directory is read: on disk, live (a build context), or out of a table of contents.

A :class:`Directory` merges the parts of several layers; it does not care which kind they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Protocol

import msgspec

from shiplap.errors import TreeError
from shiplap.trees.entry import Entry, entry_of
from shiplap.trees.held import Held
from shiplap.trees.owners import Owners

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Part(Protocol):
    """A directory of one layer. Names are single components. Raises OSError as the system calls do."""

    def stat(self, name: str) -> Entry | None:
        """What bears ``name`` here, whiteouts too, links not followed; None if nothing does."""

    def scan(self) -> list[Entry]:
        """All that is here, in no order."""

    def child(self, name: str) -> Part:
        """The directory ``name``, which was seen to be one."""

    def open(self, name: str) -> int:
        """A descriptor to read the regular file ``name``; never blocks on a FIFO, follows no link."""

    def load(self, name: str, size: int) -> tuple[bytes, dict[str, bytes]]:
        """All of the regular file ``name``, which was seen to have ``size`` bytes, and its attributes."""

    def read_link(self, name: str) -> str: ...

    def xattrs(self, name: str) -> dict[str, bytes]:
        """Attributes of the file or directory ``name``; an empty name is this directory."""

    def opaque(self) -> bool:
        """True if this directory hides all that lies beneath it in other layers."""

    def host(self) -> str:
        """The directory's path on this machine, for a mount."""

    def close(self) -> None: ...


class DiskPart:
    """A directory of a frozen layer on disk: reached from the layer's descriptor, or where there is none (-1) by the layer's
    path, and by names seen to be directories."""

    __slots__ = ("_fd", "_layer", "_number", "_owners", "_prefix", "_way")

    def __init__(self, layer: str, fd: int, number: int, owners: Owners, prefix: str = "") -> None:
        self._layer = layer
        self._fd = fd if fd >= 0 else None
        self._number = number
        self._owners = owners
        self._prefix = prefix
        self._way = prefix if fd >= 0 else f"{layer}/{prefix}"

    def stat(self, name: str) -> Entry | None:
        try:
            st = os.stat(self._way + name, dir_fd=self._fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        entry = entry_of(name, st, self._number)
        return self._owners.applied(self._prefix + name, entry) if self._owners else entry

    def scan(self) -> list[Entry]:
        fd = os.open(self._way or ".", _OPEN_DIRECTORY, dir_fd=self._fd)
        try:
            with os.scandir(fd) as items:
                found = [entry_of(item.name, item.stat(follow_symlinks=False), self._number) for item in items]
        finally:
            os.close(fd)
        if self._owners:
            return [self._owners.applied(self._prefix + entry.name, entry) for entry in found]
        return found

    def child(self, name: str) -> DiskPart:
        fd = self._fd if self._fd is not None else -1
        return DiskPart(self._layer, fd, self._number, self._owners, f"{self._prefix}{name}/")

    def open(self, name: str) -> int:
        return os.open(self._way + name, _OPEN_FILE, dir_fd=self._fd)

    def load(self, name: str, size: int) -> tuple[bytes, dict[str, bytes]]:
        return load(self.open(name), name, size)

    def read_link(self, name: str) -> str:
        return os.readlink(self._way + name, dir_fd=self._fd)

    def xattrs(self, name: str) -> dict[str, bytes]:
        return read_xattrs(self._way + name if self._fd is None else f"/proc/self/fd/{self._fd}/{self._way}{name}")

    def opaque(self) -> bool:
        return is_opaque(self._layer, self._prefix.rstrip("/"))

    def host(self) -> str:
        return f"{self._layer}/{self._prefix}".rstrip("/")

    def close(self) -> None:
        return


class LivePart:
    """A directory that others may be changing: held by a descriptor of its own, opened without following links."""

    __slots__ = ("_held", "_path")

    def __init__(self, held: Held, path: str) -> None:
        self._held = held
        self._path = path

    def stat(self, name: str) -> Entry | None:
        try:
            return entry_of(name, os.stat(name, dir_fd=self._held.fd(), follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def scan(self) -> list[Entry]:
        with os.scandir(self._held.fd()) as items:
            return [entry_of(item.name, item.stat(follow_symlinks=False)) for item in items]

    def child(self, name: str) -> LivePart:
        return LivePart(self._held.child(name), f"{self._path}/{name}")

    def open(self, name: str) -> int:
        return os.open(name, _OPEN_FILE, dir_fd=self._held.fd())

    def load(self, name: str, size: int) -> tuple[bytes, dict[str, bytes]]:
        return load(self.open(name), name, size)

    def read_link(self, name: str) -> str:
        return os.readlink(name, dir_fd=self._held.fd())

    def xattrs(self, name: str) -> dict[str, bytes]:
        return read_xattrs(f"/proc/self/fd/{self._held.fd()}/{name}")

    def opaque(self) -> bool:
        return False

    def host(self) -> str:
        return self._path

    def close(self) -> None:
        self._held.close()


class Content(msgspec.Struct, gc=False, array_like=True):
    """One entry of a table of contents: what it is and, for a directory, what it holds; ``link`` is a link's target."""

    entry: Entry
    link: str = ""
    children: dict[str, Content] | None = None
    opaque: bool = False
    attributes: dict[str, bytes] = {}


class TablePart:
    """A directory out of a table of contents: of a layer that was packed without ever being files on disk."""

    __slots__ = ("_content", "_number", "_path", "_table")

    def __init__(self, table: Table, content: Content, number: int, path: str = "") -> None:
        self._table = table
        self._content = content
        self._number = number
        self._path = path

    def _of(self, name: str) -> Content:
        try:
            return (self._content.children or {})[name]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", name) from None

    def _numbered(self, entry: Entry) -> Entry:
        return entry if entry.layer == self._number else msgspec.structs.replace(entry, layer=self._number)

    def stat(self, name: str) -> Entry | None:
        content = (self._content.children or {}).get(name)
        return None if content is None else self._numbered(content.entry)

    def scan(self) -> list[Entry]:
        return [self._numbered(child.entry) for child in (self._content.children or {}).values()]

    def child(self, name: str) -> TablePart:
        return TablePart(self._table, self._of(name), self._number, f"{self._path}{name}/")

    def open(self, name: str) -> int:
        return self._table.open(self._path + name)

    def load(self, name: str, size: int) -> tuple[bytes, dict[str, bytes]]:
        path = self._path + name
        data = self._table.read(path) if self._table.read is not None else load(self._table.open(path), name, size)[0]
        return data, self.xattrs(name)

    def read_link(self, name: str) -> str:
        return self._of(name).link

    def xattrs(self, name: str) -> dict[str, bytes]:
        return dict((self._of(name) if name else self._content).attributes)

    def opaque(self) -> bool:
        return self._content.opaque

    def host(self) -> str:
        return f"{self._table.directory()}/{self._path}".rstrip("/")

    def close(self) -> None:
        return


class Table:
    """A layer known by its contents. ``open(path)`` gives one of its files to read, ``read(path)``, where there is a shorter
    way, all of one; ``directory()`` has the layer on disk."""

    __slots__ = ("directory", "open", "read", "root")

    def __init__(
        self,
        root: Content,
        open: Callable[[str], int],
        directory: Callable[[], str],
        read: Callable[[str], bytes] | None = None,
    ) -> None:
        self.root = root
        self.open = open
        self.directory = directory
        self.read = read


def empty_table(now: int) -> Table:
    """A layer that holds nothing but its root, made at ``now`` (nanoseconds): what a stage without layers is to COPY."""
    root = Entry("", stat.S_IFDIR | 0o755, 0, 0, 0, now, 0, 1, -1, 0, 0)
    return Table(Content(root, children={}), _no_file, _no_directory)


def _no_file(path: str) -> int:
    raise TreeError(f"an empty layer has no {path}", code="not-found")


def _no_directory() -> str:
    raise TreeError("an empty layer is not on disk", code="not-on-disk")


def load(fd: int, name: str, size: int) -> tuple[bytes, dict[str, bytes]]:
    """All of a file, seen to have ``size`` bytes, and its attributes; ``fd`` is closed. Asking the descriptor for them saves
    the kernel a walk. Raises TreeError (changed-while-read)."""
    try:
        data = os.read(fd, size + 1)
        if len(data) < size:
            while more := os.read(fd, size - len(data) + 1):
                data += more
        attributes = read_xattrs(fd)
    finally:
        os.close(fd)
    if len(data) != size:
        raise TreeError(f"{name}: changed while it was read", code="changed-while-read")
    return data, attributes


def read_xattrs(file: str | int) -> dict[str, bytes]:
    """Extended attributes less overlayfs' own, of a path (links not followed) or a descriptor; none if they cannot be read."""
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file, follow_symlinks=follow)
        return {n: os.getxattr(file, n, follow_symlinks=follow) for n in names if ".overlay." not in n} if names else {}
    except OSError:
        return {}


def is_opaque(layer: str, path: str) -> bool:
    """True if the directory ``path`` of the layer directory ``layer`` hides all that lies beneath."""
    for name in OPAQUE:
        try:
            if os.getxattr(f"{layer}/{path}", name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False
