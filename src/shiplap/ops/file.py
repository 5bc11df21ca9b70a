"""COPY, ADD and WORKDIR: files changed in a new layer over the base, without any mount."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from shiplap.graph.operations import NO_INPUT, Copy, FileChange, MakeDirectory
from shiplap.ops.accounts import Accounts
from shiplap.ops.workbench import Workbench
from shiplap.store.snapshots import EMPTY
from shiplap.trees.change import ChangeTree, Spot
from shiplap.trees.copy import Copier, CopyRule
from shiplap.trees.part import empty_table
from shiplap.trees.select import Selected
from shiplap.trees.tree import Tree

OpenTree = Callable[[int], Tree]
"""Gives the tree of an input, by number; the caller of it closes it."""


def change_files(
    operation: FileChange, inputs: Sequence[str], open_tree: OpenTree, bench: Workbench, about: str, *, as_files: bool
) -> str:
    """Apply the actions; the new snapshot. ``inputs`` are results by number.

    Unless ``as_files``, nobody is known to need the files themselves: then the layer is packed straight from where they
    lie, and what stands in the store is the packed layer and its table of contents.
    """
    parent = inputs[operation.base] if operation.base != NO_INPUT else EMPTY
    unpacks = any(isinstance(action, Copy) and action.unpack is not False for action in operation.actions)
    with bench.store.snapshots.draft(parent) as draft, ExitStack() as held:
        base = held.enter_context(bench.store.snapshots.tree(parent)) if parent != EMPTY else None
        if not as_files and not unpacks:
            from shiplap.ops.packing import pack
            from shiplap.trees.planned import PlannedTree

            with PlannedTree(base, _now(bench)) as planned:
                _apply(operation, planned, base, open_tree, bench, held)
                if not planned.misread:
                    return pack(planned, base, draft, bench, about)
        with ChangeTree(draft.diff, base) as target:
            _apply(operation, target, base, open_tree, bench, held)
        held.close()
        return draft.commit(about=about).id


def _nothing(bench: Workbench) -> Tree:
    """What COPY finds in a stage without layers: a root directory, and nothing in it."""
    return Tree((empty_table(_now(bench)),))


def _apply(
    operation: FileChange, target: ChangeTree, base: Tree | None, open_tree: OpenTree, bench: Workbench, held: ExitStack
) -> None:
    accounts = Accounts(base)
    for action in operation.actions:
        if isinstance(action, MakeDirectory):
            _make_directory(action, target, accounts, bench)
        else:
            source = held.enter_context(open_tree(action.input) if action.input != NO_INPUT else _nothing(bench))
            _copy(action, source, target, accounts, bench)


def _make_directory(action: MakeDirectory, target: ChangeTree, accounts: Accounts, bench: Workbench) -> None:
    uid, gid = accounts.owner(action.owner) if action.owner else (0, 0)
    mtime = _now(bench)

    def create(parent: Spot, name: str) -> Spot:
        return parent.make_directory(name, action.mode, uid, gid, mtime)

    target.spot(action.path, create=create)


def _copy(action: Copy, source: Tree, target: ChangeTree, accounts: Accounts, bench: Workbench) -> None:
    owner: tuple[int, int] | None = accounts.owner(action.owner) if action.owner else None
    if owner is None and action.reset_owner:
        owner = (0, 0)
    rule = CopyRule(owner=owner, mode=action.mode, exclude=action.exclude, parents=action.parents, check=bench.check)
    unpacked_owner = accounts.owner(action.owner) if action.owner else None

    def extract_archive(match: Selected, make: Callable[[], Spot]) -> bool:
        from shiplap.ops.extract import extract

        return extract(match, make, target, unpacked_owner, bench)

    if action.sources:
        copier = Copier(source, target, rule, _now(bench))
        for name in action.sources:
            copier.copy(name, action.dest, None if action.unpack is False else extract_archive)
    if action.inline:
        copier = Copier(source, target, rule, _now(bench))
        for inline in action.inline:
            copier.place_file(inline.name, inline.data, inline.mode, action.dest)


def _now(bench: Workbench) -> int:
    return time.time_ns() if bench.epoch is None else bench.epoch * 1_000_000_000
