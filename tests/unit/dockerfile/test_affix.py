"""``${v#p}`` and its kin against the regular expressions that they stand for."""

from __future__ import annotations

import random
import re
import time

import pytest

from shiplap.dockerfile.affix import replace, trim_prefix, trim_suffix
from shiplap.dockerfile.fault import Fault


def _expression(pattern: str, greedy: bool) -> str:
    star = ".*" if greedy else ".*?"
    return "".join(star if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)


def _random_cases() -> list[tuple[str, str]]:
    chance = random.Random(7)
    return [
        (
            "".join(chance.choice("ab*?") for _ in range(chance.randint(0, 5))),
            "".join(chance.choice("ab") for _ in range(chance.randint(0, 8))),
        )
        for _ in range(3000)
    ]


def test_prefix_and_suffix_are_the_regular_expressions() -> None:
    for pattern, value in _random_cases():
        for greedy in (False, True):
            found = re.match(_expression(pattern, greedy), value)
            assert trim_prefix(pattern, value, greedy) == (value[found.end() :] if found else value), (pattern, value)
            found = re.match(_expression(pattern[::-1], greedy), value[::-1])
            expected = value[::-1][found.end() :][::-1] if found else value
            assert trim_suffix(pattern, value, greedy) == expected, (pattern, value)


def test_first_replacement_is_the_regular_expression() -> None:
    for pattern, value in _random_cases():
        expected = re.sub(_expression(pattern, True), "<>", value, count=1)
        assert replace(pattern, value, "<>", False, 1000) == expected, (pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value", "replacement", "expected"),
    [
        ("o", "foo", "0", "f00"),
        ("", "ab", "-", "-a-b-"),
        ("*", "abc", "x", "x"),
        ("a", "banana", "$0$1$$", "ba$na$na$"),
        ("?", "ab\nc", ".", "..\n."),
        ("*", "a\nb", "x", "x\nx"),
        (r"\*", "a*b", "x", "axb"),
        (r"\/", "a/b", "x", "axb"),
    ],
)
def test_every_replacement_is_gos(pattern: str, value: str, replacement: str, expected: str) -> None:
    assert replace(pattern, value, replacement, True, 1000) == expected


def test_bad_escape() -> None:
    with pytest.raises(Fault, match=r"invalid escape '\\x'"):
        trim_prefix(r"\x", "a", False)


def test_hostile_patterns_end() -> None:
    started = time.perf_counter()
    assert trim_prefix("*a" * 200 + "b", "a" * 20_000, True) == "a" * 20_000
    with pytest.raises(Fault):
        trim_prefix("?" * 60_000, "a" * 60_000, True)
    assert time.perf_counter() - started < 2
