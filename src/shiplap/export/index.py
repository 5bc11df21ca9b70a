"""Images for several platforms under one index (image-spec 1.1, image-index.md), as BuildKit lays it out."""

from __future__ import annotations

from collections.abc import Sequence

from shiplap.oci import media_types
from shiplap.oci.manifest import Descriptor, Index, encode_manifest
from shiplap.store.store import Store


def write_index(
    store: Store,
    entries: Sequence[Descriptor],
    *,
    docker_types: bool = False,
    annotations: dict[str, str] | None = None,
    descriptor_annotations: dict[str, str] | None = None,
) -> Descriptor:
    """Write the index of ``entries``, in this order and as they are, into the store's blobs. Returns its descriptor."""
    kind = media_types.as_docker if docker_types else media_types.as_oci
    index = Index(media_type=kind(media_types.OCI_INDEX), manifests=tuple(entries), annotations=annotations or {})
    raw = encode_manifest(index)
    return Descriptor(index.media_type, store.blobs.write(raw), len(raw), annotations=descriptor_annotations or {})
