"""One platform's manifest out of an image at a place."""

from __future__ import annotations

from shiplap.images.place import Source, read_small
from shiplap.oci import choose
from shiplap.oci.config import CONFIG_LIMIT
from shiplap.oci.manifest import Descriptor, Manifest
from shiplap.oci.platform import Platform


def choose_manifest(
    source: Source, platform: Platform, descriptor: Descriptor, raw: bytes
) -> tuple[Descriptor, bytes, Manifest]:
    """``oci.choose.choose_manifest`` for a Source. Raises ImageError (no-such-platform, index-too-deep)."""
    return choose.choose_manifest(_Origin(source), platform, descriptor, raw)


class _Origin:
    def __init__(self, source: Source) -> None:
        self.title = source.title
        self.holds = source.holds
        self.manifest = source.manifest
        self._source = source

    def config(self, descriptor: Descriptor) -> bytes:
        return read_small(self._source, descriptor, CONFIG_LIMIT)
