"""Small files with a checksum: of what they hold and of what they are called, so that a swapped one is noticed too."""

from __future__ import annotations

import zlib


def sealed(name: str, data: bytes) -> bytes:
    """What to write to the file called ``name`` so that it holds ``data``."""
    return _seal(name, data) + data


def unsealed(name: str, raw: bytes) -> bytes | None:
    """What the file called ``name`` holds, ``raw`` being all its bytes; None if they have changed."""
    return raw[4:] if raw[:4] == _seal(name, raw[4:]) else None


def _seal(name: str, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(name.encode())).to_bytes(4, "big")
