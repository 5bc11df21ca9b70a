"""The patterns of ``${v#p}``, ``${v%p}`` and ``${v/p/r}``: ``*``, ``?`` and backslashes, no brackets.

BuildKit makes regular expressions of them, whose ``.`` takes no newline. Python's ``re`` backtracks, so the stars are
resolved here: literal pieces are looked for from the left (shortest) or the last one from the right (longest).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from shiplap.dockerfile.fault import Fault

_SHORTER = "do it with sed in a RUN"
_WORK = 1 << 27
"""Bound on len(pattern) * len(value), in characters: about a second."""


class _Piece:
    __slots__ = ("match", "search", "size")

    def __init__(self, expression: list[str]) -> None:
        compiled = re.compile("".join(expression))
        self.match = compiled.match
        self.search = compiled.search
        self.size = len(expression)


def _pieces(pattern: str, value: str) -> list[_Piece]:
    if len(pattern) * len(value) > _WORK:
        raise Fault("pattern and value of a substitution are too long", code="expansion-too-large", hint=_SHORTER)
    pieces: list[list[str]] = [[]]
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            pieces.append([])
        elif char == "?":
            pieces[-1].append(".")
        elif char == "\\" and pattern[index : index + 1] not in ("}", "/"):
            escaped = pattern[index : index + 1]
            if not escaped or escaped not in "*?\\":
                raise Fault(
                    f"invalid escape '\\{escaped or chr(0xFFFD)}'",
                    code="invalid-pattern",
                    hint="\\* \\? and \\\\ are the escapes of such a pattern",
                )
            pieces[-1].append(re.escape(escaped))
            index += 1
        elif char != "\\":
            pieces[-1].append(re.escape(char))
    return [_Piece(piece) for piece in pieces]


def _end(pieces: list[_Piece], value: str, start: int, greedy: bool) -> int:
    """Where a match that begins at ``start`` ends, -1 if there is none."""
    if not pieces[0].match(value, start):
        return -1
    position = start + pieces[0].size
    for number, piece in enumerate(pieces[1:], 1):
        newline = value.find("\n", position)
        reach = len(value) if newline < 0 else newline
        found = piece.search(value, position, reach + piece.size)
        if found is None:
            return -1
        first = found.start()
        if greedy and number == len(pieces) - 1:
            first = next(spot for spot in range(reach, first - 1, -1) if piece.match(value, spot))
        position = first + piece.size
    return position


def trim_prefix(pattern: str, value: str, greedy: bool) -> str:
    """``${value#pattern}``, or ``##`` if ``greedy``. Raises Fault for a bad escape."""
    end = _end(_pieces(pattern, value), value, 0, greedy)
    return value[end:] if end > 0 else value


def trim_suffix(pattern: str, value: str, greedy: bool) -> str:
    """``${value%pattern}``, or ``%%`` if ``greedy``: a prefix of everything read backwards."""
    return trim_prefix(reverse_pattern(pattern), value[::-1], greedy)[::-1]


def reverse_pattern(pattern: str) -> str:
    """``pattern`` read backwards, each backslash still before what it escapes."""
    letters: list[str] = []
    index = 0
    while index < len(pattern):
        step = 2 if pattern[index] == "\\" and index + 1 < len(pattern) else 1
        letters.append(pattern[index : index + step])
        index += step
    return "".join(reversed(letters))


def _matches(pieces: list[_Piece], value: str) -> Iterator[tuple[int, int]]:
    search = 0
    while search <= len(value):
        start = search
        while True:
            found = pieces[0].search(value, start)
            if found is None:
                return
            start = found.start()
            end = _end(pieces, value, start, True)
            if end >= 0:
                break
            # Further places on this line fail for the same lack; a later line may do better.
            start = value.find("\n", start) + 1
            if not start:
                return
        yield start, end
        search = max(end, search + 1)


def replace(pattern: str, value: str, replacement: str, every: bool, limit: int) -> str:
    """``${value/pattern/replacement}``, or ``//`` if ``every``; more than ``limit`` characters are a Fault."""
    pieces = _pieces(pattern, value)
    out: list[str] = []
    size = last = 0
    for start, end in _matches(pieces, value):
        out.append(value[last:start])
        if not every:
            out.append(replacement)
            last = end
            break
        if end > last or start == 0:
            text = _template(replacement, value[start:end]) if "$" in replacement else replacement
            size += len(text)
            if size > limit:
                raise Fault("the result of a substitution is too long", code="expansion-too-large", hint=_SHORTER)
            out.append(text)
        last = end
    out.append(value[last:])
    return "".join(out)


_GROUP = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


def _template(text: str, whole: str) -> str:
    # Go's ReplaceAllString reads $1 and ${name} in the replacement; there is no group but the whole match.
    return _GROUP.sub(lambda found: "$" if found[1] else whole if (found[2] or found[3]) == "0" else "", text)
