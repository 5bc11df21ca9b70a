"""A package that was found."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec


class Package(msgspec.Struct, frozen=True, order=True):
    """``url``: a package URL (purl-spec); ``path``: the file that says it is there; ``license`` as declared, may be empty."""

    name: str
    version: str
    url: str
    path: str
    license: str = ""


def package_url(kind: str, name: str, version: str, qualifiers: Mapping[str, str] | None = None) -> str:
    """``pkg:deb/debian/bash@5.2?arch=amd64``; ``name`` may have its namespace before it, with slashes."""
    text = f"pkg:{kind}/" + "/".join(quote(part, safe=".-_~+") for part in name.split("/"))
    if version:
        text += "@" + quote(version, safe=".-_~+:")
    told = "&".join(
        f"{key}={quote(value, safe='.-_~+:')}" for key, value in sorted((qualifiers or {}).items()) if value
    )
    return f"{text}?{told}" if told else text
