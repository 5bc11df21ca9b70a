"""``--chmod`` values: octal, or symbolic as in chmod(1) with umask 0 (``u=rwX,go=rX``, ``+x``, ``g=u``)."""

from __future__ import annotations

import re

from shiplap.errors import UsageError

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]+|[ugo])?)+)")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo])?")
_SHIFT = {"u": 6, "g": 3, "o": 0}


def parse_octal(text: str) -> int | None:
    """The value of an octal mode 0..07777; None if ``text`` is no octal number; UsageError if it is out of range."""
    if not re.fullmatch(r"[0-7]+", text):
        if re.fullmatch(r"[0-9]+", text):
            raise _invalid(text)
        return None
    value = int(text, 8)
    if value > 0o7777:
        raise _invalid(text)
    return value


def apply_mode(text: str, mode: int, *, is_dir: bool) -> int:
    """Permission bits (twelve) of a file with ``mode`` after ``chmod text``."""
    octal = parse_octal(text)
    if octal is not None:
        return octal
    mode &= 0o7777
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise UsageError(
                f"invalid mode: {text!r}", code="invalid-chmod", hint="write octal (0755) or symbolic (u=rwX,go=rX)"
            )
        who = match.group(1) or "ugo"
        who = "ugo" if "a" in who else who
        for action in _ACTION.finditer(match.group(2)):
            mode = _act(mode, who, action.group(1), action.group(2) or "", is_dir)
    return mode


def _act(mode: int, who: str, operator: str, what: str, is_dir: bool) -> int:
    if what in _SHIFT:
        bits = (mode >> _SHIFT[what]) & 7
        special = 0
    else:
        bits = sum(value for letter, value in (("r", 4), ("w", 2), ("x", 1)) if letter in what)
        if "X" in what and (is_dir or mode & 0o111):
            bits |= 1
        special = (0o4000 if "s" in what and "u" in who else 0) | (0o2000 if "s" in what and "g" in who else 0)
        special |= 0o1000 if "t" in what else 0
    change = special
    mask = 0
    for letter in set(who):
        change |= bits << _SHIFT[letter]
        mask |= 7 << _SHIFT[letter]
    if operator == "+":
        return mode | change
    if operator == "-":
        return mode & ~change
    mask |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0) | (0o1000 if who == "ugo" else 0)
    return (mode & ~mask) | change


def _invalid(text: str) -> UsageError:
    return UsageError(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777", code="invalid-chmod"
    )
