"""Symbolic modes against a table of random ones, each with the mode it was applied to and what BuildKit's library made."""

from __future__ import annotations

from pathlib import Path

import pytest

from shiplap.errors import UsageError
from shiplap.trees.mode import apply_mode, parse_octal

TABLE = Path(__file__).parent / "data" / "go_modes.txt"


def test_as_buildkits_library_has_it() -> None:
    rows = [line.split() for line in TABLE.read_text().splitlines()]
    assert len(rows) == 2000
    assert [
        (text, mode, found)
        for text, mode, is_dir, expected in rows
        if (found := f"{apply_mode(text, int(mode, 8), is_dir=is_dir == '1'):o}") != expected
    ] == []


@pytest.mark.parametrize("text", ["u", "z+x", "u+z", "u=rw,", ",u=r", "+x ", "", "99999", "8"])
def test_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply_mode(text, 0o644, is_dir=False)
    assert caught.value.code == "invalid-chmod"


def test_octal() -> None:
    assert parse_octal("00000644") == 0o644
    assert parse_octal("u+x") is None
    assert apply_mode("7777", 0, is_dir=True) == 0o7777
