"""What the builder, a step's keeper and its first process say to each other."""

from __future__ import annotations

import marshal
import os

TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from typing import Any


def write_message(fd: int, value: Any) -> None:
    """``value`` as marshal, after its length in 4 bytes: both ends are one interpreter, and marshal is built in."""
    data = marshal.dumps(value)
    rest = memoryview(len(data).to_bytes(4, "little") + data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_message(fd: int) -> Any:
    """The next message. Raises EOFError when the other end is gone."""
    return marshal.loads(_exactly(fd, int.from_bytes(_exactly(fd, 4), "little")))


def _exactly(fd: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
