"""Rooted path resolution: the one place where a path of an image or an archive becomes a place in a tree.

Semantics of ``openat2(2)`` with RESOLVE_IN_ROOT: absolute links and ``..`` stay inside, the number of links is bounded.
The walk interprets links itself, so that it works for a stack of layers and wherever openat2 is missing or refused.
"""

from __future__ import annotations

from shiplap.errors import Place, TreeError
from shiplap.trees.entry import Entry
from shiplap.trees.tree import LINK_LIMIT, Directory, Tree

PATH_LIMIT = 4096
"""Longest path that is resolved, in characters (PATH_MAX of Linux)."""


class Found:
    """Where a path led. ``entry`` is None if the last component is not there; its directory exists even so.

    For the root itself ``parent`` is the root, ``name`` is empty and ``entry`` is the root's.
    """

    __slots__ = ("entry", "name", "parent")

    def __init__(self, parent: Directory, name: str, entry: Entry | None) -> None:
        self.parent = parent
        self.name = name
        self.entry = entry

    @property
    def path(self) -> str:
        """Canonical path, relative to the root, without links."""
        return self.parent.where(self.name) if self.name else ""

    def directory(self) -> Directory:
        """The directory found; raises TreeError if it is none."""
        if not self.name:
            return self.parent
        if self.entry is None or not self.entry.is_dir:
            raise TreeError(f"/{self.path}: not a directory", code="not-a-directory")
        return self.parent.child(self.entry)


def resolve(tree: Tree, path: str, *, follow: bool = True) -> Found:
    """Find ``path`` in ``tree``; ``follow`` says whether a link at its end is followed.

    Raises TreeError: not-found (a directory on the way is missing; ``where`` names it), not-a-directory, too-many-links.
    """
    if len(path) > PATH_LIMIT or "\0" in path:
        raise TreeError(f"path is too long or has a NUL: {path[:60]!r}", code="bad-path")
    stack: list[Directory] = [tree.root()]
    pending = [part for part in reversed(path.split("/")) if part and part != "."]
    links = 0
    while pending:
        name = pending.pop()
        if name == "..":
            if len(stack) > 1:
                stack.pop().close()
            continue
        here = stack[-1]
        entry = here.lookup(name)
        if entry is not None and entry.is_link and (pending or follow):
            links += 1
            if links > LINK_LIMIT:
                raise TreeError(f"/{path.strip('/')}: too many links", code="too-many-links")
            target = here.read_link(entry)
            if target.startswith("/"):
                while len(stack) > 1:
                    stack.pop().close()
            pending.extend(part for part in reversed(target.split("/")) if part and part != ".")
            if len(pending) > PATH_LIMIT:
                raise TreeError(f"/{path.strip('/')}: path is too long", code="bad-path")
            continue
        if not pending:
            return _found(stack, name, entry)
        if entry is None:
            raise TreeError(
                f"/{path.strip('/')}: no such file or directory", code="not-found", where=Place(file=here.where(name))
            )
        if not entry.is_dir:
            raise TreeError(f"/{here.where(name)}: not a directory", code="not-a-directory")
        stack.append(here.child(entry))
    here = stack.pop()
    _close(stack)
    if not here.path:
        return Found(here, "", tree.root_entry() if tree.layers else None)
    # A path that ends in "..": name the directory by its parent, which the stack below it is.
    parent_path, _, name = here.path.rpartition("/")
    here.close()
    parent = resolve(tree, parent_path).directory() if parent_path else tree.root()
    return Found(parent, name, parent.lookup(name))


def find(tree: Tree, path: str, *, follow: bool = True) -> Found | None:
    """As :func:`resolve`; None if ``path`` or a directory on its way is not there."""
    try:
        found = resolve(tree, path, follow=follow)
    except TreeError as error:
        if error.code in ("not-found", "not-a-directory"):
            return None
        raise
    return found if found.entry is not None else None


def _found(stack: list[Directory], name: str, entry: Entry | None) -> Found:
    parent = stack.pop()
    _close(stack)
    return Found(parent, name, entry)


def _close(stack: list[Directory]) -> None:
    for directory in stack:
        directory.close()
