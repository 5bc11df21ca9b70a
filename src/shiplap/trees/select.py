"""Which files a COPY names: rooted paths and patterns over a tree, as BuildKit resolves them.

Patterns are Go's ``filepath.Match``, matched component by component; directories that are links are not descended into
while matching, but each match (and each literal path) is then followed inside the root.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from shiplap.errors import TreeError
from shiplap.trees.entry import Entry
from shiplap.trees.patterns import check_pattern, match_path
from shiplap.trees.root import Found, find
from shiplap.trees.tree import Directory, Tree


def has_wildcard(path: str) -> bool:
    """True if ``path`` holds ``*``, ``?`` or ``[`` that no backslash escapes."""
    skip = False
    for char in path:
        if skip:
            skip = False
        elif char == "\\":
            skip = True
        elif char in "*?[":
            return True
    return False


class Selected:
    """One match: ``source`` is its path as named (rooted, clean), ``found`` where it led, with links followed."""

    __slots__ = ("found", "source")

    def __init__(self, source: str, found: Found) -> None:
        self.source = source
        self.found = found

    @property
    def entry(self) -> Entry:
        assert self.found.entry is not None
        return self.found.entry


def select(tree: Tree, source: str) -> list[Selected]:
    """The matches of ``source``, in byte order. A literal that is not there raises TreeError(code="not-found"); a pattern
    that matches nothing gives an empty list.
    """
    clean = posixpath.normpath("/" + source)
    if clean.startswith("//"):
        clean = clean[1:]
    if not has_wildcard(clean):
        return [Selected(clean, _must_find(tree, clean))]
    check_pattern(clean[1:])
    parts = clean[1:].split("/")
    first = next(number for number, part in enumerate(parts) if has_wildcard(part))
    head = "/" + "/".join(parts[:first])
    start = find(tree, head)
    if start is None:
        raise not_found(head)
    if start.entry is not None and start.name and not start.entry.is_dir:
        return []
    with _closing(start.directory()) as directory:
        return [Selected(path, _must_find(tree, path)) for path in _matches(directory, head.rstrip("/"), parts[first:])]


def _matches(directory: Directory, path: str, parts: list[str]) -> Iterator[str]:
    for entry in directory.entries():
        if not match_path(parts[0], entry.name):
            continue
        here = f"{path}/{entry.name}"
        if len(parts) == 1:
            yield here
        elif entry.is_dir:
            with _closing(directory.child(entry)) as child:
                yield from _matches(child, here, parts[1:])


def _must_find(tree: Tree, path: str) -> Found:
    found = find(tree, path)
    if found is None:
        raise not_found(path)
    return found


def not_found(path: str) -> TreeError:
    """What is said of a source that is not there."""
    return TreeError(f'"{path}": not found', code="not-found")


class _closing:
    __slots__ = ("_directory",)

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def __enter__(self) -> Directory:
        return self._directory

    def __exit__(self, *_: object) -> None:
        self._directory.close()
