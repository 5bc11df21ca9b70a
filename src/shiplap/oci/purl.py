"""Package URLs (purl-spec): names that attestations and lists of packages share."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

_SAFE = ".-_~+:"


def package_url(kind: str, name: str, version: str, qualifiers: Mapping[str, str] | None = None) -> str:
    """``pkg:deb/debian/bash@5.2?arch=amd64``; ``name`` may have its namespace before it, with slashes."""
    text = f"pkg:{kind}/" + "/".join(quote(part, safe=_SAFE) for part in name.split("/"))
    if version:
        text += "@" + quote(version, safe=_SAFE)
    told = "&".join(f"{key}={quote(value, safe=_SAFE)}" for key, value in sorted((qualifiers or {}).items()) if value)
    return f"{text}?{told}" if told else text
