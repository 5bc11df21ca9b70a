"""A tree of files as a stack of layers: one (a build context) or many (a snapshot: layers in overlayfs' form).

Nothing is mounted: a layer above hides what it whites out, as overlayfs would show it. Layers may lie on disk, or be known
by a table of contents alone (``trees.part``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from shiplap.errors import Place, TreeError
from shiplap.trees.entry import Entry, entry_of
from shiplap.trees.held import Held
from shiplap.trees.once import ReadOnce
from shiplap.trees.owners import Owners
from shiplap.trees.part import DiskPart, LivePart, Part, Table, TablePart

HELD = 64
"""How many layers of one tree are held open. Those beneath are reached by path: there may be a thousand, in several trees at
once, and many a shell gives a process 1024 descriptors."""
LINK_LIMIT = 255
"""Symbolic links followed in one resolution, as in containerd's continuity ``RootPath``."""

Hide = Callable[[str, bool], bool]
"""(path without leading slash, is a directory) -> True if the tree shall not show it."""

Witness = Callable[[str, Entry | None], None]
"""Told of every path that was looked at, with what was there: so that it can be seen later whether all is as it was."""


class Directory:
    """One directory of a tree, its layers merged. ``path`` is canonical and relative: ``""`` for the root, ``usr/lib``."""

    __slots__ = ("_parts", "path", "tree")

    def __init__(self, tree: Tree, path: str, parts: list[tuple[int, Part]]) -> None:
        self.tree = tree
        self.path = path
        self._parts = parts  # layer number and part, top layer first

    def close(self) -> None:
        if self.path:
            for _, part in self._parts:
                part.close()

    def where(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def lookup(self, name: str) -> Entry | None:
        """The entry ``name``, links not followed; None if it is not there, whited out or hidden."""
        for _, part in self._parts:
            try:
                entry = part.stat(name)
            except OSError as error:
                raise _unreadable(self.where(name), error) from None
            if entry is not None:
                return None if entry.is_whiteout and not self.tree.live else self._shown(entry)
        if self.tree.witness is not None:
            self.tree.witness(self.where(name), None)
        return None

    def entries(self) -> list[Entry]:
        """All entries, by name in byte order; what upper layers white out is left out."""
        found: dict[str, Entry] = {}
        for number, part in self._parts:
            for entry in self._scan(part):
                if number == self._parts[0][0] or entry.name not in found:
                    found[entry.name] = entry
        listed = [found[name] for name in sorted(found, key=os.fsencode)]
        if self.tree.live:
            if self.tree.witness is not None and not self.path:
                self.tree.witness("", self.tree.root_entry())
            return [shown for entry in listed if (shown := self._shown(entry)) is not None]
        return [entry for entry in listed if not entry.is_whiteout]

    def layer_entries(self) -> list[Entry]:
        """The entries of the top layer alone, its whiteouts too, by name in byte order (what a layer changes)."""
        return sorted(self._scan(self._parts[0][1]), key=lambda entry: os.fsencode(entry.name))

    def child(self, entry: Entry) -> Directory:
        """The directory that ``entry`` of this directory names."""
        name = entry.name
        parts: list[tuple[int, Part]] = []
        for number, part in self._parts:
            if number < entry.layer:
                continue
            if parts or number > entry.layer:
                below = part.stat(name)
                if below is None:
                    continue
                if not below.is_dir:
                    break
            try:
                child = part.child(name)
            except OSError as error:
                raise _unreadable(self.where(name), error) from None
            parts.append((number, child))
            if number + 1 < len(self.tree.layers) and child.opaque():
                break
        return Directory(self.tree, self.where(name), parts)

    def open_file(self, entry: Entry) -> int:
        """A descriptor to read the regular file ``entry``; the caller closes it. Never blocks, follows no link."""
        try:
            return self._at(entry).open(entry.name)
        except OSError as error:
            raise _unreadable(self.where(entry.name), error) from None

    def read_file(self, entry: Entry) -> bytes:
        """All of the regular file ``entry``. Raises TreeError (changed-while-read: it is not as long as it was)."""
        return self.load(entry)[0]

    def load(self, entry: Entry) -> tuple[bytes, dict[str, bytes]]:
        """As ``read_file`` and ``xattrs``, in one."""
        once = self.tree.once
        if once is not None:
            known = once.take(self.where(entry.name), entry)
            if known is not None:
                return known
        try:
            return self._at(entry).load(entry.name, entry.size)
        except OSError as error:
            raise _unreadable(self.where(entry.name), error) from None

    def read_link(self, entry: Entry) -> str:
        try:
            return self._at(entry).read_link(entry.name)
        except OSError as error:
            raise _unreadable(self.where(entry.name), error) from None

    def xattrs(self, entry: Entry) -> dict[str, bytes]:
        """Extended attributes of a file or directory, less overlayfs' own. Links and nodes have none we carry."""
        once = self.tree.once
        if once is not None:
            known = once.attributes(self.where(entry.name), entry)
            if known is not None:
                return known
        return self._at(entry).xattrs(entry.name) if entry.is_file or entry.is_dir else {}

    def host_path(self, entry: Entry) -> str:
        """The path on this machine of an entry of a frozen layer (for a mount); its parents are real directories."""
        return f"{self._at(entry).host()}/{entry.name}"

    def host_parts(self) -> list[str]:
        """Host paths of the directories that are merged here, top first."""
        return [part.host() for _, part in self._parts]

    def opaque(self) -> bool:
        """True if the top layer's directory hides what lies beneath."""
        return self._parts[0][1].opaque()

    def _scan(self, part: Part) -> list[Entry]:
        try:
            return part.scan()
        except FileNotFoundError:
            raise TreeError(f"{self.path}: a file vanished while it was read", code="changed-while-read") from None
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def _at(self, entry: Entry) -> Part:
        for number, part in self._parts:
            if number == entry.layer:
                return part
        raise TreeError(f"{self.where(entry.name)}: not in this tree", code="not-found")

    def _shown(self, entry: Entry) -> Entry | None:
        hide, witness = self.tree.hide, self.tree.witness
        if hide is not None and hide(self.where(entry.name), entry.is_dir):
            return None
        if witness is not None:
            witness(self.where(entry.name), entry)
        return entry


class Layer:
    """One layer of a tree: a directory on disk, or a table of contents."""

    __slots__ = ("_fd", "_live", "_table", "owners", "path")

    def __init__(self, source: str | Table, *, live: bool, held: bool) -> None:
        self._live = live
        self._table = source if isinstance(source, Table) else None
        self.path = source if isinstance(source, str) else ""
        self._fd = -1
        if held and self._table is None:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.owners = Owners.load(source) if isinstance(source, str) and not live else Owners()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def part(self, number: int) -> Part:
        """The layer's root."""
        if self._table is not None:
            return TablePart(self._table, self._table.root, number)
        if self._live:
            return LivePart(Held(self._fd), self.path)
        return DiskPart(self.path, self._fd, number, self.owners)

    def root_entry(self) -> Entry:
        if self._table is not None:
            return self._table.root.entry
        return self.owners.applied("", entry_of("", os.fstat(self._fd) if self._fd >= 0 else os.stat(self.path)))


class Tree:
    """A stack of layers, top first. Use as a context manager: it holds a descriptor for each of the upper layers on disk."""

    __slots__ = ("hide", "layers", "live", "once", "witness")

    def __init__(
        self,
        sources: Sequence[str | Table],
        *,
        live: bool = False,
        hide: Hide | None = None,
        witness: Witness | None = None,
        once: ReadOnce | None = None,
    ) -> None:
        """``once``: where what was read is kept for another tree of the same files."""
        self.live = live
        self.once = once
        self.hide = hide
        self.witness = witness
        self.layers: list[Layer] = []
        try:
            for number, source in enumerate(sources):
                self.layers.append(Layer(source, live=live, held=number < HELD))
        except OSError as error:
            self.close()
            raise TreeError(f"cannot open {error.filename}: {error.strerror}", code="unreadable") from None

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for layer in self.layers:
            layer.close()
        self.layers = []

    def root(self) -> Directory:
        return Directory(self, "", [(number, layer.part(number)) for number, layer in enumerate(self.layers)])

    def root_entry(self) -> Entry:
        """The root directory itself, as the top layer has it."""
        if not self.layers:
            raise TreeError("an empty tree has no root", code="not-found")
        return self.layers[0].root_entry()


def too_deep(path: str) -> TreeError:
    """What is said of a path that no system call takes."""
    return TreeError(
        f"directories lie too deep below each other: /{path[:60]}... has {len(os.fsencode(path))} bytes",
        code="too-deep",
        hint="Linux takes 4095 bytes, which are 2047 levels at the most: let it lie less deep",
    )


def _unreadable(path: str, error: OSError) -> TreeError:
    if error.errno == errno.ENAMETOOLONG:
        return too_deep(path)
    return TreeError(
        f"cannot read {path or '/'}: {error.strerror}",
        code="unreadable",
        where=Place(file=path or "/"),
        hint="check its permissions, or leave it out with a line in .dockerignore",
    )
