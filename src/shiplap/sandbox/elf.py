"""The smallest program there is: exits with a status. For trying a sandbox out where no image is at hand."""

from __future__ import annotations

import struct

_MACHINES = {"x86_64": 62, "aarch64": 183}
"""Numbers of elf.h."""
_BASE = 0x400000


def exiting(machine: str, status: int) -> bytes:
    """A static executable for ``machine`` (uname -m) that exits with ``status`` (0..255). KeyError if unknown."""
    number = _MACHINES[machine]
    text = _text(machine, status)
    start = 64 + 56
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, number, 1, _BASE + start, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    size = start + len(text)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + text


def _text(machine: str, status: int) -> bytes:
    if machine == "x86_64":  # mov edi, status; mov eax, 60 (exit); syscall
        return b"\xbf" + struct.pack("<I", status) + b"\xb8\x3c\0\0\0\x0f\x05"
    # movz x0, #status; movz x8, #93 (exit); svc #0
    return struct.pack("<III", 0xD2800000 | status << 5, 0xD2800000 | 93 << 5 | 8, 0xD4000001)
