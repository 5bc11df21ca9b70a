"""A tree of files as a stack of directories: one (a build context) or many (a snapshot: layers in overlayfs' form).

Nothing is mounted: a layer above hides what it whites out, as overlayfs would show it. Within a layer a directory is
reached by the names that were seen to be directories there, never through a symbolic link; a live directory (a build
context, which others may be changing) is walked by descriptors with O_NOFOLLOW.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from shiplap.errors import Place, TreeError
from shiplap.trees.entry import Entry, entry_of
from shiplap.trees.owners import Owners

LINK_LIMIT = 255
"""Symbolic links followed in one resolution, as in containerd's continuity ``RootPath``."""

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Hide = Callable[[str, bool], bool]
"""(path without leading slash, is a directory) -> True if the tree shall not show it."""


class Layer:
    """One directory of a stack. ``live`` ones are walked by descriptor and hold no whiteouts."""

    __slots__ = ("fd", "live", "owners", "path")

    def __init__(self, path: str, *, live: bool = False) -> None:
        self.path = path
        self.live = live
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.owners = Owners() if live else Owners.load(path)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Directory:
    """One directory of a tree, its layers merged. ``path`` is canonical and relative: ``""`` for the root, ``usr/lib``."""

    __slots__ = ("_parts", "path", "tree")

    def __init__(self, tree: Tree, path: str, parts: list[tuple[int, int, str]]) -> None:
        self.tree = tree
        self.path = path
        # (layer number, descriptor, prefix below the descriptor); top layer first.
        self._parts = parts

    def close(self) -> None:
        if self.tree.live and self.path and self._parts:
            os.close(self._parts[0][1])
        self._parts = []

    def where(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def lookup(self, name: str) -> Entry | None:
        """The entry ``name``, links not followed; None if it is not there, whited out or hidden."""
        for layer, fd, prefix in self._parts:
            try:
                st = os.stat(prefix + name, dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unreadable(self.where(name), error) from None
            entry = entry_of(name, st, layer)
            if entry.is_whiteout and not self.tree.live:
                return None
            return self._shown(entry)
        return None

    def entries(self) -> list[Entry]:
        """All entries, by name in byte order; what upper layers white out is left out."""
        found: dict[str, Entry] = {}
        for layer, fd, prefix in self._parts:
            try:
                directory = os.open(prefix or ".", _OPEN_DIRECTORY, dir_fd=fd)
            except OSError as error:
                raise _unreadable(self.path, error) from None
            try:
                with os.scandir(directory) as names:
                    for item in names:
                        if item.name not in found:
                            found[item.name] = entry_of(item.name, item.stat(follow_symlinks=False), layer)
            except FileNotFoundError:
                raise TreeError(f"{self.path}: a file vanished while it was read", code="changed-while-read") from None
            finally:
                os.close(directory)
        listed = [found[name] for name in sorted(found, key=os.fsencode)]
        if self.tree.live:
            return [shown for entry in listed if (shown := self._shown(entry)) is not None]
        if not self.tree.recorded:
            return [entry for entry in listed if not entry.is_whiteout]
        return [shown for entry in listed if not entry.is_whiteout and (shown := self._shown(entry)) is not None]

    def layer_entries(self) -> list[Entry]:
        """The entries of the top layer alone, its whiteouts too, by name in byte order (what a layer changes)."""
        layer, fd, prefix = self._parts[0]
        directory = os.open(prefix or ".", _OPEN_DIRECTORY, dir_fd=fd)
        try:
            with os.scandir(directory) as names:
                found = [entry_of(item.name, item.stat(follow_symlinks=False), layer) for item in names]
        finally:
            os.close(directory)
        found.sort(key=lambda entry: os.fsencode(entry.name))
        owners = self.tree.layers[layer].owners
        return [owners.applied(self.where(entry.name), entry) for entry in found] if owners else found

    def child(self, entry: Entry) -> Directory:
        """The directory that ``entry`` of this directory names."""
        name = entry.name
        if self.tree.live:
            layer, fd, prefix = self._parts[0]
            try:
                return Directory(
                    self.tree, self.where(name), [(layer, os.open(prefix + name, _OPEN_DIRECTORY, dir_fd=fd), "")]
                )
            except OSError as error:
                raise _unreadable(self.where(name), error) from None
        parts: list[tuple[int, int, str]] = []
        for layer, fd, prefix in self._parts:
            if layer < entry.layer:
                continue
            try:
                st = os.stat(prefix + name, dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if (st.st_mode & 0o170000) != 0o040000:
                break
            parts.append((layer, fd, f"{prefix}{name}/"))
            if layer + 1 < len(self.tree.layers) and is_opaque(self.tree.layers[layer].path, f"{prefix}{name}"):
                break
        return Directory(self.tree, self.where(name), parts)

    def open_file(self, entry: Entry) -> int:
        """A descriptor to read the regular file ``entry``; the caller closes it. Never blocks on a FIFO, follows no link."""
        fd, prefix = self._at(entry)
        try:
            return os.open(prefix + entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
        except OSError as error:
            raise _unreadable(self.where(entry.name), error) from None

    def read_link(self, entry: Entry) -> str:
        fd, prefix = self._at(entry)
        try:
            return os.readlink(prefix + entry.name, dir_fd=fd)
        except OSError as error:
            raise _unreadable(self.where(entry.name), error) from None

    def xattrs(self, entry: Entry) -> dict[str, bytes]:
        """Extended attributes of a file or directory, less overlayfs' own and ours. Links and nodes have none we carry."""
        if not (entry.is_file or entry.is_dir):
            return {}
        fd, prefix = self._at(entry)
        path = f"/proc/self/fd/{fd}/{prefix}{entry.name}"
        try:
            names = os.listxattr(path, follow_symlinks=False)
            return (
                {n: os.getxattr(path, n, follow_symlinks=False) for n in names if ".overlay." not in n} if names else {}
            )
        except OSError:
            return {}

    def host_path(self, entry: Entry) -> str:
        """The path on the host of an entry of a frozen layer (for a mount); its parents there are real directories."""
        for layer, _, prefix in self._parts:
            if layer == entry.layer:
                return f"{self.tree.layers[layer].path}/{prefix}{entry.name}"
        raise TreeError(f"{self.where(entry.name)}: not in this tree", code="not-found")

    def host_parts(self) -> list[str]:
        """Host paths of the directories that are merged here, top first."""
        return [
            os.path.join(self.tree.layers[layer].path, prefix.rstrip("/")).rstrip("/")
            for layer, _, prefix in self._parts
        ]

    def _at(self, entry: Entry) -> tuple[int, str]:
        for layer, fd, prefix in self._parts:
            if layer == entry.layer:
                return fd, prefix
        raise TreeError(f"{self.where(entry.name)}: not in this tree", code="not-found")

    def _shown(self, entry: Entry) -> Entry | None:
        hide = self.tree.hide
        if hide is not None and hide(self.where(entry.name), entry.is_dir):
            return None
        owners = self.tree.layers[entry.layer].owners
        return owners.applied(self.where(entry.name), entry) if owners else entry


class Tree:
    """A stack of layers, top first. Use as a context manager: it holds a descriptor for each layer."""

    __slots__ = ("hide", "layers", "live", "recorded")

    def __init__(self, paths: list[str] | tuple[str, ...], *, live: bool = False, hide: Hide | None = None) -> None:
        self.live = live
        self.hide = hide
        self.layers: list[Layer] = []
        try:
            for path in paths:
                self.layers.append(Layer(path, live=live))
        except OSError as error:
            self.close()
            raise TreeError(f"cannot open {error.filename}: {error.strerror}", code="unreadable") from None
        self.recorded = any(layer.owners for layer in self.layers)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for layer in self.layers:
            layer.close()
        self.layers = []

    def root(self) -> Directory:
        return Directory(self, "", [(number, layer.fd, "") for number, layer in enumerate(self.layers)])

    def root_entry(self) -> Entry:
        """The root directory itself, as the top layer has it."""
        if not self.layers:
            raise TreeError("an empty tree has no root", code="not-found")
        entry = entry_of("", os.fstat(self.layers[0].fd))
        return self.layers[0].owners.applied("", entry)


def is_opaque(layer: str, path: str) -> bool:
    """True if the directory ``path`` of the layer directory ``layer`` hides all that lies beneath."""
    for name in OPAQUE:
        try:
            if os.getxattr(f"{layer}/{path}", name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _unreadable(path: str, error: OSError) -> TreeError:
    return TreeError(
        f"cannot read {path or '/'}: {error.strerror}",
        code="unreadable",
        where=Place(file=path or "/"),
        hint="check its permissions, or leave it out with a line in .dockerignore",
    )
