"""An image's root file system: its layers, unpacked one over the other, each once for all images that share it."""

from __future__ import annotations

import hashlib

from shiplap.errors import ImageError, Place
from shiplap.graph.operations import ImageSource
from shiplap.layers.compression import Decompressed
from shiplap.layers.unpack import UnpackRule, unpack
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor
from shiplap.oci.media_types import as_oci
from shiplap.ops.workbench import Workbench
from shiplap.store.snapshots import EMPTY, LayerBlob
from shiplap.trees.change import ChangeTree


def make_image(operation: ImageSource, step: str, bench: Workbench) -> str:
    """The snapshot of the image's root file system, made if it is not there yet."""
    bench.images.fetch(operation, step)
    resolved = bench.store.images.resolve(operation.digest, None)
    diff_ids = resolved.config.diff_ids
    layers = resolved.manifest.layers
    if len(diff_ids) != len(layers):
        raise ImageError(
            f"image has {len(layers)} layers and {len(diff_ids)} diff ids",
            code="invalid-image",
            where=Place(blob=operation.digest),
        )
    snapshot = EMPTY
    chain = ""
    for descriptor, diff_id in zip(layers, diff_ids, strict=True):
        chain = diff_id if not chain else "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
        snapshot = _unpack_layer(descriptor, diff_id, chain, snapshot, bench)
    return snapshot


def _unpack_layer(descriptor: Descriptor, diff_id: Digest, chain: str, parent: str, bench: Workbench) -> str:
    # Named by the chain id (OCI image specification, config.md, "Layer ChainID"): the same layers, the same directory.
    name = chain.partition(":")[2][:32]
    store = bench.store
    with store.once(chain, bench.check):
        if store.snapshots.get(name) is None:
            with store.snapshots.draft(parent) as draft:
                _apply(descriptor, diff_id, draft.diff, parent, bench)
                draft.commit(about=f"layer {diff_id}", id=name, diff_id=diff_id)
        if store.snapshots.blob(name, "original") is None:
            blob = LayerBlob(descriptor.digest, descriptor.size, as_oci(descriptor.media_type))
            store.snapshots.record_blob(name, "original", diff_id, blob)
    return name


def _apply(descriptor: Descriptor, diff_id: Digest, directory: str, parent: str, bench: Workbench) -> None:
    rule = UnpackRule(check=bench.check)
    blobs = bench.store.blobs
    with blobs.blamed(descriptor.digest), blobs.verified(descriptor.digest) as compressed:
        plain = _Hashed(Decompressed(compressed))
        if parent == EMPTY:
            with ChangeTree(directory, None) as target:
                unpack(plain, target, rule)
        else:
            with bench.store.snapshots.tree(parent) as base, ChangeTree(directory, base) as target:
                unpack(plain, target, rule)
        plain.finish(diff_id)
        compressed.finish()


class _Hashed:
    """Hashes the plain layer while it is unpacked."""

    def __init__(self, stream: Decompressed) -> None:
        self._stream = stream
        self._hasher = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hasher.update(data)
        return data

    def finish(self, diff_id: Digest) -> None:
        while self.read(1 << 20):
            pass
        if diff_id.startswith("sha256:") and "sha256:" + self._hasher.hexdigest() != diff_id:
            raise ImageError(
                f"layer has the diff id sha256:{self._hasher.hexdigest()}, its image says {diff_id}",
                code="digest-mismatch",
                where=Place(blob=diff_id),
            )
