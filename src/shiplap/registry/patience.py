"""Trying again: what is worth it, how long to wait, when to stop."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import urllib3.exceptions as wire

from shiplap.errors import Interrupted, RegistryError
from shiplap.registry.connection import Timing
from shiplap.registry.limits import retry_after, span

__all__ = ["TRANSIENT", "Patience", "TryAgain", "retry_after"]

T = TypeVar("T")

LONG = 2.0
"""A wait of more seconds is told: who sees nothing happen thinks that nothing does."""

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be gone at the next try."""


class TryAgain(Exception):
    """Carries a failure that another try may mend; ``wait`` is what the registry asked for, in seconds, or None."""

    def __init__(self, failure: RegistryError, wait: float | None = None, limit: int = 1 << 30) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait = wait
        self.limit = limit


class Patience:
    """Counts tries and waits between them; ``cancel`` ends any wait. ``tell`` gets a sentence about each long one.

    ``sleep`` is for tests.
    """

    def __init__(
        self,
        timing: Timing,
        cancel: threading.Event,
        sleep: Callable[[float], None] | None = None,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.timing = timing
        self.cancel = cancel
        self._sleep = sleep
        self._tell = tell

    def check(self) -> None:
        """Raise Interrupted if the user asked to stop."""
        if self.cancel.is_set():
            raise Interrupted("interrupted while talking to a registry")

    def insist(self, once: Callable[[], T]) -> T:
        """Call ``once`` until it returns or its failure is final; it raises TryAgain for one that is not."""
        started = time.monotonic()
        attempt = 0
        while True:
            self.check()
            attempt += 1
            try:
                return once()
            except TryAgain as again:
                self.check()
                delay = self.delay(attempt, again.wait)
                late = time.monotonic() - started + delay > self.timing.patience
                # Whoever says "in an hour" would say it again in a minute.
                too_long = again.wait is not None and again.wait > self.timing.longest_retry_after
                if late or too_long or attempt >= min(self.timing.attempts, again.limit):
                    raise again.failure from None
                if delay > LONG:
                    self._tell(f"{again.failure}; trying again in {span(delay)}")
            except (wire.HTTPError, OSError):
                self.check()
                raise
            self.pause(delay)

    def delay(self, attempt: int, asked: float | None) -> float:
        """Seconds to wait after try number ``attempt``: what was asked for; else doubling, with jitter."""
        if asked is not None:
            return asked
        longest: float = min(self.timing.backoff * 2 ** (attempt - 1), self.timing.longest_backoff)
        return longest * random.uniform(0.5, 1.0)

    def pause(self, seconds: float) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif self.cancel.wait(seconds):
            self.check()
