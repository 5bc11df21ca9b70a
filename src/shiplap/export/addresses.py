"""Addresses as they may be told: what lets one in crossed out."""

from __future__ import annotations

import re

_CROSSED = "xxxxx"
_NO_LOGIN = ("docker-image", "oci-layout")
"""Where ``@`` stands before a digest."""
_KEY = re.compile(
    r"([?&](?:[^=&#]*(?:token|secret|signature|credential|passw(?:or)?d|passphrase|api_?-?key|access_?-?key|auth)[^=&#]*"
    r"|sig|pat|jwt)=)[^&#]*",
    re.IGNORECASE,
)
"""Parameters of signed addresses and of tokens: S3's and Google's ``X-…-Signature``, Azure's ``sig``, ``private_token``."""


def redacted(address: str) -> str:
    """``address`` with name, password and the values of telling parameters crossed out; other text as it is.

    Names and passwords as BuildKit does it (util/urlutil/redact.go): ``https://xxxxx:xxxxx@host``. It keeps parameters;
    whoever reads an attestation could then fetch what only the builder might.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme in _NO_LOGIN:
        return address
    end = re.search(r"[/?#]", rest)
    place, path = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    user, at, host = place.rpartition("@")
    if at and user:
        name, colon, _ = user.partition(":")
        user = (_CROSSED if name else "") + (f":{_CROSSED}" if colon else "")
    return f"{scheme}://{user}{at}{host}{_KEY.sub(_cross_out, path)}"


def _cross_out(found: re.Match[str]) -> str:
    return found[1] + _CROSSED
