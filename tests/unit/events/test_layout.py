"""The picture of a build: state in, lines out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shiplap.events.board import Board
from shiplap.events.facts import BuildFinished, Fact, Progress, StepFinished, StepOutput, StepStarted, Warned
from shiplap.events.layout import cells, draw, final, fit, paint

NOW = 20.0


def board(*facts: Fact) -> Board:
    made = Board()
    for fact in facts:
        made.take(fact)
    return made


def started(id: str, name: str, stage: str = "", at: float = 10.0) -> StepStarted:
    return StepStarted(id, name, at, stage=stage)


def output(step: str, *lines: str) -> StepOutput:
    return StepOutput(step, 1, "".join(f"{line}\n" for line in lines).encode(), 11.0)


def texts(made: Board, width: int = 80, height: int = 24) -> list[str]:
    return [paint(line, False) for line in draw(made, NOW, width, height)]


FOUR = [
    StepStarted("base", "[base 1/1] FROM busybox", 9.0, cached=True),
    StepFinished("base", 9.0, 0.0, cached=True),
    *[started(stage, f"[{stage} 2/3] RUN make {stage}", stage, 10.0 + n) for n, stage in enumerate("abcd")],
    *[output(stage, *[f"{stage} line {n}" for n in range(9)]) for stage in "abcd"],
]


def test_stages_stand_one_under_the_other_at_80_columns() -> None:
    assert texts(board(*FOUR), 80, 30)[:8] == [
        "[+] Building 11.0s (1/5), 1 step reused",
        " => [a 2/3] RUN make a" + " " * 52 + " 10.0s",
        *[f" => => # a line {n}" for n in range(4, 9)],
        " => [b 2/3] RUN make b" + " " * 53 + " 9.0s",
    ]


def test_stages_stand_side_by_side_at_200_columns() -> None:
    lines = texts(board(*FOUR), 200, 50)
    assert [word for word in lines[1].split() if "─" not in word] == ["a", "b", "c", "d"]
    shown = [f"=> [2/3] RUN make {stage} {10 - n}.0s" for n, stage in enumerate("abcd")]
    assert " ".join(lines[2].split()) == " ".join(shown)
    assert lines[-1].split() == [word for stage in "abcd" for word in f"=> => # {stage} line 8".split()]
    assert len(lines) == 8


def test_more_stages_than_columns_make_a_second_band() -> None:
    lines = texts(board(*FOUR), 110, 30)
    assert [word for line in lines for word in line.split() if word in "abcd" and "──" in line] == ["a", "b", "c", "d"]


def test_a_small_screen_keeps_what_runs() -> None:
    assert [line.split()[:2] for line in texts(board(*FOUR), 80, 5)[1:]] == [["=>", f"[{s}"] for s in "abcd"]
    assert texts(board(*FOUR), 80, 4)[1:] == [
        " => [a 2/3] RUN make a" + " " * 52 + " 10.0s",
        " => [b 2/3] RUN make b" + " " * 53 + " 9.0s",
        " => … 2 more running",
    ]


def test_room_is_shared_out_evenly() -> None:
    lines = texts(board(*FOUR), 80, 13)
    assert [sum(f"# {stage}" in line for line in lines) for stage in "abcd"] == [2, 2, 2, 2]


def test_steps_that_are_done_fold_when_room_is_short() -> None:
    done = [fact for n in range(20) for fact in (started(f"d{n}", f"done {n}"), StepFinished(f"d{n}", 11.0, 1.0))]
    lines = texts(board(*done, started("r", "running")), 80, 10)
    assert len(lines) == 10
    assert lines[1] == " => … 13 steps done"
    assert "done 19" in lines[-2] and "running" in lines[-1]


def test_transfers_show_bytes_speed_and_a_bar() -> None:
    made = board(
        started("p", "pulling x"),
        Progress("p", "sha256:" + "ab" * 32, 10_000_000, 40_000_000, 11.0),
        Progress("p", "sha256:" + "ab" * 32, 20_000_000, 40_000_000, 13.0),
        Progress("p", "file", 5, 0, 13.0),
    )
    first, second = texts(made)[2:]
    assert first.split() == ["=>", "=>", "sha256:abababababab", "[========", "]", "20.00MB", "/", "40.00MB", "5.00MB/s"]
    assert second.split() == ["=>", "=>", "file", "5B"]


def test_many_transfers_are_summed_up() -> None:
    facts = [Progress("p", f"blob{n}", 1000, 3000 if n else 1000, 11.0, done=not n) for n in range(7)]
    lines = texts(board(started("p", "pulling x"), *facts))
    assert lines[2].split() == ["=>", "=>", "1", "of", "7", "transfers", "done", "7.00kB", "/", "19.00kB"]
    assert len(lines) == 7


def test_what_a_step_wrote_and_is_called_is_made_safe() -> None:
    made = board(started("a", "RUN echo \x1b]0;title\x07 x\nnext"), output("a", "\x1b[2Jclear\tit"))
    assert texts(made)[1].startswith(" => RUN echo  x next ")
    assert texts(made)[2] == " => => # clear  it"


def test_errors_cancellation_and_the_end() -> None:
    made = board(
        started("a", "RUN a"),
        started("b", "RUN b"),
        StepFinished("a", 12.0, 2.0, error="exit code: 1"),
        StepFinished("b", 12.0, 2.0, error="x", canceled=True),
        Warned("mind"),
        BuildFinished(12.0, 2.5, 1, 0, error="exit code: 1"),
    )
    lines = [paint(line, False) for line in final(made, NOW, 40)]
    assert lines == [
        "[+] Building 2.5s (2/2) ERROR",
        " => ERROR RUN a" + " " * 20 + " 2.0s",
        " => CANCELED RUN b" + " " * 17 + " 2.0s",
    ]


def test_the_end_names_what_was_reused_and_what_was_moved() -> None:
    made = board(
        *FOUR[:2],
        started("p", "FROM x"),
        Progress("p", "blob", 1000, 1000, 11.0, done=True),
        StepFinished("p", 12.0, 2.0),
        BuildFinished(12.0, 2.5, 1, 1),
    )
    assert [paint(line, False).split() for line in final(made, NOW, 60)] == [
        ["[+]", "Building", "2.5s", "(2/2)", "FINISHED"],
        ["=>", "CACHED", "1", "step"],
        ["=>", "FROM", "x", "2.0s"],
        ["=>", "=>", "1", "transfer", "1.00kB", "/", "1.00kB"],
    ]


def test_stopping_shows() -> None:
    made = board(*FOUR)
    made.stopping = True
    assert texts(made)[0].startswith("[+] Stopping ")


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("包裹包", 5, "包裹…"),
        ("包裹包", 4, "包…"),
        ("x", 0, ""),
        ("a\tb", 9, "a   b"),
    ],
)
def test_fit_counts_cells(text: str, width: int, shown: str) -> None:
    assert fit(text, width) == shown


FACTS = st.lists(
    st.one_of(
        st.builds(
            started,
            st.sampled_from("abcdefghij"),
            st.text(max_size=90),
            st.sampled_from(["", "s1", "s2", "包裹", "s4"]),
        ),
        st.builds(lambda id: StepFinished(id, 12.0, 1.0), st.sampled_from("abcdefghij")),
        st.builds(
            lambda id, data: StepOutput(id, 1, data.encode("utf-8", "replace"), 11.0),
            st.sampled_from("abcdefghij"),
            st.text(max_size=200),
        ),
        st.builds(
            lambda id, item, n: Progress(id, item, n, 10**9, 11.0),
            st.sampled_from("abcdefghij"),
            st.text(max_size=90),
            st.integers(0, 10**9),
        ),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(FACTS, st.integers(20, 260), st.integers(1, 60))
def test_never_wider_or_taller_than_the_screen(facts: list[Fact], width: int, height: int) -> None:
    made = board(*facts)
    lines = draw(made, NOW, width, height)
    assert len(lines) <= height
    assert all(cells(line) <= width for line in lines + final(made, NOW, width))
    assert not any(ord(char) < 32 for line in lines for char in paint(line, False))
