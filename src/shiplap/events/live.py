"""The terminal view: a picture of the build, drawn anew ten times a second while there is something to watch.

It appears only when a step takes long enough to be watched, so that a cached build neither flickers nor pays for rich.
The cursor is never hidden, and what a frame switches off it switches on again in the same write: however the process
ends, there is nothing to restore.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from shiplap.events.board import Board
from shiplap.events.facts import Fact, StepStarted

if TYPE_CHECKING:
    from shiplap.events.layout import Line

PERIOD = 0.1
"""Seconds between two frames."""
STEP_PATIENCE = 0.15
"""A step that has been running for so many seconds is worth watching."""
PATIENCE = 0.5
"""So is a build of many short steps, after so many seconds."""
_BEGIN = "\x1b[?2026h\x1b[?7l"  # synchronized update, where the terminal knows it; long lines are cut, never wrapped
_END = "\x1b[?7h\x1b[?2026l"
RESTORE = f"\r\n{_END}"
"""What puts a terminal right if the process ended in the middle of a frame."""


class Screen(Protocol):
    """A terminal."""

    def write(self, text: str) -> None:
        """Write; never raises."""

    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""

    def ours(self) -> bool:
        """Whether this process may draw: it is in the foreground of the terminal."""


class LiveView:
    """Draws on ``screen``. A sink: takes facts from any thread. ``close`` leaves the final picture."""

    def __init__(self, screen: Screen, title: str = "Building", *, colour: bool = True) -> None:
        self._screen = screen
        self._colour = colour
        self._board = Board(title)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._painter: _Painter | None = None
        self._paused = False

    def __call__(self, fact: Fact) -> None:
        with self._lock:
            self._board.take(fact)
            if self._thread is None and isinstance(fact, StepStarted) and not fact.cached:
                self._thread = threading.Thread(target=self._watch, name="shiplap-view", daemon=True)
                self._thread.start()

    @property
    def drawn(self) -> bool:
        """Whether there is a picture on the screen."""
        return self._painter is not None

    def stopping(self) -> None:
        """The user asked to stop: say so in the next frame."""
        self._board.stopping = True

    def paused(self) -> None:
        """The process is about to be stopped: draw nothing more."""
        self._paused = True

    def resumed(self) -> None:
        """The process goes on: others have written on the terminal, so begin below."""
        painter = self._painter
        if painter is not None:
            painter.forget()
        self._paused = False

    def close(self) -> None:
        """Draw what stays. Nothing is drawn for a build too short to have been watched, but its warnings are told."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(1.0)  # a terminal that was stopped with Ctrl-S may hold it
        if self._painter is not None:
            from shiplap.events.layout import final

            with self._lock:
                lines = final(self._board, time.time(), self._screen.size()[0])
            self._painter.replace(lines)
        from shiplap.events.plain import warning_text

        for warned in self._board.warnings:
            self._screen.write(warning_text(warned))

    def _watch(self) -> None:
        began = time.time()
        while not self._over.wait(0.05):
            with self._lock:
                now = time.time()
                oldest = min((step.began for step in self._board.running()), default=now)
            if now - oldest >= STEP_PATIENCE or now - began >= PATIENCE:
                break
        else:
            return
        from shiplap.events.layout import draw

        self._painter = painter = _Painter(self._screen, self._colour)
        while not self._over.is_set():
            width, height = self._screen.size()
            if not self._paused and self._screen.ours():
                with self._lock:
                    lines = draw(self._board, time.time(), width, max(height - 1, 1))
                painter.paint(lines, width)
            self._over.wait(PERIOD)


class _Painter:
    """Replaces one picture by the next, writing only the lines that differ."""

    def __init__(self, screen: Screen, colour: bool) -> None:
        self._screen = screen
        self._colour = colour
        self._shown: list[Line] = []
        self._texts: list[str] = []
        self._width = 0
        self._lock = threading.Lock()

    def forget(self) -> None:
        """What is on the screen is no longer ours."""
        self._shown, self._texts = [], []

    def paint(self, lines: list[Line], width: int) -> None:
        """Show ``lines``; the cursor stands at the beginning of the line below."""
        from shiplap.events.layout import cells, paint

        with self._lock:
            # A line that fills the width leaves the cursor on its last cell: erasing from there would take that away.
            texts = [paint(line, self._colour) + ("" if cells(line) >= width else "\x1b[K") for line in lines]
            before = self._texts if width == self._width else []
            out = [_BEGIN, self._up(width)]
            for number, text in enumerate(texts):
                if number < len(before) and before[number] == text:
                    out.append("\r\n")
                else:
                    out.append(f"\r{text}\r\n")
            out.append(f"\x1b[J{_END}")
            self._shown, self._texts, self._width = lines, texts, width
            self._screen.write("".join(out))

    def replace(self, lines: list[Line]) -> None:
        """Show the last picture, as long as it may be."""
        self._texts = []
        self.paint(lines, self._screen.size()[0])

    def _up(self, width: int) -> str:
        """To the first line of what is shown. A terminal that became narrower has folded its lines (most do)."""
        from shiplap.events.layout import cells

        rows = sum(max(-(-cells(line) // width), 1) for line in self._shown) if width else 0
        return f"\r\x1b[{rows}A" + ("\x1b[J" if width != self._width else "") if rows else "\r"
