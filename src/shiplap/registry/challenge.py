"""What a registry asks for in ``WWW-Authenticate`` (RFC 9110, section 11.6.1; distribution specification, token.md)."""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER_LIMIT = 8 << 10
"""Longest header that is read, in characters."""


class Challenge(NamedTuple):
    """One way to prove who we are: the scheme in lower case and its parameters."""

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str:
        return dict(self.parameters).get(name, "")


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)(?!\s*=)\s*")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Read a header that may hold several challenges; what cannot be read is left out."""
    found: list[Challenge] = []
    scheme, parameters = "", dict[str, str]()
    rest = header[:HEADER_LIMIT]
    while rest:
        parameter = _PARAMETER.match(rest)
        if parameter and scheme:
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(name.lower(), value)
            rest = rest[parameter.end() :].lstrip(", \t")
            continue
        start = _SCHEME.match(rest)
        if start:
            if scheme:
                found.append(Challenge(scheme, tuple(parameters.items())))
            scheme, parameters = start.group(1).lower(), {}
            rest = rest[start.end() :].lstrip(", \t")
            continue
        # Junk: go on behind the next comma.
        rest = rest.partition(",")[2]
    if scheme:
        found.append(Challenge(scheme, tuple(parameters.items())))
    return tuple(found)
