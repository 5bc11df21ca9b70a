"""A layer under construction that never becomes files: what a COPY would write, as a table of contents.

A layer that only has to be packed is packed straight from where its files lie. Making 20,000 small files costs 4 to 6
seconds on the ext4 disk it was measured on, and reading and packing them where they are less than one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

import msgspec

from shiplap.errors import TreeError
from shiplap.trees.change import ChangeTree, Spot
from shiplap.trees.descent import Walk, descend
from shiplap.trees.entry import Entry, is_text
from shiplap.trees.owners import Owners
from shiplap.trees.part import Content, Table, load
from shiplap.trees.root import resolve
from shiplap.trees.tree import Directory, Tree

_SECOND = 1_000_000_000
DEEPEST = 100
"""Levels of a table of contents: it is decoded by calls in one another, three a level, and Python allows a thousand."""


class PlannedTree(ChangeTree):
    """As :class:`ChangeTree`, but in memory. Trees that files are taken from must stay open until it was packed."""

    def __init__(self, base: Tree | None, now: int) -> None:
        self.base = base
        self.now = now
        self.owners = Owners()
        self.times: dict[str, int] = {}
        self.misread = False
        """A file is named as a whiteout is: packed and unpacked again, it would be taken for one. Or a name or a link's
        target is no UTF-8, which a table of contents has no place for. Or directories lie deeper than DEEPEST.
        """
        self._numbers = 0
        self._files: dict[int, tuple[Tree, str, Entry] | int] = {}
        self._open: tuple[Tree, str, Directory] | None = None
        below = base if base is not None and base.layers else None
        entry = below.root_entry() if below is not None else self.entry("", stat.S_IFDIR | 0o755, 0, 0, 0)
        self.contents = Content(entry, children={})
        self._root = PlannedSpot(self, None, "", below.root() if below is not None else None)
        self._root.content = self.contents
        self._root.exists = True
        self._spots = {"": self._root}

    def __enter__(self) -> PlannedTree:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for spot in self._spots.values():
            spot.close()
        for source in self._files.values():
            if isinstance(source, int):
                os.close(source)
        if self._open is not None:
            self._open[2].close()

    def table(self) -> Table:
        """The layer, to be packed or looked into."""
        for path, mtime in self.times.items():
            content = self._at(path)
            content.entry = msgspec.structs.replace(content.entry, mtime=mtime // _SECOND * _SECOND)
        self.times = {}
        return Table(self.contents, self._open_file, self._no_directory, self._read_file)

    def keep_only(self, paths: Collection[str]) -> None:
        """Take out of the table what is not in ``paths``, but for directories on the way to what is."""

        def prune(content: Content, prefix: str) -> Walk[None]:
            children = content.children or {}
            for name, child in list(children.items()):
                path = prefix + name
                yield prune(child, path + "/")
                if path not in paths and not child.children:
                    del children[name]

        descend(prune(self.contents, ""))

    def entry(self, name: str, mode: int, uid: int, gid: int, mtime: int, size: int = 0, rdev: int = 0) -> Entry:
        """A new entry, with an inode number of its own. Times are whole seconds, as they will be in the layer."""
        self._numbers += 1
        self.misread = self.misread or name.startswith(".wh.") or not is_text(name)
        when = mtime // _SECOND * _SECOND
        return Entry(name, mode, uid, gid, size, when, rdev, 1, -1, self._numbers, 0)

    def keep(self, entry: Entry, source: tuple[Tree, str, Entry] | int) -> None:
        """Remember where the bytes of ``entry`` are: (tree, directory, entry), or a descriptor."""
        self._files[entry.inode] = source

    def _open_file(self, path: str) -> int:
        source = self._files[self._at(path).entry.inode]
        if isinstance(source, int):
            return os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_CLOEXEC)
        return self._directory(source[0], source[1]).open_file(source[2])

    def _read_file(self, path: str) -> bytes:
        content = self._at(path)
        source = self._files[content.entry.inode]
        if isinstance(source, int):
            return load(self._open_file(path), path, content.entry.size)[0]
        tree, directory, entry = source
        if tree.once is not None:
            known = tree.once.take(f"{directory}/{entry.name}" if directory else entry.name, entry)
            if known is not None:
                return known[0]
        return self._directory(tree, directory).read_file(entry)

    def _directory(self, tree: Tree, path: str) -> Directory:
        # Files come in the order of their directories: the last one is kept open.
        if self._open is None or self._open[0] is not tree or self._open[1] != path:
            if self._open is not None:
                self._open[2].close()
            self._open = (tree, path, resolve(tree, path).directory())
        return self._open[2]

    def _at(self, path: str) -> Content:
        content = self.contents
        for name in path.split("/") if path else ():
            content = (content.children or {})[name]
        return content

    @staticmethod
    def _no_directory() -> str:
        raise TreeError("this layer is not on disk yet", code="not-on-disk")


class PlannedSpot(Spot):
    """A directory of a planned layer; ``content`` once it is in the layer."""

    __slots__ = ("content",)
    tree: PlannedTree
    plans = True

    def __init__(self, tree: PlannedTree, parent: Spot | None, path: str, base: Directory | None) -> None:
        super().__init__(tree, parent, path, base)
        self.content: Content | None = None

    def read_link(self, name: str) -> str:
        own = self._children().get(name)
        return own.link if own is not None else super().read_link(name)

    def child(self, name: str) -> Spot:
        path = self.where(name)
        known = self.tree.known(path)
        if known is not None:
            return known
        own = self._children().get(name)
        under = self._base.lookup(name) if self._base is not None else None
        shows = under is not None and under.is_dir and not (own is not None and own.opaque)
        base = self._base.child(under) if shows and under is not None and self._base is not None else None
        spot = PlannedSpot(self.tree, self, path, base)
        spot.content = own
        spot.exists = own is not None
        self.tree.remember(spot)
        return spot

    def _copy_up(self, under: Directory, entry: Entry) -> None:
        assert isinstance(self.parent, PlannedSpot)
        attributes = under.xattrs(entry)
        self.content = Content(msgspec.structs.replace(entry, layer=0), children={}, attributes=attributes)
        self.parent._children()[entry.name] = self.content
        self.exists = True

    def make_directory(self, name: str, mode: int, uid: int, gid: int, mtime: int | None = None) -> Spot:
        self._change()
        hides = self._clear_whiteout(name)
        self.tree.misread = self.tree.misread or self.path.count("/") >= DEEPEST
        when = mtime if mtime is not None else self.tree.now
        content = Content(self.tree.entry(name, stat.S_IFDIR | mode, uid, gid, when), children={}, opaque=hides)
        self._children()[name] = content
        spot = PlannedSpot(self.tree, self, self.where(name), None)
        spot.content = content
        spot.exists = True
        self.tree.remember(spot)
        return spot

    def take(
        self, directory: Directory, entry: Entry, name: str, mode: int, uid: int, gid: int, attributes: dict[str, bytes]
    ) -> None:
        """Let the file ``entry`` of ``directory`` be the file ``name`` here; it is read when the layer is packed."""
        self._change()
        self._clear_whiteout(name)
        made = self.tree.entry(name, stat.S_IFREG | mode, uid, gid, entry.mtime, entry.size)
        self._children()[name] = Content(made, attributes=attributes)
        self.tree.keep(made, (directory.tree, directory.path, entry))

    def create_file(self, name: str) -> int:
        """A file in memory: for what has no source, the heredocs of a Dockerfile."""
        self._change()
        return os.memfd_create(name, os.MFD_CLOEXEC)

    def finish_file(self, fd: int, name: str, mode: int, uid: int, gid: int, mtime: int, xattrs: object = None) -> None:
        self._clear_whiteout(name)
        made = self.tree.entry(name, stat.S_IFREG | mode, uid, gid, mtime, os.fstat(fd).st_size)
        attributes = dict(xattrs) if isinstance(xattrs, dict) else {}
        self._children()[name] = Content(made, attributes=attributes)
        self.tree.keep(made, fd)

    def make_link(self, name: str, target: str, uid: int, gid: int, mtime: int) -> None:
        self._change()
        self._clear_whiteout(name)
        made = self.tree.entry(name, stat.S_IFLNK | 0o777, uid, gid, mtime, len(os.fsencode(target)))
        self.tree.misread = self.tree.misread or not is_text(target)
        self._children()[name] = Content(made, link=target)

    def make_node(self, name: str, mode: int, rdev: int, uid: int, gid: int, mtime: int) -> None:
        self._change()
        self._clear_whiteout(name)
        self._children()[name] = Content(self.tree.entry(name, mode, uid, gid, mtime, rdev=rdev))

    def hard_link(self, name: str, source: str) -> None:
        self._change()
        self._clear_whiteout(name)
        first = self.tree._at(source)
        first.entry = msgspec.structs.replace(first.entry, nlink=first.entry.nlink + 1)
        self._children()[name] = msgspec.structs.replace(first, entry=msgspec.structs.replace(first.entry, name=name))

    def set_entry(self, uid: int, gid: int, mode: int) -> None:
        assert self.content is not None
        self.content.entry = msgspec.structs.replace(self.content.entry, uid=uid, gid=gid, mode=stat.S_IFDIR | mode)

    def set_xattr(self, name: str, key: str, value: bytes) -> None:
        content = self._children()[name] if name else self.content
        assert content is not None
        content.attributes = {**content.attributes, key: value}

    def remove(self, name: str) -> None:
        self._change()
        own = self._children().pop(name, None)
        if own is not None:
            self.tree.forget(self.where(name))
        under = self._base.lookup(name) if self._base is not None else None
        if under is not None:
            self._children()[name] = Content(self.tree.entry(name, stat.S_IFCHR, 0, 0, 0))

    def hide_base(self) -> None:
        self.ensure()
        assert self.content is not None
        self._base = None
        self.content.opaque = True

    def dress_file(self, name: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        content = self._children()[name]
        when = mtime // _SECOND * _SECOND
        content.entry = msgspec.structs.replace(content.entry, mode=stat.S_IFREG | mode, uid=uid, gid=gid, mtime=when)

    def _change(self) -> None:
        self.ensure()
        assert self.content is not None
        self.tree.times.pop(self.path, None)
        self.content.entry = msgspec.structs.replace(self.content.entry, mtime=self.tree.now // _SECOND * _SECOND)

    def _own(self, name: str) -> Entry | None:
        content = self._children().get(name)
        return content.entry if content is not None else None

    def _clear_whiteout(self, name: str) -> bool:
        own = self._own(name)
        if own is None or not own.is_whiteout:
            return False
        del self._children()[name]
        return True

    def _children(self) -> dict[str, Content]:
        """What the layer has in this directory; an empty dictionary of no consequence while it is the base's still."""
        if self.content is None:
            return {}
        if self.content.children is None:
            self.content.children = {}
        return self.content.children
