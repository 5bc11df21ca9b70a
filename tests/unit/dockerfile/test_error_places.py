"""Every error that a Dockerfile can cause: its code, lines, marked text, message and hint, and where it is raised.

``data/errors.txt`` has one entry an error: ``=== CODE LINES [OPTIONS]``, the Dockerfile, ``>>>`` and what is said (the text
that is marked, the message, the hint). ``<NAME>`` stands for a text of ``LARGE``, too long to be written out. A place in the
room that raises an error, and is reached by no entry, fails the test: write the entry with the error.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shiplap.dockerfile
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.heredoc import parse_heredoc
from shiplap.dockerfile.lower import lower
from shiplap.dockerfile.options import LowerOptions, NamedContext, ResolvedImage
from shiplap.dockerfile.parse import parse
from shiplap.errors import DockerfileError, ShiplapError, UsageError
from shiplap.oci.config import ImageConfig, parse_config
from shiplap.oci.digest import digest_of
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference

TABLE = Path(__file__).parent / "data" / "errors.txt"
ROOM = Path(shiplap.dockerfile.__file__).parent
PLATFORM = Platform("linux", "amd64")
LARGE = {
    "LONG": "x" * 65_536,
    "BIG": "a" * 60_000,
    "STARS": "*a" * 20_000 + "b",
    "NUL": "\0",
    "PORTS": "0-65535 " * 5,
    "NESTED": "${x:-" * 100 + "}" * 100,
    "DOUBLE": "ENV A=$A$A\n" * 6,
    "HISTORY": "LABEL x=$A\n" * 1200,
    "MANY": "FROM a\n" + "USER x\n" * 20_001,
    "LINES": "FROM a\n" + "\n" * 500_001,
    "BYTES": "FROM a\n" + ("#" * 60_000 + "\n") * 300,
}


class Images:
    """Every image there is; three have triggers that are wrong."""

    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        config: dict[str, Any] = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]},
        }
        triggers = {"many": ["RUN a\nRUN b"], "from": ["FROM b"], "open": ["RUN <<EOF\nx"]}.get(
            reference.familiar().partition(":")[0]
        )
        if triggers:
            config["config"] = {"OnBuild": triggers}
        data = json.dumps(config).encode()
        made: ImageConfig = parse_config(data)
        return ResolvedImage(reference, digest_of(data), made)


def error_of(text: str, options: dict[str, Any]) -> ShiplapError:
    """What is said of ``text``."""
    text = re.sub(r"<([A-Z]+)>", lambda name: LARGE.get(name[1], name[0]), text)
    given = {**options, "contexts": {name: NamedContext(*pair) for name, pair in options.get("contexts", {}).items()}}
    try:
        lower(
            parse(text.encode(), "Dockerfile"),
            LowerOptions(target_platform=PLATFORM, build_platform=PLATFORM, **given),
            Images(),
        )
    except ShiplapError as error:
        return error
    raise AssertionError("no error")


def show(error: ShiplapError) -> str:
    """``CODE LINES``, the text marked, the message and the hint."""
    place = error.where
    lines = "-"
    marked = []
    if place is not None:
        lines = f"{place.line or 0}" + (f"-{place.end_line}" if place.end_line != place.line else "")
        if place.marker is not None:
            column, length = place.marker
            marked = ["at: " + place.text[0][column : column + length][:80]]
    hint = [f"try: {error.hint[:200]}"] if error.hint else []
    message = [json.dumps(error.message[:200])[1:-1].replace('\\"', '"')]
    return "\n".join([f"{error.code} {lines}", *marked, *message, *hint])


def entries() -> Iterator[tuple[str, dict[str, Any], str]]:
    """(what has to be said, options, Dockerfile)."""
    for part in re.split(r"(?m)^=== ", TABLE.read_text())[1:]:
        head, _, rest = part.partition("\n")
        code, lines, *options = head.split(" ", 2)
        text, *said = re.split(r"(?m)^>>> ", rest)
        shown = "\n".join([f"{code} {lines}", *(line.rstrip("\n") for line in said)])
        yield shown, json.loads(options[0]) if options else {}, text


def raising() -> dict[tuple[str, int], str]:
    """The places that raise, by file and line; their code, if it stands there."""
    found = {}
    for file in sorted(ROOM.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                "Fault",
                "DockerfileError",
                "UsageError",
            ):
                code = next((word.value for word in node.keywords if word.arg == "code"), None)
                assert code is not None, f"{file.name}:{node.lineno} raises an error without a code"
                found[file.name, node.lineno] = code.value if isinstance(code, ast.Constant) else ""
    return found


def test_every_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[tuple[str, int]] = set()
    for kind in (Fault, DockerfileError, UsageError):
        begin = kind.__init__

        def noted(self: Any, *args: Any, _begin: Any = begin, **words: Any) -> None:
            frame = sys._getframe(1)
            reached.add((Path(frame.f_code.co_filename).name, frame.f_lineno))
            _begin(self, *args, **words)

        monkeypatch.setattr(kind, "__init__", noted)
    table = list(entries())
    assert [
        (wanted, found) for wanted, options, text in table if (found := show(error_of(text, options))) != wanted
    ] == []
    with pytest.raises(Fault):
        parse_heredoc("<<''\t{A")  # no word of a Dockerfile has a tab in it
    places = raising()
    codes = {wanted.split(" ")[0] for wanted, _, _ in table}
    assert {code for code in places.values() if code} - codes == set()
    missed = [f"{name}:{line}" for name, line in places if (name, line) not in reached and name != "fault.py"]
    assert missed == []


def test_every_error_says_what_to_try() -> None:
    silent = [
        wanted for wanted, _, _ in entries() if "\ntry: " not in wanted and not wanted.startswith("invalid-check")
    ]
    assert silent == []
