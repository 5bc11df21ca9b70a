"""Where a build stands, as its facts tell it: what a picture of it is drawn from. Costs a step next to nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from shiplap.events.facts import BuildFinished, Fact, Progress, StepFinished, StepOutput, StepStarted, Warned
from shiplap.events.printable import last_words

RECENT = 8 << 10
"""Bytes of output that are kept of a step: what its last lines are read from when a picture is drawn, and not before."""
SPAN = 3.0
"""Seconds over which the speed of a transfer is measured."""


class Transfer:
    """Bytes on their way."""

    def __init__(self, item: str) -> None:
        self.item = item
        self.current = 0
        self.total = 0
        """0: unknown."""
        self.done = False
        self._marks: deque[tuple[float, int]] = deque()

    def take(self, fact: Progress) -> None:
        self.current, self.total, self.done = fact.current, fact.total, fact.done
        self._marks.append((fact.at, fact.current))
        while len(self._marks) > 2 and fact.at - self._marks[0][0] > SPAN:
            self._marks.popleft()

    def speed(self) -> float | None:
        """Bytes a second, lately; None if that is not known yet."""
        if len(self._marks) < 2:
            return None
        (began, first), (at, last) = self._marks[0], self._marks[-1]
        return max(last - first, 0) / (at - began) if at > began else None


class Step:
    """One step, from when it was first heard of."""

    def __init__(self, fact: StepStarted, number: int) -> None:
        self.id = fact.step
        self.number = number
        self.name = fact.name
        self.stage = fact.stage
        self.began = fact.at
        self.ended: float | None = None
        self.cached = fact.cached
        self.canceled = False
        self.error = ""
        self.transfers: dict[str, Transfer] = {}
        self._recent: deque[bytes] = deque()
        self._size = 0

    def wrote(self, data: bytes) -> None:
        self._recent.append(data[-RECENT:])
        self._size += len(self._recent[-1])
        while self._size - len(self._recent[0]) >= RECENT:
            self._size -= len(self._recent.popleft())

    def last_lines(self, most: int) -> list[str]:
        """The last lines it wrote that have anything in them, oldest first, safe to show."""
        found: list[str] = []
        for line in reversed(b"".join(self._recent).split(b"\n")):
            if len(found) == most:
                break
            text = last_words(line).rstrip()
            if text:
                found.append(text)
        return found[::-1]


class Board:
    """All steps of one build (or pull, or push). Not for several threads at once."""

    def __init__(self, title: str = "Building") -> None:
        self.title = title
        self.steps: dict[str, Step] = {}
        self.warnings: list[Warned] = []
        self.began: float | None = None
        self.finished: BuildFinished | None = None
        self.stopping = False
        """The user asked to stop."""

    def take(self, fact: Fact) -> None:
        """Learn a fact."""
        if isinstance(fact, StepOutput):
            if fact.step in self.steps:
                self.steps[fact.step].wrote(fact.data)
        elif isinstance(fact, StepStarted):
            if self.began is None:
                self.began = fact.at
            self.steps[fact.step] = Step(fact, self._number(fact.step))
        elif isinstance(fact, StepFinished):
            self._ended(fact)
        elif isinstance(fact, Progress):
            if fact.step in self.steps:
                self.steps[fact.step].transfers.setdefault(fact.item, Transfer(fact.item)).take(fact)
        elif isinstance(fact, Warned):
            self.warnings.append(fact)
        elif isinstance(fact, BuildFinished):
            self.finished = fact

    def _number(self, step: str) -> int:
        known = self.steps.get(step)
        return known.number if known is not None else len(self.steps) + 1

    def _ended(self, fact: StepFinished) -> None:
        step = self.steps.get(fact.step)
        if step is not None:
            step.ended, step.error, step.canceled = fact.at, fact.error, fact.canceled
            step.cached = step.cached or fact.cached

    def running(self) -> Iterator[Step]:
        """Steps under way, in the order in which they began."""
        return (step for step in self.steps.values() if step.ended is None)

    def reused(self) -> int:
        """How many steps were found in the cache."""
        return sum(step.cached for step in self.steps.values())
