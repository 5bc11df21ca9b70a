"""A package that was found."""

from __future__ import annotations

import msgspec


class Package(msgspec.Struct, frozen=True, order=True):
    """``url``: a package URL (purl-spec); ``path``: the file that says it is there; ``license`` as declared, may be empty."""

    name: str
    version: str
    url: str
    path: str
    license: str = ""
