"""Images between the store and registries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO

from shiplap.events.facts import Sink
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Index, Manifest, parse_manifest
from shiplap.oci.platform import native_platform, parse_platform
from shiplap.oci.reference import Reference, parse_reference
from shiplap.ops.workbench import telling
from shiplap.registry.client import Registry
from shiplap.registry.cutting import cut_when
from shiplap.registry.pull import fetch_image
from shiplap.registry.push import OutgoingBlob, OutgoingManifest, push_image, push_index, push_referrer
from shiplap.settings import Settings
from shiplap.store.images import Image
from shiplap.store.store import Store


def push_names(
    store: Store,
    settings: Settings,
    sink: Sink,
    names: Sequence[str],
    digest: Digest,
    cancel: threading.Event | None = None,
    referrers: Sequence[Digest] = (),
) -> None:
    """Push the manifest or index ``digest`` under each of ``names``. ``cancel``, once set, ends it with Interrupted.

    ``referrers``: manifests that refer to what is pushed, and go after it.
    """
    raw = store.blobs.read(digest)
    manifest = parse_manifest(raw, digest=digest)
    with (
        Registry(settings.network(), sink) as registry,
        cut_when(cancel, registry.interrupt) if cancel is not None else nullcontext(),
    ):
        for name in names:
            reference = parse_reference(name)
            step = f"push {name}"
            with telling(sink, step, f"pushing {reference.familiar()}"):
                if isinstance(manifest, Index):
                    held = _held(store, manifest, registry, reference)
                    children = [_outgoing(store, entry.digest) for entry in held]
                    push_index(registry, reference, raw, manifest.media_type, children, step=step)
                else:
                    push_image(registry, reference, raw, manifest.media_type, _blobs(store, manifest), step=step)
                for referrer in referrers:
                    outgoing = _outgoing(store, referrer)
                    push_referrer(registry, reference, outgoing.raw, outgoing.media_type, outgoing.blobs, step=step)


def push(text: str, settings: Settings, sink: Sink, platform: str = "") -> None:
    """Push the image that the store has under the name ``text``; of an index, with ``platform``, that one's manifest alone.

    Raises ImageError (incomplete-image) if neither the store nor the repository has all platforms of the index.
    """
    with Store(Path(settings.root)) as store, store.in_use():
        digest = store.images.find(text).digest
        if platform:
            from shiplap.images.choose import choose_manifest
            from shiplap.images.stored import StoreSource

            source = StoreSource(store, text)
            digest = choose_manifest(source, parse_platform(platform), *source.root())[0].digest
        push_names(store, settings, sink, [str(parse_reference(text))], digest)


def pull(text: str, platform: str, settings: Settings, sink: Sink) -> Image:
    """Pull ``text`` for ``platform`` (empty: this machine's) into the store."""
    reference = parse_reference(text)
    wanted = (
        parse_platform(platform or settings.default_platform)
        if platform or settings.default_platform
        else native_platform()
    )
    with Store(Path(settings.root)) as store, store.in_use(), Registry(settings.network(), sink) as registry:

        def save(descriptor: Descriptor, chunks: Iterator[bytes]) -> None:
            store.blobs.keep(descriptor.digest, descriptor.size, chunks)

        step = f"pull {reference}"
        with telling(sink, step, f"pulling {reference.familiar()}"):
            fetched = fetch_image(
                registry, reference, wanted, store.blobs.sound, save, known=store.blobs.known, step=step
            )
            for raw in (fetched.manifest_raw, fetched.config_raw, fetched.index_raw):
                if raw is not None:
                    store.blobs.write(raw)
            top = fetched.index_descriptor or fetched.manifest_descriptor
            store.images.put(str(reference), top.digest, top.media_type, top.size)
        image = store.images.get(str(reference))
        assert image is not None
        return image


def _held(store: Store, index: Index, registry: Registry, reference: Reference) -> list[Descriptor]:
    """The manifests of ``index`` that the store has. The others have to be in the repository: raises ImageError."""
    held = [entry for entry in index.manifests if store.blobs.has(entry.digest)]
    there = [entry for entry in index.manifests if entry not in held and registry.has_manifest(reference, entry)]
    missing = [entry for entry in index.manifests if entry not in held and entry not in there]
    if missing:
        from shiplap.images.surveying import incomplete

        raise incomplete(reference.familiar(), missing, held)
    return held


def _outgoing(store: Store, digest: Digest) -> OutgoingManifest:
    raw = store.blobs.read(digest)
    manifest = parse_manifest(raw, digest=digest)
    blobs = _blobs(store, manifest) if isinstance(manifest, Manifest) else []
    return OutgoingManifest(raw, manifest.media_type, tuple(blobs))


def _blobs(store: Store, manifest: Manifest) -> list[OutgoingBlob]:
    return [
        OutgoingBlob(descriptor, _opener(store, descriptor.digest), check=partial(store.blobs.check, descriptor.digest))
        for descriptor in (manifest.config, *manifest.layers)
    ]


def _opener(store: Store, digest: Digest) -> Callable[[int], BinaryIO]:
    def open_at(offset: int) -> BinaryIO:
        file = store.blobs.open(digest)
        file.seek(offset)
        return file

    return open_at
