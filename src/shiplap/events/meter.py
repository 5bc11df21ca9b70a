"""Byte counts of a transfer, told often enough to be watched and seldom enough to cost nothing."""

from __future__ import annotations

import time

from shiplap.events.facts import Progress, Sink

PERIOD = 0.1
"""Seconds between two facts of one item."""


class Meter:
    """Turns the byte counts of ``item`` (``total`` 0: unknown) into Progress facts: at most ten a second, and the last."""

    def __init__(self, sink: Sink, step: str, item: str, total: int) -> None:
        self._sink = sink
        self._step = step
        self._item = item
        self._total = total
        self._last = 0.0

    def __call__(self, current: int, done: bool) -> None:
        now = time.time()
        if done or now - self._last >= PERIOD:
            self._last = now
            self._sink(Progress(self._step, self._item, current, self._total, now, done))
