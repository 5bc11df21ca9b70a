from __future__ import annotations

import time

import pytest

from shiplap.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('BEARER Realm = "https://a/t" , service=plain', [("bearer", {"realm": "https://a/t", "service": "plain"})]),
        (
            'Basic realm="x", Bearer realm="y",error="e"',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "error": "e"})],
        ),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ("", []),
        ('realm="x"', []),
        ('Bearer realm="unterminated', [("bearer", {})]),
        ('Bearer @@@, realm="x"', [("bearer", {"realm": "x"})]),
    ],
)
def test_table(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(found.scheme, dict(found.parameters)) for found in parse_challenges(header)] == expected


@pytest.mark.parametrize(
    "junk", ['"' * 200_000, "a=" * 100_000, "Bearer " * 50_000, 'Bearer realm="' + "\\" * 100_000, "," * 200_000]
)
def test_junk_ends_soon(junk: str) -> None:
    began = time.monotonic()
    parse_challenges(junk)
    assert time.monotonic() - began < 1.0


def test_missing_parameter_is_empty() -> None:
    assert Challenge("bearer").get("realm") == ""
