"""A whole image into a registry: blobs in parallel, then the manifest, and an index after all of its manifests."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from shiplap.errors import RegistryError
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor
from shiplap.oci.reference import Reference
from shiplap.registry.client import Registry
from shiplap.registry.side_by_side import side_by_side
from shiplap.registry.upload import Check, Opener


class OutgoingBlob(msgspec.Struct, frozen=True):
    """A blob to push: ``opener(offset)`` opens its bytes; ``mount_from`` is where the registry may have it already.

    ``check`` raises if it is damaged at home; it is called if the registry finds it damaged.
    """

    descriptor: Descriptor
    opener: Opener
    mount_from: Reference | None = None
    check: Check | None = None


class OutgoingManifest(msgspec.Struct, frozen=True):
    """A manifest to push, after its blobs."""

    raw: bytes
    media_type: str
    blobs: tuple[OutgoingBlob, ...] = ()


def push_image(
    registry: Registry,
    ref: Reference,
    manifest_raw: bytes,
    media_type: str,
    blobs: Sequence[OutgoingBlob],
    *,
    parallel: int = 4,
    step: str = "",
) -> Descriptor:
    """Push ``blobs`` (config and layers), then the manifest under the name of ``ref``. Returns its descriptor.

    ``step`` names the transfer in Progress facts.
    """
    _push_blobs(registry, ref, blobs, parallel, step)
    return registry.push_manifest(ref, manifest_raw, media_type)


def push_index(
    registry: Registry,
    ref: Reference,
    index_raw: bytes,
    media_type: str,
    manifests: Sequence[OutgoingManifest],
    *,
    parallel: int = 4,
    step: str = "",
) -> Descriptor:
    """Push the manifests of an index with all their blobs, by digest, then the index under the name of ``ref``."""
    _push_blobs(registry, ref, [blob for manifest in manifests for blob in manifest.blobs], parallel, step)
    for manifest in manifests:
        by_digest = ref._replace(tag="", digest=digest_of(manifest.raw))
        registry.push_manifest(by_digest, manifest.raw, manifest.media_type)
    return registry.push_manifest(ref, index_raw, media_type)


def push_referrer(
    registry: Registry,
    ref: Reference,
    manifest_raw: bytes,
    media_type: str,
    blobs: Sequence[OutgoingBlob],
    *,
    step: str = "",
) -> Descriptor:
    """Push a manifest that has a ``subject`` (an attestation, a signature) into the repository of ``ref``, by its digest.

    It is among ``registry.referrers(ref, subject)`` afterwards. The subject need not be there yet.
    """
    _push_blobs(registry, ref, blobs, 4, step)
    return registry.push_manifest(ref._replace(tag="", digest=digest_of(manifest_raw)), manifest_raw, media_type)


def _push_blobs(registry: Registry, ref: Reference, blobs: Sequence[OutgoingBlob], parallel: int, step: str) -> None:
    unique = {blob.descriptor.digest: blob for blob in blobs}
    if not unique:
        return
    stop = threading.Event()

    def push(blob: OutgoingBlob) -> None:
        if not stop.is_set():
            registry.push_blob(ref, blob.descriptor, blob.opener, blob.mount_from, step=step, check=blob.check)

    # The largest first: the last to finish should not be the last to start.
    queue = sorted(unique.values(), key=lambda blob: -blob.descriptor.size)
    failures = side_by_side(
        push,
        queue,
        parallel=min(parallel, len(queue)),
        name="shiplap-push",
        stop=stop,
        interrupt=registry.interrupt,
    )
    for failure in failures:
        raise failure
    if stop.is_set():
        raise RegistryError("the push was stopped", code="stopped")
