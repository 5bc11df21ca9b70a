"""Addresses as they may be told: without what lets one in.

Provenance tells where to fetch from, so what is secret is crossed out there (``redacted``); a message tells which server
was asked, and leaves everything else out (``bare``).
"""

from __future__ import annotations

import re
from typing import NamedTuple

BARE_LIMIT = 300
"""Most characters of an address in a message."""
_CROSSED = "xxxxx"
_NO_LOGIN = ("docker-image", "oci-layout")
"""Where ``@`` stands before a digest."""
_KEY = re.compile(
    r"([?&](?:[^=&#]*(?:token|secret|signature|credential|passw(?:or)?d|passphrase|api_?-?key|access_?-?key|auth)[^=&#]*"
    r"|sig|pat|jwt)=)[^&#]*",
    re.IGNORECASE,
)
"""Parameters of signed addresses and of tokens: S3's and Google's ``X-…-Signature``, Azure's ``sig``, ``private_token``."""


class Address(NamedTuple):
    """A URL in parts (RFC 3986, section 3). ``user`` is the login with its colon, as it is written; ``rest`` begins with
    ``/``, ``?`` or ``#``, or is empty.
    """

    scheme: str
    user: str
    host: str
    rest: str

    @property
    def plain(self) -> str:
        """Without the login."""
        return f"{self.scheme}://{self.host}{self.rest}"


def parse_address(text: str) -> Address | None:
    """``text`` in parts; None if it is no URL (a path, or ``git@host:path``)."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return None
    end = next((found.start() for found in re.finditer(r"[/?#]", rest)), len(rest))
    user, _, host = rest[:end].rpartition("@")
    return Address(scheme, user, host, rest[end:])


def redacted(text: str) -> str:
    """``text`` with name, password and the values of telling parameters crossed out; what is no URL as it is.

    Names and passwords as BuildKit does it (util/urlutil/redact.go): ``https://xxxxx:xxxxx@host``. It keeps parameters;
    whoever reads an attestation could then fetch what only the builder might.
    """
    address = parse_address(text)
    if address is None or address.scheme in _NO_LOGIN:
        return text
    name, colon, _ = address.user.partition(":")
    user = (_CROSSED if name else "") + (f":{_CROSSED}" if colon else "")
    return f"{address.scheme}://{user}{'@' if user else ''}{address.host}{_KEY.sub(_cross_out, address.rest)}"


def bare(text: str) -> str:
    """``text`` without name, password, query and fragment; what is no URL as it is. At most ``BARE_LIMIT`` characters,
    none of which moves a cursor.
    """
    address = parse_address(text)
    if address is None:
        return text
    text = f"{address.scheme}://{address.host}{re.split('[?#]', address.rest)[0] or '/'}"
    return re.sub(r"[\x00-\x20\x7f-\x9f]", lambda found: f"%{ord(found[0]):02X}", text[:BARE_LIMIT])


def _cross_out(found: re.Match[str]) -> str:
    return found[1] + _CROSSED
