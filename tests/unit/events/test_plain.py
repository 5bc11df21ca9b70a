"""Plain lines: what a terminal or a log shows of a build."""

from __future__ import annotations

import pytest

from shiplap.events.facts import BuildFinished, Fact, Progress, StepFinished, StepOutput, StepStarted, Warned
from shiplap.events.plain import PlainView, size_text


def shown(*facts: Fact) -> str:
    out: list[str] = []
    view = PlainView(out.append)
    for fact in facts:
        view(fact)
    return "".join(out)


def output(data: bytes, step: str = "a", stream: int = 1, at: float = 10.5) -> StepOutput:
    return StepOutput(step, stream, data, at)


STARTED = StepStarted("a", "[1/2] RUN make", 10.0)


def test_a_step_from_beginning_to_end() -> None:
    text = shown(STARTED, output(b"cc -o x\n"), StepFinished("a", 11.0, 1.0))
    assert text == "#1 [1/2] RUN make\n#1 0.500 cc -o x\n#1 DONE 1.0s\n"


def test_steps_keep_their_numbers_and_are_set_apart() -> None:
    other = StepStarted("b", "other", 10.0)
    text = shown(STARTED, other, output(b"x\n"), StepFinished("b", 11.0, 0.0, cached=True))
    assert text == "#1 [1/2] RUN make\n\n#2 other\n\n#1 0.500 x\n\n#2 CACHED\n"


def test_a_failed_step() -> None:
    assert shown(StepFinished("a", 1.0, 1.0, error="exit code: 1")) == "#1 ERROR: exit code: 1\n"


def test_lines_that_come_in_pieces_are_put_together_by_stream() -> None:
    text = shown(STARTED, output(b"on"), output(b"err\n", stream=2), output(b"e\ntwo"), StepFinished("a", 11.0, 1.0))
    assert [line.split(" ", 2)[2] for line in text.splitlines()[1:-1]] == ["err", "one", "two"]


def test_a_line_without_end_is_shown_before_memory_grows() -> None:
    assert shown(STARTED, output(b"x" * 70_000)).endswith("x\n")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"10%\r50%\r100%\n", "100%"),
        (b"windows\r\n", "windows"),
        (b"\x1b[31mred\x1b[0m\n", "red"),
        (b"\x1b]0;title\x07text\n", "text"),
        (b"bell\x07 back\x08\n", "bell back"),
        (b"tab\tstays\n", "tab\tstays"),
        (b"caf\xc3\xa9 \xff\n", "café �"),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(data: bytes, line: str) -> None:
    assert shown(STARTED, output(data)).splitlines()[1:] == [f"#1 0.500 {line}"]


def test_progress_speaks_now_and_then_and_at_the_end() -> None:
    steps = [Progress("a", "sha256:ab", size << 20, 40 << 20, 1.0) for size in range(41)]
    lines = shown(*steps, Progress("a", "sha256:ab", 40 << 20, 40 << 20, 1.0, done=True)).splitlines()
    assert lines == [
        "#1 sha256:ab 16.78MB / 41.94MB",
        "#1 sha256:ab 33.55MB / 41.94MB",
        "#1 sha256:ab 41.94MB / 41.94MB done",
    ]


def test_warnings_name_rule_and_place() -> None:
    text = shown(STARTED, Warned("use JSON", "JSONArgsRecommended", "Dockerfile", 3), Warned("mind"))
    assert text == "#1 [1/2] RUN make\n\nWARN: JSONArgsRecommended: use JSON (Dockerfile:3)\n\nWARN: mind\n"


def test_the_end_of_a_build_sets_apart_what_follows() -> None:
    text = shown(STARTED, BuildFinished(11.0, 1.0, 1, 0), StepStarted("a", "again", 12.0))
    assert text == "#1 [1/2] RUN make\n\n#1 again\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1.00kB"), (1_160_000, "1.16MB"), (5e9, "5.00GB"), (2e15, "2000.00TB")],
)
def test_size_text(size: float, text: str) -> None:
    assert size_text(size) == text
