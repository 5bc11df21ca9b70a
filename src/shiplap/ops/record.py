"""Owners on record of a snapshot's files, as a step is told them, and as it gives them back."""

from __future__ import annotations

from collections.abc import Mapping

from shiplap.sandbox.spec import FileOwner
from shiplap.trees.owners import Owner, Owners
from shiplap.trees.tree import Directory, Tree


def on_record(tree: Tree) -> dict[str, FileOwner]:
    """What ``tree`` shows of owners that its files on disk do not have, by path. All its layers must be on disk."""
    found: dict[str, FileOwner] = {}
    known: dict[str, Directory | None] = {}

    def directory(path: str) -> Directory | None:
        known.setdefault("", tree.root())
        missing = []
        while path not in known:
            missing.append(path)
            path = path.rpartition("/")[0]
        here = known[path]
        for below in reversed(missing):
            entry = here.lookup(below.rpartition("/")[2]) if here is not None else None
            here = here.child(entry) if here is not None and entry is not None and entry.is_dir else None
            known[below] = here
        return here

    for number, layer in enumerate(tree.layers):
        for path, owner in layer.owners.paths.items():
            above, _, name = path.rpartition("/")
            if path:
                parent = directory(above)
                entry = parent.lookup(name) if parent is not None else None
                shown = entry is not None and entry.layer == number
            else:
                shown = number == 0
            if shown:
                found[path] = (owner.uid, owner.gid, owner.mode, owner.rdev)
    return found


def put_on_record(owners: Mapping[str, FileOwner], directory: str) -> None:
    """Write ``owners`` beside the layer directory ``directory``, if there are any."""
    record = Owners()
    for path, (uid, gid, mode, rdev) in owners.items():
        record.record(path, Owner(uid, gid, mode, rdev))
    record.save(directory)
