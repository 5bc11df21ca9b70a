"""Merge: the layers of independent snapshots on top of each other (``COPY --link``); no file is touched."""

from __future__ import annotations

from collections.abc import Sequence

from shiplap.ops.workbench import Workbench


def merge(inputs: Sequence[str], bench: Workbench, about: str) -> str:
    """Stack the layers of ``inputs[1:]`` on ``inputs[0]``; the snapshot on top."""
    snapshots = bench.store.snapshots
    top = inputs[0]
    for other in inputs[1:]:
        for layer in reversed(snapshots.chain(other)):
            top = snapshots.stack(top, layer.layer, about).id
    return top
