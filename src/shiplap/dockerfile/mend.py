"""Fixes for remarks that can be mended without a change of what is built: ``shiplap check --fix``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from shiplap.dockerfile.checks import Remark
from shiplap.dockerfile.instructions import Dockerfile, Env, Expose, From, Instruction, Label, Pair


class Edit(NamedTuple):
    """Put ``text`` in the place of the lines ``line`` to ``end_line`` (1-based, inclusive)."""

    line: int
    end_line: int
    text: str


def edits(dockerfile: Dockerfile, remarks: Iterable[Remark]) -> list[Edit | None]:
    """For each remark a fix, if it has one. Instructions of several lines are left alone, but for their keyword."""
    by_line = {word.line: word for stage in dockerfile.stages for word in (stage.origin, *stage.commands)}
    wanted = _majority(dockerfile)
    found: list[Edit | None] = []
    for remark in remarks:
        word = by_line.get(remark.where.line or 0)
        line = dockerfile.source.lines[word.line - 1].rstrip("\r\n") if word is not None else ""
        text = _fixed(remark, word, line, wanted) if word is not None else None
        found.append(Edit(word.line, word.line, text) if word is not None and text is not None else None)
    return found


def mended(lines: list[str], edit: Edit) -> list[str]:
    """The lines of a Dockerfile (with their ends) after ``edit``."""
    old = lines[edit.line - 1]
    ending = old[len(old.rstrip("\r\n")) :]
    return [*lines[: edit.line - 1], edit.text + ending, *lines[edit.end_line :]]


def _majority(dockerfile: Dockerfile) -> str:
    words = [word.keyword for stage in dockerfile.stages for word in (stage.origin, *stage.commands)]
    lower = sum(word == word.lower() for word in words)
    return "lower" if lower > sum(word == word.upper() for word in words) else "upper"


def _fixed(remark: Remark, word: Instruction, line: str, wanted: str) -> str | None:
    rule = remark.rule
    if rule == "ConsistentInstructionCasing":
        return _replaced(line, word.keyword, getattr(word.keyword, wanted)())
    if word.line != word.end_line:
        return None
    if rule == "FromAsCasing" and isinstance(word, From):
        right = word.as_typed.upper() if word.keyword.isupper() else word.as_typed.lower()
        return re.sub(rf"\s{word.as_typed}(?=\s+\S+\s*$)", lambda match: match[0][0] + right, line)
    if rule == "ExposeProtoCasing" and isinstance(word, Expose):
        return re.sub(r"/(tcp|udp|sctp)\b", lambda match: match[0].lower(), line, flags=re.IGNORECASE)
    if rule == "LegacyKeyValueFormat" and isinstance(word, Env | Label) and len(word.pairs) == 1:
        assigned = _assigned(word.pairs[0])
        return f"{_indent(line)}{word.keyword} {assigned}" if assigned is not None else None
    return None


def _assigned(pair: Pair) -> str | None:
    if any(char in pair.value for char in "\"'\\") or not pair.value:
        return None  # quotes are read in another way there
    return f'{pair.name}="{pair.value}"' if re.search(r"\s", pair.value) else f"{pair.name}={pair.value}"


def _replaced(line: str, old: str, new: str) -> str:
    head, _, tail = line.partition(old)
    return f"{head}{new}{tail}"


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]
