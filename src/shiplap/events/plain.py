"""Facts as plain lines, in BuildKit's manner: ``#5 [build 2/3] RUN make``, ``#5 0.812 cc -o x x.c``, ``#5 DONE 1.3s``."""

from __future__ import annotations

import threading
from collections.abc import Callable

from shiplap.events.facts import BuildFinished, Fact, Progress, StepFinished, StepOutput, StepStarted, Warned
from shiplap.events.printable import last_words, printable

CLIP = 2 << 20
"""Bytes of output shown of a step, as in BuildKit (BUILDKIT_STEP_LOG_MAX_SIZE); ``shiplap logs`` has the rest."""


class PlainView:
    """Writes lines with ``write``, from any thread. Escape sequences of steps are taken out.

    ``clip``: bytes of output shown of one step; -1: all.
    """

    def __init__(self, write: Callable[[str], None], clip: int = CLIP) -> None:
        self._write = write
        self._clip = clip
        self._shown: dict[str, int] = {}
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self._partial: dict[tuple[str, int], bytes] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._last = 0

    def __call__(self, fact: Fact) -> None:
        with self._lock:
            if isinstance(fact, StepOutput):
                self._output(fact)
            elif isinstance(fact, StepStarted):
                self._began[fact.step] = fact.at
                self._line(fact.step, _one_line(fact.name))
            elif isinstance(fact, StepFinished):
                self._finished(fact)
            elif isinstance(fact, Progress):
                self._progress(fact)
            elif isinstance(fact, Warned):
                self._warned(fact)
            elif isinstance(fact, BuildFinished):
                self._last = -1

    def _line(self, step: str, text: str) -> None:
        number = self._numbers.setdefault(step, len(self._numbers) + 1)
        if self._last not in (0, number):
            self._write("\n")
        self._last = number
        self._write(f"#{number} {text}\n")

    def _output(self, fact: StepOutput) -> None:
        key = (fact.step, fact.stream)
        data = self._partial.pop(key, b"") + self._clipped(fact)
        *lines, rest = data.split(b"\n")
        if len(rest) > 65536:
            lines.append(rest)
            rest = b""
        if rest:
            self._partial[key] = rest
        for line in lines:
            self._say(fact.step, line, fact.at)

    def _clipped(self, fact: StepOutput) -> bytes:
        before = self._shown.get(fact.step, 0)
        if self._clip < 0 or before + len(fact.data) <= self._clip:
            self._shown[fact.step] = before + len(fact.data)
            return fact.data
        if before > self._clip:
            return b""
        self._shown[fact.step] = self._clip + 1
        limit = f"\n[output clipped, log limit {size_text(self._clip)} reached; shiplap logs has more]\n"
        return fact.data[: self._clip - before] + limit.encode()

    def _say(self, step: str, line: bytes, at: float) -> None:
        self._line(step, f"{at - self._began.get(step, at):.3f} {last_words(line)}")

    def _finished(self, fact: StepFinished) -> None:
        for key in [key for key in self._partial if key[0] == fact.step]:
            self._say(fact.step, self._partial.pop(key), fact.at)
        if fact.cached:
            self._line(fact.step, "CACHED")
        elif fact.error:
            self._line(fact.step, f"{'CANCELED' if fact.canceled else f'ERROR: {_one_line(fact.error)}'}")
        else:
            self._line(fact.step, f"DONE {fact.seconds:.1f}s")

    def _progress(self, fact: Progress) -> None:
        # Now and then a line for each item, and one when it is done: enough to see that something moves.
        key = (fact.step, fact.item)
        if not fact.done and fact.current - self._told.get(key, 0) < 16 << 20:
            return
        self._told[key] = fact.current
        total = f" / {size_text(fact.total)}" if fact.total else ""
        self._line(fact.step, f"{printable(fact.item)} {size_text(fact.current)}{total}{' done' if fact.done else ''}")

    def _warned(self, fact: Warned) -> None:
        if self._last:
            self._write("\n")
        self._last = -1
        self._write(warning_text(fact))


def _one_line(text: str) -> str:
    # Names and errors hold what stands in a Dockerfile, and that may be somebody else's.
    return printable(text).replace("\n", " ")


def warning_text(fact: Warned) -> str:
    """A warning as a line."""
    place = f" ({fact.file}:{fact.line})" if fact.file and fact.line else ""
    rule = f"{fact.rule}: " if fact.rule else ""
    return f"WARN: {printable(f'{rule}{fact.message}{place}')}\n"


def size_text(size: float) -> str:
    """Bytes as people read them, in powers of ten as docker shows them: ``12.3MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.2f}{unit}"
        size /= 1000
    return f"{size:.2f}TB"
