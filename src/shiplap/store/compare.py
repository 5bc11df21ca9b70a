"""Whether the files of a snapshot are still those of its layer: what was unpacked or packed is done again, and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from shiplap.layers.compression import Decompressed
from shiplap.layers.difference import changes
from shiplap.layers.pack import layer_members
from shiplap.layers.unpack import UnpackRule, unpack
from shiplap.trees.change import ChangeTree
from shiplap.trees.tree import Tree

if TYPE_CHECKING:
    from shiplap.store.snapshots import Snapshot
    from shiplap.store.store import Store


def differs(store: Store, snapshot: Snapshot, check: Callable[[], None]) -> str | None:
    """What is wrong with the files of the layer of ``snapshot``; empty if nothing, None if there is nothing to go by.

    Its packed layer is unpacked beside it, over the same base, and both are compared as the tars they would be packed
    into, so that everything that can be in an image is compared and nothing else is.
    """
    rows = store.index.rows("SELECT compression FROM layer_blobs WHERE snapshot=?", snapshot.id)
    packed = next((found for row in rows if (found := store.snapshots.blob(snapshot.id, row[0])) is not None), None)
    if packed is None:
        return None
    with store.snapshots.tree(snapshot.parent) as base, store.snapshots.draft(snapshot.parent) as draft:
        with store.blobs.blamed(packed.digest), store.blobs.verified(packed.digest) as blob:
            with ChangeTree(draft.diff, base) as target:
                unpack(Decompressed(blob), target, UnpackRule(check=check))
            blob.finish()
        wanted, actual = (_summary(diff, base, check) for diff in (draft.diff, store.snapshots.diff(snapshot)))
    for name, digest in wanted.items():
        if actual.get(name) != digest:
            return f"/{name} is {'missing' if name not in actual else 'not what it was'}"
    for name in actual:
        if name not in wanted:
            return f"/{name} should not be there"
    return ""


def _summary(diff: str, base: Tree, check: Callable[[], None]) -> dict[str, bytes]:
    """Path to a digest of what the layer's tar would hold of it."""
    summary: dict[str, bytes] = {}
    with Tree((diff,)) as layer:
        for change in changes(layer, base):
            check()
            hasher = hashlib.sha256()
            for piece in layer_members((change,)):
                hasher.update(piece)
            summary[change.path] = hasher.digest()
    return summary
