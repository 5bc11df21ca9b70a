"""A layer packed straight from a plan: nobody needs its files on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shiplap.layers.difference import Change, changes
from shiplap.layers.pack import layer_members, write_tar
from shiplap.oci import media_types
from shiplap.ops.workbench import Workbench
from shiplap.store.snapshots import Draft, LayerBlob
from shiplap.trees.planned import PlannedTree
from shiplap.trees.tree import Tree


def pack(planned: PlannedTree, base: Tree | None, draft: Draft, bench: Workbench, about: str) -> str:
    """The new snapshot: the packed layer, and its table of contents."""
    table = planned.table()
    store = bench.store
    with store.blobs.writer() as writer, Tree((table,)) as layer:
        written: set[str] = set()
        packed = write_tar(layer_members(_noting(changes(layer, base), written)), writer.file)
        writer.commit(packed.digest)
    # What is as it was beneath is not in the layer, so it must not be in its table either.
    planned.keep_only(written)
    snapshot = draft.commit(about=about, contents=table.root)
    blob = LayerBlob(packed.digest, packed.size, media_types.OCI_LAYER_GZIP)
    store.snapshots.record_blob(snapshot.id, "gzip", packed.diff_id, blob)
    return snapshot.id


def _noting(found: Iterable[Change], paths: set[str]) -> Iterator[Change]:
    for change in found:
        paths.add(change.path)
        yield change
