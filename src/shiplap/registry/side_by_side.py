"""Several transfers at once, of which the first failure stops the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def side_by_side(
    work: Callable[[T], None],
    items: Iterable[T],
    *,
    parallel: int,
    name: str,
    stop: threading.Event,
    interrupt: Callable[[], None],
) -> list[BaseException]:
    """Do ``work`` on ``items``, ``parallel`` (at least one) at a time and begun in their order; what failed, in that order.

    The first failure sets ``stop``, which work under way may look at, and what has not begun never does. If the wait
    itself is broken off, ``interrupt`` is called too, and the reason is raised. Threads are named after ``name``.
    """

    def guarded(item: T) -> None:
        try:
            work(item)
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(max(1, parallel), name) as pool:
        tasks = [pool.submit(guarded, item) for item in items]
        try:
            wait(tasks, return_when=FIRST_EXCEPTION)
        except BaseException:
            stop.set()
            interrupt()
            raise
        finally:
            if stop.is_set():
                for task in tasks:
                    task.cancel()
    failures = [task.exception() for task in tasks if not task.cancelled()]
    return [failure for failure in failures if failure is not None]
