"""Where two files begin to differ: the first byte with its surroundings, or of texts the lines."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import msgspec

from shiplap.images.contents import FileFact, file_pieces
from shiplap.images.place import Source
from shiplap.oci.manifest import Descriptor

COMPARED = 64 << 20
"""Bytes of one file that are looked at; a difference further in is known by the digest alone."""
TEXT = 256 << 10
"""Largest file, in bytes, whose lines are compared."""
LINES = 200
"""Most lines of a text's difference."""
ROW = 16


class ByteDifference(msgspec.Struct, frozen=True):
    """``offset``: of the first differing byte, -1 if it lies beyond what is looked at. ``start``: where ``a`` and ``b``,
    some bytes of each, begin. ``lines``: a unified difference, of texts; ``cut``: there would be more of them."""

    offset: int
    start: int = 0
    a: bytes = b""
    b: bytes = b""
    lines: tuple[str, ...] = ()
    cut: bool = False


class Side(msgspec.Struct, frozen=True):
    """Where to read an image's files."""

    source: Source
    layers: Sequence[Descriptor]


def compare_bytes(
    a: Side, b: Side, files: Mapping[str, tuple[FileFact, FileFact]], spool: str, check: Callable[[], None]
) -> dict[str, ByteDifference]:
    """How each of ``files`` (regular ones, by path) differs. Those of ``a`` are kept in a file without a name in ``spool``."""
    found: dict[str, ByteDifference] = {}
    with tempfile.TemporaryFile(dir=spool) as kept:
        places: dict[str, tuple[int, int]] = {}
        for path, pieces in _read(a, {path: pair[0] for path, pair in files.items()}, check):
            start = kept.seek(0, 2)
            for piece in pieces:
                kept.write(piece[: max(0, COMPARED - (kept.tell() - start))])
            places[path] = (start, kept.tell() - start)
        for path, pieces in _read(b, {path: pair[1] for path, pair in files.items()}, check):
            fact_a, fact_b = files[path]
            start, length = places[path]
            if max(fact_a.size, fact_b.size) <= TEXT:
                kept.seek(start)
                found[path] = _small(kept.read(length), b"".join(pieces))
            else:
                found[path] = _large(_Kept(kept, start, length), pieces)
    return found


class _Kept(NamedTuple):
    """The beginning of a file, in the file where all are kept."""

    file: IO[bytes]
    start: int
    length: int

    def read(self, offset: int, size: int) -> bytes:
        self.file.seek(self.start + offset)
        return self.file.read(max(0, min(size, self.length - offset)))


def _read(
    side: Side, facts: Mapping[str, FileFact], check: Callable[[], None]
) -> Iterator[tuple[str, Iterator[bytes]]]:
    for number, layer in enumerate(side.layers):
        called: dict[str, list[str]] = {}
        for path, fact in facts.items():
            if fact.layer == number:
                called.setdefault(fact.name or path, []).append(path)
        if not called:
            continue
        for name, pieces in file_pieces(side.source, layer, set(called)):
            check()
            first, *others = called[name]
            if not others:
                yield first, pieces
                continue
            data = b"".join(_bounded(pieces))  # several names of one file
            for path in (first, *others):
                yield path, iter((data,))


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    left = COMPARED
    for piece in pieces:
        yield piece[:left]
        left -= len(piece[:left])


def _small(a: bytes, b: bytes) -> ByteDifference:
    offset = first_difference(a, b)
    start = offset // ROW * ROW
    texts = _text(a), _text(b)
    if texts[0] is None or texts[1] is None:
        return ByteDifference(offset, start, a[start : start + 2 * ROW], b[start : start + 2 * ROW])
    lines = difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), "a", "b", lineterm="", n=2)
    shown = [line for _, line in zip(range(LINES + 3), lines, strict=False)][2:]
    return ByteDifference(
        offset, start, a[start : start + ROW], b[start : start + ROW], tuple(shown[:LINES]), len(shown) > LINES
    )


def _large(kept: _Kept, pieces: Iterator[bytes]) -> ByteDifference:
    at = 0
    for piece in pieces:
        piece = piece[: COMPARED - at]
        other = kept.read(at, len(piece))
        if piece != other:
            offset = at + first_difference(other, piece)
            start = offset // ROW * ROW
            behind = start - at
            mine = (
                piece[behind : behind + 2 * ROW]
                if behind >= 0
                else kept.read(start, -behind) + piece[: 2 * ROW + behind]
            )
            return ByteDifference(offset, start, kept.read(start, 2 * ROW), mine)
        at += len(piece)
    if at >= kept.length:
        return ByteDifference(-1)
    start = at // ROW * ROW
    return ByteDifference(at, start, kept.read(start, 2 * ROW), kept.read(start, at - start))


def first_difference(a: bytes, b: bytes) -> int:
    """The index of the first byte that differs; the shorter's length if it is the other's beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # halving, so that the comparing is done in C
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
