"""Text as Go's standard library treats it, for messages and values must come out letter by letter as BuildKit's."""

from __future__ import annotations

import re
from collections.abc import Iterable

from shiplap.dockerfile.fault import Fault
from shiplap.errors import quote as quote

SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""``unicode.IsSpace``; Python's own idea of white space has four control characters more."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def valid(text: str) -> str:
    """``text`` with U+FFFD for each byte that was no UTF-8 (held as a surrogate), as Go's string functions make it."""
    return _SURROGATE.sub("\ufffd", text) if not text.isascii() else text


def quote_list(items: Iterable[str]) -> str:
    """``%q`` of a list of strings."""
    return "[" + " ".join(map(quote, items)) + "]"


_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = "write 30s, 1m30s or 500ms"
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")


def parse_duration(text: str) -> int:
    """``time.ParseDuration``, in nanoseconds; raises Fault in Go's words."""
    rest = text
    negative = rest[:1] == "-"
    if rest[:1] in ("-", "+") and rest:
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise Fault(f"time: invalid duration {quote(text)}", code="invalid-duration", hint=_DURATION)
    total = 0
    while rest:
        part = _PART.match(rest)
        assert part is not None
        whole, fraction, unit = part.groups()
        if not whole and not fraction:
            raise Fault(f"time: invalid duration {quote(text)}", code="invalid-duration", hint=_DURATION)
        if not unit:
            raise Fault(f"time: missing unit in duration {quote(text)}", code="invalid-duration", hint=_DURATION)
        if unit not in _UNITS:
            raise Fault(
                f"time: unknown unit {quote(unit)} in duration {quote(text)}", code="invalid-duration", hint=_DURATION
            )
        scale = _UNITS[unit]
        total += int(whole[:20] or "0") * scale
        if fraction:
            total += int(fraction[:20]) * scale // 10 ** len(fraction[:20])
        if total > 2**63 - 1:
            raise Fault(f"time: invalid duration {quote(text)}", code="invalid-duration", hint=_DURATION)
        rest = rest[part.end() :]
    return -total if negative else total


def format_duration(nanoseconds: int) -> str:
    """``time.Duration.String``: ``1h0m0s``, ``1.5s``, ``250ms``."""
    sign, value = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if value == 0:
        return "0s"
    for unit, scale in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if value < 10**9 and value < scale * 1000:
            return sign + _decimal(value, scale) + unit
    hours, rest = divmod(value, 3600 * 10**9)
    minutes, seconds = divmod(rest, 60 * 10**9)
    text = _decimal(seconds, 10**9) + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return sign + (f"{hours}h{text}" if hours else text)


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    return f"{whole}.{rest:0{len(str(scale)) - 1}d}".rstrip("0") if rest else str(whole)


def parse_uint(text: str, base: int, bits: int) -> int | None:
    """``strconv.ParseUint`` for bases 8 and 10; None where Go has an error."""
    if not re.fullmatch(r"[0-7]+" if base == 8 else r"[0-9]+", text, re.ASCII) or len(text) > 64:
        return None
    value = int(text, base)
    return value if value < 1 << bits else None
