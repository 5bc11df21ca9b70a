"""What others wrote, made safe to show: no byte of a step, a Dockerfile or a registry may drive the user's terminal."""

from __future__ import annotations

import re

_SEQUENCE = (
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC: titles, clipboard, graphics
    r"|\x1b[ -/]*[0-~]"
)
# C0 but tab and line feed, DEL, C1; then what reorders or hides text (Unicode 15, bidirectional controls; CVE-2021-42574).
_CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"


def printable(text: str) -> str:
    """``text`` without escape sequences, control characters and what reorders text; tabs and line feeds stay."""
    if text.isascii() and text.isprintable():
        return text
    # Compiled (and kept, by re) when first needed: start-up has no use for it.
    return re.sub(_CONTROL, "", re.sub(_SEQUENCE, "", text))


def last_words(line: bytes) -> str:
    """A line of output as it was left on a terminal (what carriage returns overwrote is gone), made printable."""
    return printable(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))
