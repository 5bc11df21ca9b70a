"""Which view shows a build, a pull or a push; the only place that knows what a terminal is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from shiplap.cli import ending
from shiplap.cli.parsing import write_error
from shiplap.settings import Settings

if TYPE_CHECKING:
    from shiplap.events.facts import Fact, Sink

_SMALL = (80, 24)


def progress_mode(asked: str, settings: Settings) -> str:
    """``plain``, ``tty``, ``quiet`` or ``rawjson``: what was asked for, as far as standard error allows it."""
    mode = asked or settings.progress or "auto"
    if mode in ("auto", "tty"):
        able = sys.stderr is not None and sys.stderr.isatty() and settings.terminal not in ("", "dumb")
        mode = "tty" if able else "plain"
    return "quiet" if mode == "none" else mode


@contextmanager
def view(mode: str, settings: Settings, title: str = "Building") -> Iterator[Sink]:
    """A sink that shows facts on standard error."""
    if mode == "rawjson":
        from shiplap.events.rawjson import JsonView

        yield JsonView(write_error)
    elif mode == "quiet":
        yield _warnings_alone
    elif mode == "tty":
        with _live(settings, title) as live:
            yield live
    else:
        from shiplap.events.plain import PlainView

        yield PlainView(write_error, settings.output_clip)


def _warnings_alone(fact: Fact) -> None:
    from shiplap.events.facts import Warned

    if isinstance(fact, Warned) and not fact.rule:
        from shiplap.events.plain import warning_text

        write_error(warning_text(fact))


@contextmanager
def _live(settings: Settings, title: str) -> Iterator[Sink]:
    from shiplap.events.live import RESTORE, LiveView

    screen = _Terminal(2)
    live = LiveView(screen, title, colour=settings.color)
    with (
        ending.telling(live.stopping, lambda: screen.write(RESTORE) if live.drawn else None),
        ending.pausing(live.paused, live.resumed),
    ):
        try:
            yield live
        finally:
            live.close()


class _Terminal:
    """The terminal behind descriptor ``fd``. A ``Screen``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "replace"))
        with suppress(OSError):  # hung up: whether that ends the build is for SIGHUP to say
            while data:
                data = data[os.write(self._fd, data) :]

    def size(self) -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(self._fd)
        except OSError:
            return _SMALL
        return columns or _SMALL[0], lines or _SMALL[1]

    def ours(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return True  # not our controlling terminal: nobody can send us to its background
