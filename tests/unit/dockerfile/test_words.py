"""Expansion and splitting of words: the reference's vectors, the errors, the bounds."""

from __future__ import annotations

import pytest

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.words import EXPANSION_LIMIT, Lexer

ENV = {"A": "val", "E": "", "P": "/foo/boo.tar.gz"}

VECTORS = {
    "$AB": "",
    "${A}B": "valB",
    "${U:-d}": "d",
    "${E:-d}": "d",
    "${E-d}": "",
    "${U-d}": "d",
    "${A:+w}": "w",
    "${E:+w}": "",
    "${E+w}": "w",
    "${U+w}": "",
    r"\$A": "$A",
    "'$A'": "$A",
    r'"\$A"': "$A",
    r"a\b": "ab",
    r'"a\b"': r"a\b",
    r"a\\b": r"a\b",
    r'"a\\b"': r"a\b",
    "${P#*/}": "foo/boo.tar.gz",
    "${P##*/}": "boo.tar.gz",
    "${P%/*}": "/foo",
    "${P%%/*}": "",
    "${P/o/0}": "/f0o/boo.tar.gz",
    "${P//o/0}": "/f00/b00.tar.gz",
    r"${P//\//_}": "_foo_boo.tar.gz",
    "${P/*/x}": "x",
    "${P#[a-z]}": "/foo/boo.tar.gz",
    "${P%.*}": "/foo/boo.tar",
    "$$": "",
    "$1x": "x",
    "$12x": "x",
    "$@": "",
    "$?": "",
    "$": "$",
    "a$": "a$",
    '${U:-"x y"}': "x y",
    "${U:-$A-z}": "val-z",
    'x"y"z': "xyz",
    r"x\ y": "x y",
    "$A.b": "val.b",
    "$(id)": "$(id)",
    "`id`": "`id`",
    "${U:-${E:-${A}}}": "val",
    "é$A": "éval",
    "a\\": "a",
}


@pytest.mark.parametrize(("word", "expected"), VECTORS.items())
def test_vectors(word: str, expected: str) -> None:
    assert Lexer().expand(word, ENV) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("${A:=x}", "unsupported modifier (:=) in substitution"),
        ("${A:#x}", "unsupported modifier (:#) in substitution"),
        ("${A^^}", "unsupported modifier (^) in substitution"),
        ("${A:1:2}", "unsupported modifier (:1) in substitution"),
        ("${#A}", "unsupported modifier (A) in substitution"),
        ("${}", "syntax error: bad substitution"),
        ("${{", "syntax error: bad substitution"),
        ("${:", "syntax error: bad substitution"),
        ("${A:-x", "syntax error: missing '}'"),
        ("${A/x}", "syntax error: missing '/' in ${}"),
        ('"x', "unexpected end of statement while looking for matching double-quote"),
        ("'x", "unexpected end of statement while looking for matching single-quote"),
        ("${U:?give it}z", "U: give it"),
        ("${E:?}z", "E: is not allowed to be empty"),
        ("${U?}z", "U: is not allowed to be unset"),
        (r"${A#\x}z", r"invalid pattern (\x) in substitution: invalid escape '\x'"),
    ],
)
def test_errors(word: str, message: str) -> None:
    with pytest.raises(Fault) as caught:
        Lexer().expand(word, ENV)
    shown = word.replace("\\", "\\\\").replace('"', '\\"')
    assert caught.value.message == f'failed to process "{shown}": {message}'


def test_names_looked_up_are_told() -> None:
    matched: set[str] = set()
    unmatched: set[str] = set()
    Lexer().expand("$A ${E:-$U} $$", ENV, matched, unmatched)
    assert matched == {"A", "E"}
    assert unmatched == {"U", "$"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ('a "b c" d', ["a", "b c", "d"]),
        ("cat << EOF", ["cat", "<< EOF"]),
        (r"a\ b c", ["a b", "c"]),
        ("$L x", ["1", "2", "x"]),
        ("80-${END:-90}", ["90"]),
    ],
)
def test_split(text: str, words: list[str]) -> None:
    assert Lexer().split(text, {"L": "1 2"}) == words


def test_other_escape_character() -> None:
    assert Lexer("`").expand(r"C:\dir`$A", ENV) == r"C:\dir$A"


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert Lexer().expand("a\udcff$A", ENV) == "a\ufffdval"


def test_result_is_bounded() -> None:
    value = "x" * (EXPANSION_LIMIT // 2)
    assert len(Lexer().expand("$V$V", {"V": value})) == EXPANSION_LIMIT
    for word in ("$V$V.", '"$V$V."', "${U:-$V$V.}", "${V//x/xx.}"):
        with pytest.raises(Fault) as caught:
            Lexer().expand(word, {"V": value})
        assert caught.value.code == "expansion-too-large"


def test_nesting_is_bounded() -> None:
    with pytest.raises(Fault) as caught:
        Lexer().expand("${u:-" * 1000 + "}" * 1000, {})
    assert caught.value.code == "expansion-too-deep"
