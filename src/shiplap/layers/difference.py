"""The difference between a layer's directory (overlayfs' form) and the tree beneath it, in the order of a layer tar.

The rules are those of BuildKit's overlay differ: what equals the base's entry is left out, but the directories on the way
to a change are in; deletions are whiteouts at the place of the deleted name; an opaque directory becomes one whiteout
for each name of the base that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from shiplap.trees.descent import flatten
from shiplap.trees.entry import Entry
from shiplap.trees.hashing import file_digest
from shiplap.trees.owners import Owner
from shiplap.trees.tree import Directory, Tree

CAPABILITY = "security.capability"


class Change(msgspec.Struct, frozen=True, gc=False):
    """One member to write: the entry ``path`` as it is now, or (``entry`` None) its deletion."""

    path: str
    entry: Entry | None
    directory: Directory
    """The directory of the layer that holds it, to read it from."""


def changes(layer: Tree, base: Tree | None) -> Iterator[Change]:
    """The changes that ``layer`` (a tree of one layer) makes to ``base``, directories before what they hold."""
    yield from _Differ(layer, base).run()


class _Differ:
    def __init__(self, layer: Tree, base: Tree | None) -> None:
        self._layer = layer
        self._base = base if base is not None and base.layers else None
        self._written: set[str] = set()

    def run(self) -> Iterator[Change]:
        base = self._base.root() if self._base is not None else None
        yield from flatten(self._walk(self._layer.root(), base, (), opaque=False))

    def _walk(self, here: Directory, base: Directory | None, above: tuple[Change, ...], opaque: bool) -> Iterator[Any]:
        mine: dict[str, Entry | None] = {found.name: found for found in here.layer_entries()}
        if opaque and base is not None:
            for hidden in base.entries():
                mine.setdefault(hidden.name, None)
            mine = {name: mine[name] for name in sorted(mine, key=os.fsencode)}
        for name, entry in mine.items():
            old = base.lookup(name) if base is not None else None
            if entry is None or entry.is_whiteout:
                if old is not None:
                    yield from self._with_parents(Change(here.where(name), None, here), above)
                continue
            change = Change(here.where(name), entry, here)
            same = old is not None and base is not None and self._same(here, entry, base, old)
            if not same:
                yield from self._with_parents(change, above)
            if entry.is_dir:
                under = base.child(old) if old is not None and old.is_dir and base is not None else None
                child = here.child(entry)
                hides = opaque or child.opaque()
                yield self._walk(child, under, (*above, change), opaque=hides and under is not None)

    def _with_parents(self, change: Change, above: tuple[Change, ...]) -> Iterator[Change]:
        for parent in above:
            if parent.path not in self._written:
                self._written.add(parent.path)
                yield parent
        if change.entry is not None and change.entry.is_dir:
            if change.path in self._written:
                return
            self._written.add(change.path)
        yield change

    def _same(self, here: Directory, new: Entry, base: Directory, old: Entry) -> bool:
        if (new.mode, new.uid, new.gid, new.rdev) != (old.mode, old.uid, old.gid, old.rdev):
            return False
        if here.xattrs(new).get(CAPABILITY) != base.xattrs(old).get(CAPABILITY):
            return False
        if new.is_dir:
            return True
        if new.size != old.size or new.mtime != old.mtime:
            return False
        if new.mtime % 1_000_000_000:
            return True
        # Both times are whole seconds, as after unpacking: they may be equal by accident. Compare what is inside.
        if new.is_link:
            return here.read_link(new) == base.read_link(old)
        return not new.is_file or new.size == 0 or file_digest(here, new) == file_digest(base, old)


def inherit_owners(layer: Tree, base: Tree) -> dict[str, Owner]:
    """Owners on record in ``base`` of files that a step copied up without changing whose they are.

    With a single mapped id, overlayfs copies a file up as ours; the record of the layer beneath says whose it is.
    """
    inherited: dict[str, Owner] = {}
    records = [known.owners for known in base.layers if known.owners]
    if not records:
        return inherited
    for change in changes(layer, base):
        if change.entry is None or change.path in layer.layers[0].owners.paths:
            continue
        for record in records:
            owner = record.paths.get(change.path)
            if owner is not None:
                inherited[change.path] = Owner(owner.uid, owner.gid) if change.entry.is_file else owner
                break
    return inherited
