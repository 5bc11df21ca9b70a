"""Patterns: a table of Go's own answers, the reference's rules, and the time that hostile patterns take."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from shiplap.errors import TreeError
from shiplap.trees.patterns import PatternSet, clean, match_path, parse_ignore

TABLE = Path(__file__).parent / "data" / "go_patterns.jsonl"


def _answer(patterns: list[str], path: str) -> str:
    answer = ""
    if len(patterns) == 1:
        try:
            answer = "y" if match_path(patterns[0], path) else "n"
        except TreeError:
            answer = "e"
    try:
        return answer + ("y" if PatternSet(patterns).matches(path) else "n")
    except TreeError:
        return answer + "e"


def test_agrees_with_go() -> None:
    """Each line is [patterns, path, answer]: first filepath.Match (for one pattern), then MatchesOrParentMatches."""
    cases = [json.loads(line) for line in TABLE.read_text().splitlines()]
    assert len(cases) > 3000
    assert {answer for _, _, answer in cases} >= {"y", "n", "e", "yy", "nn", "ny", "yn", "ee"}
    assert [case for case in cases if _answer(case[0], case[1]) != case[2]] == []


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["foo"], "foo/a/b", True),
        (["foo"], "sub/foo", False),
        (["foo"], "foobar", False),
        (["**/x"], "x", True),
        (["a/**"], "a", False),
        (["a/**"], "a/b/c", True),
        (["a/**/b"], "a/b", True),
        (["*"], ".hidden", True),
        (["*", "!keep/x"], "keep/x", False),
        (["*", "!keep/x"], "keep/y", True),
        (["!a", "a"], "a", True),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
    ],
)
def test_last_match_wins(patterns: list[str], path: str, expected: bool) -> None:
    assert PatternSet(patterns).matches(path) is expected


def test_prunes_only_where_nothing_can_come_back() -> None:
    plain = PatternSet(["node_modules", "!src"])
    assert plain.negated
    assert not plain.prunes("node_modules")
    late = PatternSet(["!src", "node_modules"])
    assert late.prunes("node_modules")
    assert late.prunes("node_modules/deep/er")
    assert not late.prunes("src")


def test_ignore_file_lines() -> None:
    text = b"\xef\xbb\xbf# comment\r\n #x\r\n\n./a/../b/\r\n/c\n! /d \n!!x\n!\n\\#y\ncaf\xe9\n"
    assert parse_ignore(text) == ("#x", "b", "c", "!d", "!!x", "!", "\\#y", "caf\udce9")


def test_malformed() -> None:
    with pytest.raises(TreeError, match=r'illegal exclusion pattern: "!"'):
        PatternSet(parse_ignore(b"!\n"))
    with pytest.raises(TreeError, match="syntax error in pattern"):
        PatternSet(["[a"])
    with pytest.raises(TreeError, match="syntax error in pattern"):
        match_path("[]a]", "a")
    with pytest.raises(TreeError, match="token too long"):
        parse_ignore(b"a" * 70000)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "."),
        ("/", "/"),
        ("a//b/", "a/b"),
        ("/../a", "/a"),
        ("../a", "../a"),
        ("a/../..", ".."),
        ("/a/./b/..", "/a"),
    ],
)
def test_clean_is_gos(path: str, expected: str) -> None:
    assert clean(path) == expected


def test_hostile_patterns_end() -> None:
    """Fifty ``**/`` would take ``re`` for ever."""
    started = time.perf_counter()
    assert not PatternSet(["**/a*" * 50 + "b"]).matches("a/" * 1000 + "c")
    assert PatternSet(["/".join(["**", "a"] * 20)]).matches("/".join("a" * 40))
    assert not match_path("*a" * 30 + "b", "a" * 200)
    assert time.perf_counter() - started < 5


def test_twenty_thousand_paths() -> None:
    patterns = ["node_modules", "**/*.pyc", "*.log", "build/**", ".git", "**/__pycache__", "docs/*.md", "a?b", "x/**/y"]
    paths = [f"src/pkg{n % 200}/mod{n % 37}/file{n}.py" for n in range(20_000)]
    started = time.perf_counter()
    rules = PatternSet(patterns)
    assert not any(map(rules.matches, paths))
    # Measured 0.06 s; the bound is loose because the machine may be busy.
    assert time.perf_counter() - started < 2
