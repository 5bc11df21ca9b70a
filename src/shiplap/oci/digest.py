"""Digests: ``algorithm:hex`` names of bytes (OCI image specification 1.1, descriptor.md, "Digests")."""

from __future__ import annotations

import hashlib
import re

from shiplap.errors import ImageError

Digest = str
"""A checked digest such as ``sha256:…``; made by :func:`parse_digest` or :func:`digest_of`."""

_FORM = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")

EMPTY_LAYER_DIFF_ID: Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Diff id of a layer that changes nothing: the 1024 zero bytes that end a tar archive."""


def parse_digest(text: str) -> Digest:
    """Return ``text`` if it is a well-formed digest, else raise ImageError. Do this before any use of it in a path."""
    if not isinstance(text, str) or not _FORM.fullmatch(text):
        raise ImageError(f"invalid digest: {str(text)[:100]!r}", code="invalid-digest")
    return text


def is_digest(text: str) -> bool:
    return _FORM.fullmatch(text) is not None


def digest_of(data: bytes) -> Digest:
    """The sha256 digest of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def split_digest(digest: Digest) -> tuple[str, str]:
    """``sha256:ab…`` -> ``("sha256", "ab…")``; checks the form."""
    algorithm, _, encoded = parse_digest(digest).partition(":")
    return algorithm, encoded
