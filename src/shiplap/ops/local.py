"""The build context: read where it lies, through its ignore file. Nothing is sent anywhere."""

from __future__ import annotations

from pathlib import Path

from shiplap.errors import ContextError
from shiplap.graph.operations import LocalSource
from shiplap.ops.workbench import Workbench
from shiplap.trees.descent import Walk, descend
from shiplap.trees.once import ReadOnce
from shiplap.trees.patterns import PatternSet
from shiplap.trees.tree import Directory, Hide, Tree


def open_context(operation: LocalSource, bench: Workbench, once: ReadOnce | None = None) -> Tree:
    """The tree of a context; the caller closes it. Raises ContextError(code="no-context")."""
    context = bench.contexts.get(operation.name)
    if context is None:
        raise ContextError(
            f"no build context named {operation.name!r}",
            code="no-context",
            hint=f"give one with --build-context {operation.name}=PATH",
        )
    hide = hide_ignored(context.path, operation.ignore) if operation.ignore else None
    return Tree((str(context.path),), live=True, hide=hide, witness=context.witness, once=once)


def hide_ignored(root: Path, lines: tuple[str, ...]) -> Hide:
    """What the ignore file hides. A directory that is ignored shows only if something below it was taken out again (!)."""
    patterns = PatternSet(lines)

    def hide(path: str, is_dir: bool) -> bool:
        if not patterns.matches(path):
            return False
        if not is_dir or patterns.prunes(path):
            return True
        with Tree((str(root / path),), live=True) as below:
            return not descend(_shows_any(below.root(), path))

    def _shows_any(directory: Directory, path: str) -> Walk[bool]:
        for entry in directory.entries():
            here = f"{path}/{entry.name}"
            if not patterns.matches(here):
                return True
            if entry.is_dir and not patterns.prunes(here):
                child = directory.child(entry)
                try:
                    if (yield _shows_any(child, here)):
                        return True
                finally:
                    child.close()
        return False

    return hide
