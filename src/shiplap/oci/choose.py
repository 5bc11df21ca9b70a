"""One platform's manifest out of whatever an image is: a manifest, an index, an index within an index."""

from __future__ import annotations

from typing import Protocol

from shiplap.errors import ImageError, Place
from shiplap.oci.config import CONFIG_LIMIT, parse_config
from shiplap.oci.manifest import Descriptor, Index, Manifest, offered_platforms, parse_manifest, select_manifest
from shiplap.oci.platform import Platform

DEEPEST_INDEX = 4
"""How many indexes may stand one within another."""
MOST_CONFIGS = 16
"""How many manifests of unstated platform are looked into."""


class Origin(Protocol):
    """Where the image is. Bytes handed out have the digest they were asked for by."""

    @property
    def title(self) -> str:
        """How to call the image in messages."""

    def holds(self, descriptor: Descriptor) -> bool:
        """Whether this manifest of an index is there to be looked into."""

    def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index below the root."""

    def config(self, descriptor: Descriptor) -> bytes:
        """The bytes of a config, of at most CONFIG_LIMIT."""


def choose_manifest(
    origin: Origin, platform: Platform, descriptor: Descriptor, raw: bytes
) -> tuple[Descriptor, bytes, Manifest]:
    """The manifest for ``platform`` below ``descriptor``, whose bytes are ``raw``. A manifest is taken as it is.

    Raises ImageError (no-such-platform, index-too-deep, those of manifests that cannot be read).
    """
    for _ in range(DEEPEST_INDEX + 1):
        parsed = parse_manifest(raw, descriptor.media_type, descriptor.digest)
        if isinstance(parsed, Manifest):
            return descriptor, raw, parsed
        chosen = select_manifest(parsed, platform) or _by_config(origin, platform, parsed)
        if chosen is None:
            offered = ", ".join(dict.fromkeys(offered_platforms(parsed))) or "none that is named"
            raise ImageError(
                f"{origin.title} has no image for {platform}; it offers: {offered[:1000]}",
                code="no-such-platform",
                where=Place(blob=descriptor.digest),
                hint="choose one of those with --platform, or another tag",
            )
        descriptor, raw = chosen, origin.manifest(chosen)
    raise ImageError(f"{origin.title} has indexes more than {DEEPEST_INDEX} deep", code="index-too-deep")


def _by_config(origin: Origin, platform: Platform, index: Index) -> Descriptor | None:
    # Entries may leave their platform out (some tools write such indexes of one); then the config says it.
    silent = [entry for entry in index.manifests if entry.platform is None and origin.holds(entry)]
    for entry in silent[:MOST_CONFIGS]:
        parsed = parse_manifest(origin.manifest(entry), entry.media_type, entry.digest)
        if isinstance(parsed, Index):
            if select_manifest(parsed, platform) is not None:
                return entry
        elif not parsed.artifact_type and parsed.config.size <= CONFIG_LIMIT:
            try:
                config = parse_config(origin.config(parsed.config))
            except ImageError:
                continue
            if config.platform.satisfies(platform):
                return entry
    return None
