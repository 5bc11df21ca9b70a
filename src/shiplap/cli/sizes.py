"""Sizes on the command line."""

from __future__ import annotations

import re

from shiplap.errors import UsageError


def parse_size(text: str, flag: str) -> int:
    """``64m``, ``1.5g``, ``10GB`` or a number of bytes, in powers of 1024 as docker reads them; 0 for an empty text."""
    if not text:
        return 0
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([bkmgtp]?)(?:i?b)?", text.lower())
    if match is None:
        raise UsageError(
            f"{flag}: cannot read the size {text!r}", code="bad-command-line", hint="write 64m, 1g or a number of bytes"
        )
    return int(float(match.group(1)) * (1 << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}[match[2]]))
