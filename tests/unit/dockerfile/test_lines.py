"""Physical lines to logical ones."""

from __future__ import annotations

import pytest

from shiplap.dockerfile.directives import detect_syntax
from shiplap.dockerfile.lines import LINE_COUNT_LIMIT, Lines, Logical
from shiplap.errors import DockerfileError


def read(data: bytes) -> list[Logical]:
    return list(Lines(data, "Dockerfile").read(lambda text: text.startswith(("RUN", "COPY"))))


def test_continuation() -> None:
    (only,) = read(b"RUN a \\\n  # comment\n\n   b\\  \nc\\\\\n")
    assert only.text == "RUN a    bc\\\\"
    assert (only.line, only.end_line, only.empty_continuation) == (1, 5, True)


def test_comments_belong_to_what_follows() -> None:
    first, second = read(b"# one\n#\n# two\nRUN a\n# three\nRUN b\n")
    assert first.comments == ("two",)
    assert second.comments == ("three",)


def test_heredocs_keep_their_bytes() -> None:
    (only,) = read(b"COPY <<A <<-B /x\r\n# a \\\r\n\tA\nA\r\n\tb\n\tB\n")
    assert [doc.content for doc in only.heredocs] == ["# a \\\r\n\tA\n", "\tb\n"]
    assert only.heredocs[1].body() == "b\n"
    assert (only.line, only.joined_at, only.end_line) == (1, 1, 6)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (b"RUN cat <<EOF", ["EOF"]),
        (b"RUN cat << EOF", ["EOF"]),
        (b"RUN 3<<EOF cat", ["EOF"]),
        (b'RUN <<"E F"', ["E F"]),
        (b"RUN <<<x", []),
        (b'RUN "<<EOF"', []),
        (b"RUN cat<<EOF", []),
        (b"RUN $((1<<4))", []),
        (b"RUN it's <<EOF", []),
    ],
)
def test_what_begins_a_heredoc(line: bytes, names: list[str]) -> None:
    (only, *_) = read(line + b"\n" + b"".join(name.encode() + b"\n" for name in names))
    assert [doc.name for doc in only.heredocs] == ["".join(name) for name in names]


def test_directives_end_with_the_first_other_line() -> None:
    lines = Lines(b"# syntax = a/b:1 x\n#Escape=`\n\n# check=skip=all\nRUN a`\nb\n", "Dockerfile")
    (only,) = lines.read(lambda text: False)
    assert only.text == "RUN ab"
    assert lines.directives.found == {"syntax": "a/b:1 x", "escape": "`"}


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (b"#!/bin/sh\n# syntax=x\n", "x"),
        (b"// syntax=y\n", "y"),
        (b'{"syntax": "z"}', "z"),
        (b'{"syntax": 1}', None),
        (b"FROM x\n# syntax=q\n", None),
        (b"{" * 5000, None),
    ],
)
def test_syntax_is_found_in_other_formats(data: bytes, syntax: str | None) -> None:
    assert detect_syntax(data) == syntax


def test_too_many_lines() -> None:
    with pytest.raises(DockerfileError) as caught:
        Lines(b"\n" * (LINE_COUNT_LIMIT + 1), "Dockerfile")
    assert caught.value.code == "dockerfile-too-large"


def test_error_points_at_the_lines() -> None:
    with pytest.raises(DockerfileError) as caught:
        read(b"FROM x\nRUN <<EOF\nhello\n")
    place = caught.value.where
    assert place is not None
    assert (place.file, place.line, place.end_line) == ("Dockerfile", 2, 3)
    assert place.text == ("RUN <<EOF", "hello")
    assert place.marker == (6, 3)
