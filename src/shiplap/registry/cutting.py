"""Ends transfers as soon as they are not wanted any more, so that no thread waits for a silent server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PERIOD = 0.1
"""Seconds until a set ``cancel`` is seen. It may be set in a signal handler, which cannot call anything that locks."""


@contextmanager
def cut_when(cancel: threading.Event, interrupt: Callable[[], None]) -> Iterator[None]:
    """Call ``interrupt``, from another thread, once ``cancel`` is set."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PERIOD):
            if cancel.is_set():
                interrupt()

    watcher = threading.Thread(target=watch, name="shiplap-cut", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
