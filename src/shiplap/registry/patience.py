"""Trying again: what is worth it, how long to wait, when to stop."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

import urllib3.exceptions as wire

from shiplap.errors import Interrupted, RegistryError
from shiplap.registry.connection import Timing

T = TypeVar("T")

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
    """Counts tries and waits between them; ``cancel`` ends any wait. ``sleep`` is for tests."""

    def __init__(self, timing: Timing, cancel: threading.Event, sleep: Callable[[float], None] | None = None) -> None:
        self.timing = timing
        self.cancel = cancel
        self._sleep = sleep

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
                if late or attempt >= min(self.timing.attempts, again.limit):
                    raise again.failure from None
            except (wire.HTTPError, OSError):
                self.check()
                raise
            self.pause(delay)

    def delay(self, attempt: int, asked: float | None) -> float:
        """Seconds to wait after try number ``attempt``: what was asked for, capped; else doubling, with jitter."""
        if asked is not None:
            return min(asked, self.timing.longest_retry_after)
        longest: float = min(self.timing.backoff * 2 ** (attempt - 1), self.timing.longest_backoff)
        return longest * random.uniform(0.5, 1.0)

    def pause(self, seconds: float) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        elif self.cancel.wait(seconds):
            self.check()


def retry_after(header: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3), None if it says nothing readable."""
    text = (header or "").strip()[:64]
    if text.isascii() and text.isdigit():
        return float(min(int(text), 1 << 31))
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
