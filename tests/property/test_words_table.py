"""Expansion of words against a table of random ones with what BuildKit's own Go code makes of each.

A row is [word, escape character, "r", result, number of unknown variables] or [word, escape character, "e", message].
"""

from __future__ import annotations

import json
import lzma
import time
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.words import EXPANSION_LIMIT, Lexer

TABLE = Path(__file__).parent / "data" / "words.jsonl.xz"
ENV = {"A": "val", "E": "", "P": "/foo/boo.tar.gz", "N": "a\nb", "W": "x y  z", "S": "*a?b"}
PIECES = st.sampled_from(
    [
        *"${}:-+?#%/'\"\\` \tab*=\n<",
        "$A",
        "${A",
        "${E:-",
        "${U:?",
        "${P//",
        "${S#",
        "${W%%",
        "é",
        "\0",
        "\udcff",
        "${${",
    ]
)


def answer(word: str, escape: str) -> list[Any]:
    unknown: set[str] = set()
    try:
        return ["r", Lexer(escape).expand(word, ENV, None, unknown), len(unknown)]
    except Fault as fault:
        return ["e", fault.message]


def test_as_buildkits_lexer() -> None:
    rows = [json.loads(line) for line in lzma.decompress(TABLE.read_bytes()).decode().split("\n")]
    assert len(rows) >= 12_000
    assert {row[2] for row in rows} == {"r", "e"}
    assert [row for row in rows if answer(row[0], row[1]) != row[2:]] == []


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join), st.sampled_from("\\`"))
def test_any_word_ends_with_a_result_or_a_fault(word: str, escape: str) -> None:
    started = time.perf_counter()
    try:
        assert len(Lexer(escape).expand(word, ENV)) <= EXPANSION_LIMIT
        Lexer(escape).split(word, ENV)
    except Fault as fault:
        assert fault.code != "dockerfile" and fault.hint
    assert time.perf_counter() - started < 2


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abcé./-_ \n", max_size=40))
def test_what_has_no_signs_stays(text: str) -> None:
    assert Lexer().expand(text, ENV) == text


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30).filter(lambda text: "'" not in text))
def test_single_quotes_keep_all(text: str) -> None:
    assert Lexer().expand(f"'{text}'", ENV) == text
