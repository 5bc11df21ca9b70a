"""One platform's manifest out of whatever an image is: a manifest, an index, an index within an index."""

from __future__ import annotations

from shiplap.errors import ImageError, Place
from shiplap.images.place import Source, read_small
from shiplap.oci.config import CONFIG_LIMIT, parse_config
from shiplap.oci.manifest import Descriptor, Index, Manifest, offered_platforms, parse_manifest, select_manifest
from shiplap.oci.platform import Platform

DEEPEST_INDEX = 4
"""How many indexes may stand one within another."""
MOST_MANIFESTS = 10_000
"""How many manifests an image may be made of, all indexes together."""
MOST_CONFIGS = 16
"""How many manifests of unstated platform are looked into."""


def choose_manifest(
    source: Source, platform: Platform, descriptor: Descriptor, raw: bytes
) -> tuple[Descriptor, bytes, Manifest]:
    """The manifest for ``platform`` below ``descriptor``, whose bytes are ``raw``. A manifest is taken as it is.

    Raises ImageError (no-such-platform, index-too-deep).
    """
    for _ in range(DEEPEST_INDEX + 1):
        parsed = parse_manifest(raw, descriptor.media_type, descriptor.digest)
        if isinstance(parsed, Manifest):
            return descriptor, raw, parsed
        chosen = select_manifest(parsed, platform) or _by_config(source, platform, parsed)
        if chosen is None:
            offered = ", ".join(dict.fromkeys(offered_platforms(parsed))) or "none that is named"
            raise ImageError(
                f"{source.title} has no image for {platform}; it offers: {offered[:1000]}",
                code="no-such-platform",
                where=Place(blob=descriptor.digest),
                hint="choose one of those with --platform",
            )
        descriptor, raw = chosen, source.manifest(chosen)
    raise ImageError(f"{source.title} has indexes more than {DEEPEST_INDEX} deep", code="index-too-deep")


def _by_config(source: Source, platform: Platform, index: Index) -> Descriptor | None:
    # Entries may leave their platform out; then the config says it.
    silent = [entry for entry in index.manifests if entry.platform is None and source.holds(entry)]
    for entry in silent[:MOST_CONFIGS]:
        parsed = parse_manifest(source.manifest(entry), entry.media_type, entry.digest)
        if isinstance(parsed, Index):
            if select_manifest(parsed, platform) is not None:
                return entry
        elif not parsed.artifact_type:
            try:
                config = parse_config(read_small(source, parsed.config, CONFIG_LIMIT))
            except ImageError:
                continue
            if config.platform.satisfies(platform):
                return entry
    return None
