"""What an image is and how it was made, wherever it is."""

from __future__ import annotations

import json
from typing import Any

from shiplap.images.choose import choose_manifest
from shiplap.images.location import parse_location
from shiplap.images.place import Source, read_small
from shiplap.images.session import Session
from shiplap.oci.config import CONFIG_LIMIT, parse_config
from shiplap.oci.manifest import Index, parse_manifest
from shiplap.oci.platform import Platform, native_platform, parse_platform
from shiplap.settings import Settings


def wanted_platform(text: str, settings: Settings) -> Platform:
    """The platform ``text``, else DOCKER_DEFAULT_PLATFORM, else this machine's. Raises UsageError."""
    text = text or settings.default_platform
    return parse_platform(text) if text else native_platform()


def inspect(text: str, settings: Settings, platform: str = "") -> dict[str, Any]:
    """Name, descriptor, manifest and config of the image at ``text`` (a location), as plain data.

    Of an index the manifest for ``platform``; of one in the store, without ``platform``, the first that is here.
    """
    with Session(settings) as session:
        source = session.source(parse_location(text))
        root, raw = source.root()
        descriptor, manifest_raw, manifest = choose_manifest(source, _platform(source, platform, settings), root, raw)
        config_raw = read_small(source, manifest.config, CONFIG_LIMIT)
        return {
            "Name": source.names[0] if source.names else "",
            "Digest": root.digest,
            "MediaType": root.media_type,
            "ManifestDigest": descriptor.digest,
            "Id": manifest.config.digest,
            "Platform": str(parse_config(config_raw).platform),
            "Manifest": json.loads(manifest_raw),
            "Image": json.loads(config_raw),
        }


def history(text: str, settings: Settings, platform: str = "") -> list[dict[str, Any]]:
    """How the image at ``text`` was made, newest first: created, created_by, comment, and the size of each layer (bytes)."""
    with Session(settings) as session:
        source = session.source(parse_location(text))
        _, _, manifest = choose_manifest(source, _platform(source, platform, settings), *source.root())
        config = parse_config(read_small(source, manifest.config, CONFIG_LIMIT))
        layers = iter(manifest.layers)
        rows = []
        for entry in config.history or ():
            layer = None if entry.empty_layer else next(layers, None)
            rows.append(
                {
                    "created": entry.created or "",
                    "created_by": entry.created_by,
                    "comment": entry.comment,
                    "size": layer.size if layer is not None else 0,
                    "digest": layer.digest if layer is not None else "",
                }
            )
        return rows[::-1]


def _platform(source: Source, text: str, settings: Settings) -> Platform:
    """What was asked for; else what is held here, should an archive or the store hold another machine's alone."""
    wanted = wanted_platform(text, settings)
    if text:
        return wanted
    root, raw = source.root()
    parsed = parse_manifest(raw, root.media_type, root.digest)
    if not isinstance(parsed, Index):
        return wanted
    held = [entry.platform.parsed() for entry in parsed.manifests if entry.platform is not None and source.holds(entry)]
    real = [platform for platform in held if platform.os != "unknown"]
    return wanted if not real or any(platform.satisfies(wanted) for platform in real) else real[0]
