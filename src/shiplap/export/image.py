"""Assembling an image: layers packed, history dated, config and manifest written, all into the store's blobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from shiplap.errors import UsageError
from shiplap.export.moments import format_time
from shiplap.layers.times import Times
from shiplap.oci import media_types
from shiplap.oci.config import History, ImageConfig, RootFS, encode_config
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Manifest, PlatformFields, encode_manifest, prepare
from shiplap.oci.platform import Platform
from shiplap.store.snapshots import LayerBlob, Snapshot
from shiplap.store.store import Store
from shiplap.trees.tree import Tree

ORIGINAL = "original"
_MEDIA = {
    "gzip": media_types.OCI_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
    "uncompressed": media_types.OCI_LAYER,
}
_FILLER = "buildkit.exporter.image.v0"


class Packing(msgspec.Struct, frozen=True):
    """How layers are packed. ``force``: those of the base image too. ``docker_types``: Docker's media types.

    ``times``: what becomes of the times in layers that are no image's (``rewrite-timestamp``).
    """

    compression: str = "gzip"
    level: int | None = None
    force: bool = False
    docker_types: bool = False
    times: Times | None = None

    def checked(self) -> Packing:
        """Itself; UsageError if it asks for what cannot be."""
        if self.compression not in _MEDIA:
            raise UsageError(
                f"unknown compression {self.compression!r}",
                code="invalid-compression",
                hint="use gzip, zstd or uncompressed",
            )
        if self.docker_types and self.compression == "zstd":
            raise UsageError(
                "zstd layers need OCI media types", code="invalid-compression", hint="leave out oci-mediatypes=false"
            )
        return self

    @property
    def profile(self) -> str:
        """The name under which a packed layer is remembered: what its bytes depend on."""
        return self.compression if self.level is None else f"{self.compression}-{self.level}"

    @property
    def dated(self) -> str:
        """``profile``, and the times written."""
        if self.times is None:
            return self.profile
        return f"{self.profile} {'at' if self.times.alike else 'until'} {self.times.latest}"


class Assembled(msgspec.Struct, frozen=True):
    """A finished image in the store: its manifest's descriptor (with platform) and its config's digest."""

    manifest: Descriptor
    config: Digest
    layers: int
    size: int = 0
    """Bytes of config and layers as they are packed: what a registry would be sent."""


def assemble(
    store: Store,
    snapshot: str,
    config: ImageConfig,
    packing: Packing,
    *,
    epoch: int | None = None,
    annotations: dict[str, str] | None = None,
    descriptor_annotations: dict[str, str] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Assembled:
    """Write the image whose file system is ``snapshot`` (EMPTY: none) and whose config is ``config``.

    ``annotations`` are the manifest's, ``descriptor_annotations`` those of what points to it.

    ``config.history`` has entries without a time for what this build made; they are dated here, as BuildKit does.
    """
    packing = packing.checked()
    chain = list(reversed(store.snapshots.chain(snapshot)))
    layers = _layers(store, chain, packing, check)
    times = [None if _from_image(store, item) else item.created for item in chain]
    history = date_history(config.history or (), times, epoch)
    created = config.created or next((entry.created for entry in reversed(history) if entry.created), None)
    finished = msgspec.structs.replace(
        config,
        created=created,
        history=tuple(history) or None,
        rootfs=RootFS(diff_ids=tuple(diff_id for diff_id, _ in layers) or None),
    )
    raw_config = encode_config(finished)
    kind = media_types.as_docker if packing.docker_types else media_types.as_oci
    manifest = Manifest(
        media_type=kind(media_types.OCI_MANIFEST),
        config=Descriptor(kind(media_types.OCI_CONFIG), store.blobs.write(raw_config), len(raw_config)),
        layers=tuple(
            Descriptor(kind(blob.media_type), blob.digest, blob.size, annotations=_told_times(store, item, packing))
            for item, (_, blob) in zip(chain, layers, strict=True)
        ),
        annotations=annotations or {},
    )
    raw = encode_manifest(manifest)
    descriptor = Descriptor(
        manifest.media_type,
        store.blobs.write(raw),
        len(raw),
        annotations=descriptor_annotations or {},
        platform=platform_fields(finished.platform),
    )
    size = manifest.config.size + sum(layer.size for layer in manifest.layers)
    return Assembled(descriptor, manifest.config.digest, len(layers), size)


def _told_times(store: Store, snapshot: Snapshot, packing: Packing) -> dict[str, str]:
    """What BuildKit writes beside a layer whose times it has changed."""
    if packing.times is None or packing.times.alike or packing.docker_types or _from_image(store, snapshot):
        return {}
    return {"buildkit/rewritten-timestamp": str(packing.times.latest)}


def packed_layers(store: Store, snapshot: str, packing: Packing) -> list[Descriptor]:
    """The layers of ``snapshot``, bottom up, as ``packing`` has them; none if one is not packed yet."""
    kind = media_types.as_docker if packing.docker_types else media_types.as_oci
    found = []
    for item in reversed(store.snapshots.chain(snapshot)):
        layer = _packed(store, item, packing)
        if layer is None:
            return []
        found.append(Descriptor(kind(layer[1].media_type), layer[1].digest, layer[1].size))
    return found


def platform_fields(platform: Platform) -> PlatformFields:
    """A platform as a descriptor carries it."""
    return PlatformFields(platform.architecture, platform.os, platform.os_version, (), platform.variant)


def date_history(entries: Sequence[History], times: Sequence[float | None], epoch: int | None) -> list[History]:
    """Give a time to each entry that has none: a layer's is when it was made (``times``, bottom up; None for layers of
    a base image), an empty entry takes a neighbour's. Layers that no entry speaks of get one (comment ``…exporter…``).
    """
    wanted = sum(1 for entry in entries if not entry.empty_layer)
    filled: list[History] = []
    layer = 0
    for entry in entries:
        if not entry.empty_layer:
            if layer >= len(times):
                entry = msgspec.structs.replace(entry, empty_layer=True)
            else:
                entry = _dated(entry, times[layer], epoch)
            layer += 1
        filled.append(entry)
    for made in times[wanted:]:
        filled.append(_dated(History(comment=_FILLER), made, epoch))
    # BuildKit: undated entries before the first new layer take that layer's time, later ones that of the layer before.
    created: str | None = None
    missing = False
    for entry in filled:
        if entry.created is not None:
            created = entry.created
            if missing:
                break
        else:
            missing = True
    missing = False
    for number, entry in enumerate(filled):
        if entry.created is not None:
            if missing:
                created = entry.created
        else:
            missing = True
            if created is not None and epoch is not None:
                created = min(created, format_time(epoch))
            filled[number] = msgspec.structs.replace(entry, created=created)
    return filled


def _dated(entry: History, made: float | None, epoch: int | None) -> History:
    if entry.created is not None or made is None:
        return entry
    return msgspec.structs.replace(entry, created=format_time(made if epoch is None else min(made, epoch)))


def _from_image(store: Store, snapshot: Snapshot) -> bool:
    return store.snapshots.blob(snapshot.layer, ORIGINAL) is not None


def _layers(
    store: Store, chain: list[Snapshot], packing: Packing, check: Callable[[], None]
) -> list[tuple[Digest, LayerBlob]]:
    """Diff id and blob of each layer, bottom up; those that are not packed yet are packed two at a time."""
    found = [_packed(store, snapshot, packing) for snapshot in chain]
    missing = [number for number, known in enumerate(found) if known is None]
    if missing:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2, thread_name_prefix="shiplap-pack") as pool:
            made = pool.map(lambda number: _layer(store, chain, number, packing, check), missing)
            for number, layer in zip(missing, made, strict=True):
                found[number] = layer
    return [layer for layer in found if layer is not None]


def _packed(store: Store, snapshot: Snapshot, packing: Packing) -> tuple[Digest, LayerBlob] | None:
    """Diff id and blob of a layer, if it is packed already: as its image had it, or as this packing wants it."""
    snapshots = store.snapshots
    if packing.times is not None and snapshots.blob(snapshot.layer, ORIGINAL) is None:
        return _rewritten(store, snapshot, packing)
    diff_id = _diff_id(store, snapshot)
    for profile in (packing.profile,) if packing.force else (ORIGINAL, packing.profile):
        known = snapshots.blob(snapshot.layer, profile)
        if known is not None and diff_id:
            return diff_id, known
    return None


def _layer(
    store: Store, chain: list[Snapshot], number: int, packing: Packing, check: Callable[[], None]
) -> tuple[Digest, LayerBlob]:
    """The packed layer of ``chain[number]``; packed now unless it was before. Returns diff id and blob."""
    check()
    snapshot = chain[number]
    with store.once(f"pack {snapshot.layer} {packing.dated}", check):
        # Another process may have packed it while we waited.
        return _packed(store, snapshot, packing) or _pack(store, chain, number, packing)


def _pack(store: Store, chain: list[Snapshot], number: int, packing: Packing) -> tuple[Digest, LayerBlob]:
    from shiplap.layers.compression import Decompressed
    from shiplap.layers.pack import pack_layer, write_tar

    snapshot = chain[number]
    original = store.snapshots.blob(snapshot.layer, ORIGINAL)
    with store.blobs.writer() as writer:
        if original is not None:
            with store.blobs.blamed(original.digest), store.blobs.verified(original.digest) as source:
                plain = Decompressed(source)
                packed = write_tar(
                    iter(lambda: plain.read(1 << 20), b""), writer.file, packing.compression, packing.level, end=b""
                )
                source.finish()
        else:
            # A layer that was made over nothing (COPY --link) stays what it was, wherever it lies now.
            beneath = (
                [] if snapshot.layer != snapshot.id else [store.snapshots.diff(s) for s in reversed(chain[:number])]
            )
            with Tree((store.snapshots.diff(snapshot),)) as layer, Tree(beneath) as base:
                packed = pack_layer(layer, base, writer.file, packing.compression, packing.level, packing.times)
        known = _diff_id(store, snapshot) if original is not None or packing.times is None else ""
        if known and known != packed.diff_id:
            raise store.snapshots.condemn(snapshot)
        writer.commit(packed.digest)
    blob = LayerBlob(packed.digest, packed.size, _MEDIA[packing.compression])
    if original is None and packing.times is not None:
        rewritten = Rewritten(packed.diff_id, blob)
        store.results.put_digest(_key(snapshot, packing), msgspec.json.encode(rewritten).decode())
    else:
        store.snapshots.record_blob(snapshot.layer, packing.profile, packed.diff_id, blob)
    return packed.diff_id, blob


class Rewritten(msgspec.Struct, frozen=True):
    """A layer as it is with other times: another diff id, another blob."""

    diff_id: Digest
    blob: LayerBlob


prepare(Rewritten)


def _key(snapshot: Snapshot, packing: Packing) -> str:
    return f"layer {snapshot.layer} {packing.dated}"


def _rewritten(store: Store, snapshot: Snapshot, packing: Packing) -> tuple[Digest, LayerBlob] | None:
    text = store.results.digest(_key(snapshot, packing))
    if text is None:
        return None
    try:
        known = msgspec.json.decode(text, type=Rewritten)
    except msgspec.MsgspecError:
        return None
    return (known.diff_id, known.blob) if store.blobs.has(known.blob.digest, known.blob.size) else None


def _diff_id(store: Store, snapshot: Snapshot) -> Digest:
    found = store.snapshots.get(snapshot.layer)
    return found.diff_id if found is not None else ""
