"""``--chmod`` values: octal, or symbolic as in chmod(1) with umask 0 (``u=rwX,go=rX``, ``+x``, ``g=u``).

Symbolic ones mean what they mean to BuildKit, whose rules are those of setmode(3) of the BSDs: ``X`` looks at the mode the
file had at first, ``=`` takes setuid and setgid away but never the sticky bit, and ``t`` for others alone means nothing.
"""

from __future__ import annotations

import re

from shiplap.errors import UsageError

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXstugo]*)")
_STICKY = 0o1000
_SET_IDS = 0o6000
_ALL = 0o6777
_OTHERS = 0o007
_WHO = {"u": 0o4700, "g": 0o2070, "o": _OTHERS, "a": _ALL}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
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
    runs = bool(mode & 0o111) or is_dir
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise UsageError(
                f"invalid mode: {text!r}", code="invalid-chmod", hint="write octal (0755) or symbolic (u=rwX,go=rX)"
            )
        who = 0
        for letter in match[1]:
            who |= _WHO[letter]
        for operator, letters in _ACTION.findall(match[2]):
            mode = _act(mode, who, operator, letters, runs)
    return mode


def _act(mode: int, who: int, operator: str, letters: str, runs: bool) -> int:
    """``who`` is 0 if nobody was named. ``runs``: the file is a directory, or somebody may execute it."""
    bits = executes = 0
    assigned = operator != "="

    def change(mode: int) -> int:
        nonlocal assigned
        if bits or not assigned:
            assigned = True
            chosen = bits & who if who else bits
            if operator == "=":
                mode &= ~(who or _ALL)
            mode = mode & ~chosen if operator == "-" else mode | chosen
        return mode | ((executes & who if who else executes) if runs else 0)

    for letter in letters:
        if letter in _BITS:
            bits |= _BITS[letter]
        elif letter == "X":
            if operator == "-":
                bits |= 0o111
            else:
                executes = 0o111
        elif letter in _SHIFT:
            if bits:
                mode = change(mode)
            elif executes:
                mode |= (executes & who if who else executes) if runs else 0
            bits = executes = 0
            mode = _copied(mode, who or _ALL, operator, (mode >> _SHIFT[letter]) & 7)
            assigned = True
        elif who != who & _OTHERS or not who:  # s and t: nothing for others alone
            bits |= _SET_IDS if letter == "s" else _STICKY
            who |= _STICKY if letter == "t" else 0
    return change(mode)


def _copied(mode: int, who: int, operator: str, bits: int) -> int:
    for letter, shift in _SHIFT.items():
        if who & (4 << _SHIFT[letter]):
            if operator == "+":
                mode |= bits << shift
            elif operator == "-":
                mode &= ~(bits << shift)
            else:
                mode = mode & ~(7 << shift) | bits << shift
    return mode


def _invalid(text: str) -> UsageError:
    return UsageError(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777", code="invalid-chmod"
    )
