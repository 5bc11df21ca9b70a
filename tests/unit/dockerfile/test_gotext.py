"""Go's ways with text: durations, quoting, suggestions, paths."""

from __future__ import annotations

import pytest

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import format_duration, parse_duration, quote, quote_list
from shiplap.dockerfile.paths import destination, join, normalize
from shiplap.dockerfile.suggest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("text", "nanoseconds", "shown"),
    [
        ("1m30s", 90 * 10**9, "1m30s"),
        ("1.5s", 1_500_000_000, "1.5s"),
        ("500ms", 500_000_000, "500ms"),
        ("1h", 3600 * 10**9, "1h0m0s"),
        ("-2us", -2000, "-2µs"),
        ("0", 0, "0s"),
        (".5m", 30 * 10**9, "30s"),
        ("1ns", 1, "1ns"),
        ("100h0.25s", 360_000_250_000_000, "100h0m0.25s"),
    ],
)
def test_durations(text: str, nanoseconds: int, shown: str) -> None:
    assert parse_duration(text) == nanoseconds
    assert format_duration(nanoseconds) == shown


@pytest.mark.parametrize("text", ["", "5", "x", "1", "5parsec", "1s2", ".s", "99999999999h", "+"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(Fault, match="duration"):
        parse_duration(text)


def test_quote() -> None:
    assert quote('a"\\\t\x01é\u2028\udcff') == r'"a\"\\\t\x01é\u2028\xff"'
    assert quote_list(("a", "b c")) == '["a" "b c"]'
    assert quote_list(()) == "[]"


def test_suggestions() -> None:
    assert nearest("RUNN", ["RUN", "ADD"], case_sensitive=False) == "RUN"
    assert nearest("runn", ["RUN", "ADD"], case_sensitive=False) == "run"
    assert nearest("RUN", ["RUN", "ADD"], case_sensitive=False) == ""
    assert nearest("chownn", ["chmod", "chown"]) == "chown"
    assert did_you_mean("FROBNICATE", ["FROM"]) == ""
    assert nearest("x" * 100_000, ["x" * 100_001]) == ""


@pytest.mark.parametrize(
    ("cwd", "path", "expected"),
    [
        ("/w", "a", "/w/a"),
        ("/w", ".", "/w/"),
        ("/w", "", "/w/"),
        ("/w", "./n", "/w/n"),
        ("/w", "n/", "/w/n/"),
        ("/w", "/t/.", "/t/."),
        ("/", ".", "/"),
        ("/w", "../../x", "/x"),
        ("/w", "/a/../b/", "/b/"),
        ("/", "/.", "/."),
    ],
)
def test_destinations(cwd: str, path: str, expected: str) -> None:
    assert destination(cwd, path) == expected


def test_working_directories_stay_as_typed_if_absolute() -> None:
    assert normalize("/w", "/a/../b/", keep_slash=False) == "/a/../b/"
    assert normalize("/w", "a/../b/", keep_slash=False) == "/w/b"
    assert normalize("", "", keep_slash=False) == "/"
    assert join("/", "../x") == "/x"
    assert join("", "") == ""
