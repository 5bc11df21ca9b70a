"""How what refers to a manifest is described and listed (distribution specification 1.1, "Referrers")."""

from __future__ import annotations

import re

from shiplap.oci.digest import Digest, digest_of, parse_digest
from shiplap.oci.manifest import Descriptor, Manifest, parse_manifest


def referrers_tag(digest: Digest) -> str:
    """The tag of the list where there is no referrers API: algorithm and digest, each cut to the specified length."""
    algorithm, _, encoded = parse_digest(digest).partition(":")
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{algorithm[:32]}-{encoded[:64]}")


def referrer_descriptor(raw: bytes, media_type: str) -> tuple[Descriptor, Digest]:
    """The entry that a manifest or index gets in the list of its subject, and that subject; "" if it has none."""
    parsed = parse_manifest(raw, media_type)
    kind = parsed.artifact_type
    if not kind and isinstance(parsed, Manifest):
        kind = parsed.config.media_type
    entry = Descriptor(
        media_type=media_type,
        digest=digest_of(raw),
        size=len(raw),
        annotations=parsed.annotations,
        artifact_type=kind,
    )
    return entry, parse_digest(parsed.subject.digest) if parsed.subject is not None else ""
