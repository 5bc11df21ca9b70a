"""What is known of a build at any moment."""

from __future__ import annotations

from shiplap.events.board import RECENT, Board
from shiplap.events.facts import Progress, StepFinished, StepOutput, StepStarted


def board(*facts: object) -> Board:
    made = Board()
    for fact in (StepStarted("a", "[s 1/1] RUN x", 10.0, stage="s"), *facts):
        made.take(fact)  # type: ignore[arg-type]
    return made


def test_the_last_lines_are_those_that_have_text() -> None:
    step = board(StepOutput("a", 1, b"one\n\ntwo\nthr", 11.0), StepOutput("a", 2, b"ee\n\n", 11.0)).steps["a"]
    assert step.last_lines(5) == ["one", "two", "three"]
    assert step.last_lines(2) == ["two", "three"]


def test_a_progress_bar_without_line_ends_shows_its_latest_state() -> None:
    step = board(*[StepOutput("a", 1, b"\r%d%%" % n, 11.0) for n in range(50)]).steps["a"]
    assert step.last_lines(5) == ["49%"]


def test_memory_does_not_grow_with_output() -> None:
    made = board(*[StepOutput("a", 1, b"x" * 60_000 + b"\n", 11.0) for _ in range(100)])
    assert sum(map(len, made.steps["a"]._recent)) <= 2 * RECENT
    many = board(*[StepOutput("a", 1, b"%d\n" % n, 11.0) for n in range(20_000)])
    assert sum(map(len, many.steps["a"]._recent)) <= 2 * RECENT
    assert many.steps["a"].last_lines(2) == ["19998", "19999"]


def test_speed_is_that_of_the_last_seconds() -> None:
    facts = [Progress("a", "blob", int(n * 1e6), 0, 10.0 + n) for n in range(5)]
    facts += [Progress("a", "blob", int(4e6 + n * 5e6), 0, 14.0 + n) for n in range(1, 7)]
    transfer = board(*facts).steps["a"].transfers["blob"]
    assert transfer.speed() == 5e6
    assert board(facts[0]).steps["a"].transfers["blob"].speed() is None


def test_reused_running_and_done() -> None:
    made = board(
        StepStarted("b", "b", 10.0, cached=True),
        StepFinished("b", 10.0, 0.0, cached=True),
        StepStarted("c", "c", 10.0),
        StepFinished("c", 12.0, 2.0),
    )
    assert made.reused() == 1
    assert [step.id for step in made.running()] == ["a"]


def test_facts_of_unknown_steps_change_nothing() -> None:
    made = board(StepOutput("z", 1, b"x", 1.0), Progress("z", "i", 1, 2, 1.0), StepFinished("z", 1.0, 1.0))
    assert list(made.steps) == ["a"]
