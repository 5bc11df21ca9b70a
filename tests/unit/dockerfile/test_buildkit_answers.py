"""A table of random words, heredocs and Dockerfiles with what BuildKit's own Go code says of each.

A line is [kind, text, answer]. Kinds: ``w`` expand a word, ``b`` a heredoc body, ``q`` with quotes kept, ``s`` split into
words, ``h`` the heredoc a word begins, ``d`` a Dockerfile. Answers: ``["r", …]`` a result, ``["e", message]``, ``["n"]``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shiplap.dockerfile import instructions as kinds
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import quote, quote_list
from shiplap.dockerfile.heredoc import parse_heredoc
from shiplap.dockerfile.instructions import Dockerfile, Instruction
from shiplap.dockerfile.parse import parse
from shiplap.dockerfile.words import Lexer
from shiplap.errors import DockerfileError

TABLE = Path(__file__).parent / "data" / "buildkit_answers.jsonl"
ENV = {"A": "val", "E": "", "P": "/foo/boo.tar.gz", "N": "a\nb", "W": "x y  z", "S": "*a?b"}


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _pairs(instruction: kinds.Env | kinds.Label) -> str:
    return "".join(f"{quote(pair.name)}={quote(pair.value)} {_truth(pair.legacy)} " for pair in instruction.pairs)


def _items(arg: kinds.Arg) -> list[str]:
    return [f"{quote(item.name)} {quote(item.default or '')} {_truth(item.default is not None)}" for item in arg.items]


def _command(word: kinds.Run | kinds.Cmd | kinds.Entrypoint) -> str:
    files = "".join(f" {quote(file.name)} {quote(file.content)}" for file in getattr(word, "files", ()))
    return f"{quote_list(word.args)} {_truth(word.shell)}{files}"


def _sources(word: kinds.Copy | kinds.Add) -> str:
    inline = "".join(f" {quote(file.name)} {quote(file.content)} {_truth(file.expand)}" for file in word.inline)
    parts = [quote_list(word.sources), quote(word.dest)]
    if isinstance(word, kinds.Copy):
        parts += [quote(word.from_), quote(word.chown), quote(word.chmod), _truth(word.link), _truth(word.parents)]
    else:
        parts += [quote(word.chown), quote(word.chmod), _truth(word.link), quote(word.checksum)]
    return " ".join((*parts, quote_list(word.exclude))) + inline


def _show(word: Instruction) -> str:
    match word:
        case kinds.Env() | kinds.Label():
            return _pairs(word)
        case kinds.Arg():
            return "".join(item + " " for item in _items(word))
        case kinds.Run() | kinds.Cmd() | kinds.Entrypoint():
            return _command(word)
        case kinds.Copy() | kinds.Add():
            return _sources(word)
        case kinds.Healthcheck():
            return f"{quote_list(word.test)} {word.interval} {word.timeout} {word.retries}"
        case kinds.Expose():
            return quote_list(word.ports)
        case kinds.Volume():
            return quote_list(word.paths)
        case kinds.Shell():
            return quote_list(word.args)
        case kinds.Onbuild():
            return quote(word.trigger)
        case kinds.User():
            return quote(word.user)
        case kinds.Workdir():
            return quote(word.path)
        case kinds.StopSignal():
            return quote(word.signal)
        case kinds.Maintainer():
            return quote(word.author)
    raise AssertionError(word)


def _dump(dockerfile: Dockerfile) -> str:
    out = [f"G {item};" for arg in dockerfile.args for item in _items(arg)]
    for stage in dockerfile.stages:
        origin = stage.origin
        out.append(f"FROM {quote(origin.base)} {quote(origin.name)} {quote(origin.platform)};")
        for word in stage.commands:
            out.append(f"{word.keyword.lower()}@{word.line}-{word.end_line} {_show(word)};")
    return "".join(out)


def _answer(kind: str, text: str) -> list[Any]:
    try:
        if kind in "wb":
            unmatched: set[str] = set()
            result = Lexer(skip_quotes=kind == "b").expand(text, ENV, None, unmatched)
            return ["r", result, len(unmatched)]
        if kind == "s":
            return ["r", Lexer().split(text, ENV)]
        if kind == "q":
            return ["r", Lexer(raw_quotes=True, skip_unset=True).expand(text, ENV)]
        if kind == "h":
            doc = parse_heredoc(text)
            return ["n"] if doc is None else ["r", doc.name, doc.expand, doc.chomp]
        return ["r", _dump(parse(text.encode(), "Dockerfile"))]
    except (Fault, DockerfileError) as error:
        return ["e", error.message]


@pytest.mark.parametrize("kind", "wbqshd")
def test_as_buildkit_says(kind: str) -> None:
    cases = [case for case in map(json.loads, TABLE.read_text().splitlines()) if case[0] == kind]
    assert len(cases) > 100
    assert {case[2][0] for case in cases} >= {"r", "e"}
    assert [(text, answer) for _, text, answer in cases if _answer(kind, text) != answer] == []
