"""Heredocs: which words of a line begin one, and what their bodies become (reference 1.8)."""

from __future__ import annotations

import re

import msgspec

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.words import Lexer
from shiplap.trees.patterns import clean

_FORM = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)")
_TABS = re.compile(r"^\t+", re.MULTILINE)
_LINE = Lexer(raw_quotes=True, raw_escapes=True, skip_unset=True)
_PLAIN = Lexer(skip_unset=True)
_QUOTED = Lexer(raw_quotes=True, skip_unset=True)
_NOTHING: dict[str, str] = {}


class Heredoc(msgspec.Struct, frozen=True):
    """One heredoc: ``name`` is its delimiter, ``content`` its body with the final newline."""

    name: str
    expand: bool = True
    """No part of the delimiter was quoted."""
    chomp: bool = False
    """``<<-``: leading tabs are taken away."""
    content: str = ""

    def body(self) -> str:
        return _TABS.sub("", self.content) if self.chomp else self.content


def parse_heredoc(word: str) -> Heredoc | None:
    """The heredoc that ``word`` begins, None if it begins none. Raises Fault if its delimiter cannot be read."""
    form = _FORM.fullmatch(word) if "<<" in word else None
    if form is None or not form[3]:
        return None
    words = _PLAIN.split(form[3], _NOTHING)
    if len(words) != 1:
        return None
    quoted = _QUOTED.split(form[3], _NOTHING)
    if len(quoted) != 1:
        raise Fault(
            f"internal lexing of heredoc produced inconsistent results: {form[3]}",
            code="invalid-heredoc",
            hint="choose a simpler delimiter, such as EOF",
        )
    return Heredoc(words[0], expand=_quotes(words[0]) == _quotes(quoted[0]), chomp=form[2] == "-")


def is_heredoc(word: str) -> Heredoc | None:
    """Like ``parse_heredoc``, where what cannot be read is taken for an ordinary word."""
    try:
        return parse_heredoc(word)
    except Fault:
        return None


def heredocs_of(line: str) -> list[Heredoc]:
    """The heredocs that an instruction line begins, in order, without their bodies."""
    try:
        words = _LINE.split(line, _NOTHING)
    except Fault:
        return []
    return [heredoc for word in words if (heredoc := parse_heredoc(word)) is not None]


def file_name(name: str) -> str:
    """The file that the heredoc ``name`` is to a step. Raises Fault for a name that leads into a directory."""
    path = clean("/" + name)
    if "/" in path[1:] or path == "/":
        why = "is a directory" if path == "/" else "no such file or directory"
        raise Fault(
            f"open {path}: {why}", code="invalid-heredoc", hint="choose a delimiter that can name a file", at=name
        )
    return path[1:]


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')
