"""Laws of the parser, for any bytes: it ends, soon, with a Dockerfile or a DockerfileError; what it read, it reads again."""

from __future__ import annotations

import re
import time

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shiplap.dockerfile.heredoc import heredocs_of
from shiplap.dockerfile.instructions import Add, Copy, Dockerfile, Instruction, Onbuild, Run
from shiplap.dockerfile.parse import parse
from shiplap.errors import DockerfileError

WORDS = st.sampled_from(
    [
        *("a", "b=c", "--from=x", "--chown=1", "--link", "--", "--x", "--mount=type=cache,target=/a", "--interval=5s"),
        *(
            '["a", "b"]',
            "['a']",
            "[",
            "]",
            '["a",1]',
            '"q r"',
            "'s t'",
            "<<EOF",
            "<<-E",
            "<<'Q'",
            "3<<F",
            "EOF",
            "E",
            "Q",
        ),
        *(
            "\\",
            "`",
            "#",
            "=",
            "x\\ y",
            "NONE",
            "CMD",
            "AS",
            "80",
            "$V",
            "${V:-w}",
            "\\\\",
            "--network=none",
            "ü",
            "\ufeff",
        ),
        *("--exclude=q", "--chmod=u+x", "https://h/x.git", "\x00", "\x0b", "\x0c", "\x85", "\udc80", '"', "'"),
    ]
)
KEYWORDS = st.sampled_from(
    [
        *(
            "FROM busybox",
            "FROM a AS b",
            "from x as Y1",
            "RUN",
            "ENV",
            "LABEL",
            "ARG",
            "COPY",
            "ADD",
            "CMD",
            "ENTRYPOINT",
        ),
        *(
            "ONBUILD",
            "HEALTHCHECK CMD",
            "EXPOSE",
            "VOLUME",
            "USER",
            "WORKDIR",
            "SHELL",
            "STOPSIGNAL",
            "MAINTAINER",
            "RUNN",
        ),
        *(
            "ONBUILD RUN",
            "onbuild COPY",
            "COPY a b",
            "",
            "#",
            "  # c",
            "# escape=`",
            "# check=skip=all",
            "EOF",
            "\tE",
            "ENV a=b",
        ),
    ]
)
LINES = st.builds(
    lambda keyword, words, gap, tail: keyword + "".join(gap + word for word in words) + tail,
    KEYWORDS,
    st.lists(WORDS, max_size=5),
    st.sampled_from([" ", "  ", "\t", ""]),
    st.sampled_from(["", "", "", " \\", "\\", "\\  ", "`", " "]),
)
TEXTS = st.builds(
    lambda lines, end: ("FROM busybox" + end + end.join(lines)).encode("utf-8", "surrogateescape"),
    st.lists(LINES, max_size=8),
    st.sampled_from(["\n", "\n", "\n", "\r\n"]),
)


def read(data: bytes) -> Dockerfile | None:
    started = time.perf_counter()
    try:
        return parse(data, "Dockerfile")
    except DockerfileError as error:
        assert error.code != "dockerfile" and error.where is not None and error.where.line
        assert error.hint or error.code == "invalid-check"
        return None
    finally:
        assert time.perf_counter() - started < 2


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    read(data)
    read(b"FROM a\n" + data)
    read(b"FROM a\nRUN <<EOF\n" + data + b"\nEOF\n")


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
def test_what_was_read_is_read_again(data: bytes) -> None:
    first = read(data)
    if first is None or any(word.code.endswith(first.escape) for word in words(first)):
        return  # a line that ends with the escape character can be written only where the text ends
    again = read(written(first).encode("utf-8", "surrogateescape"))
    assert again is not None, written(first)
    assert meaning(again) == meaning(first)


def words(dockerfile: Dockerfile) -> list[Instruction]:
    """All instructions, in order."""
    return [*dockerfile.args, *(word for stage in dockerfile.stages for word in (stage.origin, *stage.commands))]


def written(dockerfile: Dockerfile) -> str:
    """The Dockerfile anew, an instruction on a line, heredocs below."""
    out = [f"# escape={dockerfile.escape}"]
    for word in words(dockerfile):
        out.append(word.code)
        out.extend(f"{content}{name}" for name, content in bodies(word))
    return "\n".join(out) + "\n"


def bodies(word: Instruction) -> list[tuple[str, str]]:
    if isinstance(word, Run):
        return [(file.name, file.content) for file in word.files]
    if isinstance(word, Copy | Add) and heredocs_of(word.code):  # of a line with an open quote no heredoc is read
        return [(file.name, file.content) for file in word.inline]
    if isinstance(word, Onbuild):
        _, newline, rest = word.trigger.partition("\n")
        return [("", rest)] if newline else []
    return []


def meaning(dockerfile: Dockerfile) -> list[Instruction]:
    """All but where it stood."""
    return [bare(word) for word in words(dockerfile)]


def bare(word: Instruction) -> Instruction:
    code = re.sub(r"\s+$", "", word.code)
    if isinstance(word, Onbuild):
        word = msgspec.structs.replace(word, trigger=word.trigger.strip())
    return msgspec.structs.replace(word, line=0, end_line=0, comments=(), code=code)
