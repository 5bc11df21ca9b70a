"""Sparse files as GNU tar writes them: which parts of a file are in the archive; all else is zeros.

Four forms (GNU tar manual, "Storing Sparse Files"): the old header type ``S``, and PAX 0.0, 0.1 and 1.0. Written by nobody
here: BuildKit packs holes as zeros too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from shiplap.errors import ImageError
from shiplap.layers.header import BLOCK, decimal, number

MAP_LIMIT = 1 << 20
"""Bytes of a map: about 60,000 parts."""
_SIZE_LIMIT = 1 << 63
_PREFIX = "GNU.sparse."


class Parts(NamedTuple):
    """``spans``: offset and length of each part, ascending; ``size`` of the whole file in bytes."""

    spans: tuple[tuple[int, int], ...]
    size: int


def is_sparse(records: Mapping[str, bytes]) -> bool:
    """Whether PAX records speak of a sparse file."""
    return any(key.startswith(_PREFIX) for key in records)


def map_in_data(records: Mapping[str, bytes]) -> bool:
    """Whether the map stands before the data (PAX 1.0)."""
    return records.get(_PREFIX + "major") == b"1" and records.get(_PREFIX + "minor") == b"0"


def real_name(records: Mapping[str, bytes]) -> str:
    """The name of the file; that of the header is made up."""
    return records.get(_PREFIX + "name", b"").decode("utf-8", "surrogateescape")


def old_parts(block: bytes, more: Callable[[], bytes], stored: int) -> Parts:
    """The parts in a header of type ``S``; ``more`` gives the blocks that follow it."""
    numbers: list[int] = []
    table, entries, extended = block[386:482], 4, block[482]
    size = number(block[483:495])
    taken = 0
    while True:
        for start in range(0, 24 * entries, 12):
            field = table[start : start + 12]
            if not field.strip(b" \0"):
                break
            numbers.append(number(field))
        if not extended:
            return _checked(numbers, size, stored)
        taken += BLOCK
        if taken > MAP_LIMIT:
            raise _wrong("its map is too long")
        following = more()
        table, entries, extended = following[:504], 21, following[504]


def pax_parts(records: Mapping[str, bytes], stored: int) -> Parts:
    """The parts in PAX records of the forms 0.0 (whose records ``decode_records`` joins) and 0.1."""
    size = decimal("size", records.get(_PREFIX + "size", records.get(_PREFIX + "realsize", b"")))
    text = records.get(_PREFIX + "map", b"")
    return _checked([decimal("map", item) for item in text.split(b",")] if text else [], size, stored)


def data_parts(records: Mapping[str, bytes], read_block: Callable[[], bytes], stored: int) -> Parts:
    """The parts in a map that begins the data (PAX 1.0): a count, then as many pairs, a number a line, in whole blocks."""
    lines: list[bytes] = []
    rest = b""
    wanted = 1
    taken = 0
    while len(lines) < wanted:
        taken += BLOCK
        if taken > min(MAP_LIMIT, stored):
            raise _wrong("its map is too long")
        *found, rest = (rest + read_block()).split(b"\n")
        lines += found
        if lines:
            wanted = 1 + 2 * decimal("map", lines[0])
            if wanted > MAP_LIMIT:
                raise _wrong("its map is too long")
    size = decimal("size", records.get(_PREFIX + "realsize", b""))
    return _checked([decimal("map", line) for line in lines[1:wanted]], size, stored - taken)


def _checked(numbers: Sequence[int], size: int, stored: int) -> Parts:
    if len(numbers) % 2 or not 0 <= size < _SIZE_LIMIT:
        raise _wrong("its map is not made of pairs, or its size is out of range")
    spans = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    end = held = 0
    for offset, length in spans:
        if offset < end or length < 0 or offset + length > size:
            raise _wrong("its map does not fit its size")
        end = offset + length
        held += length
    if held != stored:
        raise _wrong("its map does not fit its data")
    return Parts(spans, size)


def _wrong(why: str) -> ImageError:
    return ImageError(f"tar holds a sparse file that cannot be read: {why}", code="invalid-tar")
