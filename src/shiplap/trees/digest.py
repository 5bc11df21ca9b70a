"""Content digests: what a COPY would copy, as one digest. Times are left out; so are owners where COPY resets them."""

from __future__ import annotations

import hashlib
import os
import posixpath
from typing import Protocol

from shiplap.trees.descent import Walk, descend
from shiplap.trees.entry import Entry
from shiplap.trees.hashing import LARGE, file_digest, file_digests
from shiplap.trees.once import SMALL
from shiplap.trees.patterns import PatternSet
from shiplap.trees.select import Selected, has_wildcard, select
from shiplap.trees.tree import Directory, Tree


class Memory(Protocol):
    """Remembers the digest of a file's bytes and attributes, for as long as the file did not change."""

    def recall(self, path: str, entry: Entry) -> bytes | None:
        """The remembered digest of ``path`` if size, inode, mtime and ctime are what they were, else None."""

    def remember(self, path: str, entry: Entry, digest: bytes) -> None: ...


class Selection(Protocol):
    """The part of a COPY that says which files (see ``graph.operations.Copy``)."""

    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def exclude(self) -> tuple[str, ...]: ...
    @property
    def parents(self) -> bool: ...
    @property
    def reset_owner(self) -> bool: ...


def selection_digest(tree: Tree, selection: Selection, memory: Memory | None = None) -> str:
    """Hex sha256 of all that ``selection`` names in ``tree``: names below what was named, modes, links, contents.

    The name of a directory that is named itself does not count (its contents are copied); that of a file does, for
    it may be the name it gets. Raises TreeError(code="not-found").
    """
    hasher = _TreeHasher(
        tree, memory, PatternSet(selection.exclude) if selection.exclude else None, selection.reset_owner
    )
    for source in selection.sources:
        if selection.parents:
            base, pattern = split_parents(source)
            hasher.add_included(tree, base, pattern)
            continue
        for match in select(tree, source):
            hasher.add(match)
        hasher.mark(b"source")
    return hasher.hexdigest()


def split_parents(source: str) -> tuple[str, str]:
    """``a/./b/c`` -> the directory that drops away and the pattern that stays (``COPY --parents``)."""
    base, pivot, pattern = source.partition("/./")
    if not pivot:
        return "/", posixpath.normpath("/" + source)[1:]
    return posixpath.normpath("/" + base), posixpath.normpath("/" + pattern)[1:]


class _TreeHasher:
    def __init__(self, tree: Tree, memory: Memory | None, exclude: PatternSet | None, reset_owner: bool) -> None:
        self._hasher = hashlib.sha256()
        self._tree = tree
        self._memory = memory
        self._exclude = exclude
        self._reset = reset_owner

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()

    def mark(self, word: bytes) -> None:
        self._hasher.update(b"\0\0" + word)

    def add(self, match: Selected) -> None:
        found = match.found
        if not found.name or match.entry.is_dir:
            directory = found.directory()
            if found.entry is not None:
                self._head("", found.entry, b"")
            descend(self._walk(directory, "", None))
            if directory is not found.parent:
                directory.close()
        else:
            self._entry(found.parent, match.entry, match.source.rpartition("/")[2])
        found.parent.close()

    def add_included(self, tree: Tree, base: str, pattern: str) -> None:
        """``--parents``: everything below ``base`` that ``pattern`` includes, and the directories on the way."""
        for match in select(tree, base):
            directory = match.found.directory()
            descend(self._walk(directory, "", PatternSet((pattern,))))
            if not has_wildcard(base) and not has_wildcard(pattern):
                select(tree, f"{base}/{pattern}")  # a literal has to be there
            directory.close()

    def _walk(self, directory: Directory, prefix: str, include: PatternSet | None) -> Walk[None]:
        entries = [(entry, prefix + entry.name) for entry in directory.entries()]
        ready = self._large(directory, [each for each in entries if each[0].size >= LARGE and each[0].is_file], include)
        for entry, path in entries:
            if self._exclude is not None and self._exclude.matches(path):
                if not entry.is_dir or self._exclude.prunes(path):
                    continue
            elif include is None or include.matches(path):
                self._entry(directory, entry, path, ready.get(entry.name))
            if entry.is_dir:
                child = directory.child(entry)
                yield self._walk(child, path + "/", include)
                child.close()

    def _large(
        self, directory: Directory, files: list[tuple[Entry, str]], include: PatternSet | None
    ) -> dict[str, bytes]:
        """Digests of the bytes of those of these files that are selected and not remembered, by name."""
        wanted = [
            entry
            for entry, path in files
            if not (self._exclude is not None and self._exclude.matches(path))
            and (include is None or include.matches(path))
            and (self._memory is None or self._memory.recall(directory.where(entry.name), entry) is None)
        ]
        return file_digests(directory, wanted) if len(wanted) > 1 else {}

    def _entry(self, directory: Directory, entry: Entry, name: str, digest: bytes | None = None) -> None:
        """``digest``: of its bytes, if that is known already."""
        content = b""
        if entry.is_file:
            path = directory.where(entry.name)
            known = self._memory.recall(path, entry) if self._memory is not None else None
            if known is None:
                known, attributes = self._read(directory, entry, path, digest)
                for key, value in sorted(attributes.items()):
                    known = hashlib.sha256(known + key.encode() + b"\0" + value).digest()
                if self._memory is not None:
                    self._memory.remember(path, entry, known)
            content = known
        elif entry.is_link:
            content = os.fsencode(directory.read_link(entry))
        self._head(name, entry, content)

    def _read(
        self, directory: Directory, entry: Entry, path: str, digest: bytes | None
    ) -> tuple[bytes, dict[str, bytes]]:
        if digest is not None:
            return digest, directory.xattrs(entry)
        once = self._tree.once
        if once is None or entry.size > SMALL:
            return file_digest(directory, entry), directory.xattrs(entry)
        data, attributes = directory.load(entry)
        once.keep(path, entry, data, attributes)
        return hashlib.sha256(data).digest(), attributes

    def _head(self, name: str, entry: Entry, content: bytes) -> None:
        owner = "0:0" if self._reset else f"{entry.uid}:{entry.gid}"
        mode = entry.mode & 0o170000 if entry.is_link else entry.mode
        rdev = 0 if entry.is_file or entry.is_dir or entry.is_link else entry.rdev
        head = f"{mode:o} {owner} {rdev} {len(content)} {len(name)} "
        self._hasher.update(head.encode() + os.fsencode(name) + content)
