"""Parser directives: ``# escape=``, ``# syntax=``, ``# check=`` in the leading comments (reference 1.3)."""

from __future__ import annotations

import re

import msgspec

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import SPACE

_FORM = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*", re.DOTALL)
_KNOWN = frozenset(("escape", "syntax", "check"))


class Directives:
    """Reads directives line by line, until the first line that is none."""

    __slots__ = ("_done", "_mark", "found", "lines")

    def __init__(self, mark: str = "#") -> None:
        self._mark = mark
        self._done = False
        self.found: dict[str, str] = {}
        self.lines: dict[str, int] = {}
        """1-based line of each directive."""

    def read(self, line: str, number: int) -> bool:
        """True if ``line`` (leading white space removed) is a directive. Raises Fault for a repeated or bad one."""
        if self._done:
            return False
        form = _FORM.fullmatch(line[len(self._mark) :].lstrip(SPACE)) if line.startswith(self._mark) else None
        name = form[1].lower() if form else ""
        if form is None or name not in _KNOWN:
            self._done = True
            return False
        if name in self.found:
            raise Fault(
                f"only one {name} parser directive can be used",
                code="repeated-directive",
                hint="keep the first, take the others away",
                at=form[1],
            )
        if name == "escape" and form[2] not in ("\\", "`"):
            raise Fault(
                f"invalid escape token '{form[2]}' does not match ` or \\",
                code="invalid-escape-token",
                hint="write # escape=` or # escape=\\",
                at=form[2],
            )
        self.found[name] = form[2]
        self.lines[name] = number
        return True

    @property
    def escape(self) -> str:
        return self.found.get("escape", "\\")


def detect_syntax(data: bytes) -> str | None:
    """The value of ``syntax``: a directive, also behind ``#!``; ``// syntax=``; or a JSON document with that key.

    The frontend it names is never run; the value is for telling so.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.startswith(b"#!"):
        data = data.partition(b"\n")[2]
    for mark in ("#", "//"):
        directives = Directives(mark)
        for number, line in enumerate(data[: 1 << 16].split(b"\n"), 1):
            try:
                if not directives.read(line.decode("utf-8", "surrogateescape").rstrip("\r"), number):
                    break
            except Fault:
                break
        if "syntax" in directives.found:
            return directives.found["syntax"]
    if data.lstrip()[:1] == b"{":
        try:
            document = msgspec.json.decode(data, type=dict[str, object])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        value = document.get("syntax")
        return value if isinstance(value, str) else None
    return None
