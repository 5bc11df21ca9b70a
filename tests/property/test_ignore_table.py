"""Ignore files and patterns against tables of random ones, with what BuildKit's own Go code says of each.

``ignore.jsonl.xz``: first the paths, then [ignore file, number of the first path asked about, answers]: sixteen paths, each
37 further in the list, a bit each (1: ignored), or ``X`` where moby's ignorefile or patternmatcher finds a mistake.
``globs.jsonl.xz``: first the names, then [pattern, answers of Go's filepath.Match]: y, n, or e for a mistake.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

from shiplap.errors import TreeError
from shiplap.trees.patterns import PatternSet, match_path, parse_ignore

DATA = Path(__file__).parent / "data"
ASKED, STEP = 16, 37


def rows(name: str) -> list[Any]:
    return [json.loads(line) for line in lzma.decompress((DATA / name).read_bytes()).decode().split("\n")]


def answers(text: str, paths: list[str]) -> str:
    try:
        rules = PatternSet(parse_ignore(text.encode()))
        return f"{sum(rules.matches(path) << (ASKED - 1 - n) for n, path in enumerate(paths)):04x}"
    except TreeError as error:
        assert error.code == "invalid-pattern"
        return "X"


def test_ignore_files() -> None:
    paths, *cases = rows("ignore.jsonl.xz")
    assert sum(answer != "X" for _, _, answer in cases) * ASKED > 60_000
    assert sum(int(answer, 16).bit_count() for _, _, answer in cases if answer != "X") > 9_000
    wrong = [
        (text, answer, found)
        for text, first, answer in cases
        if (found := answers(text, [paths[(first + STEP * n) % len(paths)] for n in range(ASKED)])) != answer
    ]
    assert wrong == []


def test_what_is_pruned_holds_nothing_that_is_kept() -> None:
    paths, *cases = rows("ignore.jsonl.xz")
    for text, _, answer in cases[::4]:
        if answer != "X":
            rules = PatternSet(parse_ignore(text.encode()))
            for path in paths[::5]:
                above, slash, _ = path.rpartition("/")
                assert not (slash and rules.prunes(above) and not rules.matches(path)), (text, path)


def matched(pattern: str, name: str) -> str:
    try:
        return "y" if match_path(pattern, name) else "n"
    except TreeError:
        return "e"


def test_globs() -> None:
    names, *cases = rows("globs.jsonl.xz")
    assert len(names) * len(cases) > 40_000
    assert {letter for _, answer in cases for letter in answer} == {"y", "n", "e"}
    assert [
        (pattern, answer) for pattern, answer in cases if "".join(matched(pattern, name) for name in names) != answer
    ] == []
