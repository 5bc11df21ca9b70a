"""The terminal view on an emulated terminal."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pyte

from shiplap.events.facts import BuildFinished, StepFinished, StepOutput, StepStarted, Warned
from shiplap.events.live import LiveView, _Painter


class Emulated:
    """A terminal of pyte's."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self.screen)
        self.written = ""
        self.front = True

    def write(self, text: str) -> None:
        self.written += text
        self._stream.feed(text)

    def size(self) -> tuple[int, int]:
        return self.screen.columns, self.screen.lines

    def ours(self) -> bool:
        return self.front

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]


def until(condition: object, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_slow_step_is_drawn_and_stays_in_the_end() -> None:
    terminal = Emulated()
    view = LiveView(terminal)
    terminal.write("$ shiplap build\r\n")
    view(StepStarted("a", "[1/1] RUN make", time.time()))
    view(StepOutput("a", 1, b"cc x.c\n", time.time()))
    until(lambda: any("# cc x.c" in line for line in terminal.shown()))
    assert terminal.shown()[1].startswith("[+] Building 0.")
    view(StepFinished("a", time.time(), 0.2))
    view(Warned("mind"))
    view(BuildFinished(time.time(), 0.2, 1, 0))
    view.close()
    shown = terminal.shown()
    assert shown[1] == "[+] Building 0.2s (1/1) FINISHED"
    assert shown[2].startswith(" => [1/1] RUN make") and shown[3] == "WARN: mind"
    assert len(shown) == 4


def test_a_quick_build_draws_nothing_and_imports_no_rich() -> None:
    code = (
        "import sys, time\n"
        "from shiplap.events.live import LiveView\n"
        "from shiplap.events.facts import *\n"
        "view = LiveView(None)\n"
        "for n in range(5):\n"
        "    view(StepStarted(str(n), 'x', time.time())); time.sleep(0.02); view(StepFinished(str(n), time.time(), .02))\n"
        "view.close()\n"
        "assert not any(name.startswith('rich') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cached_steps_start_no_thread() -> None:
    view = LiveView(Emulated())
    before = threading.active_count()
    view(StepStarted("a", "x", time.time() - 9, cached=True))
    view(StepFinished("a", time.time(), 0, cached=True))
    assert threading.active_count() == before
    view.close()


def test_nothing_is_drawn_in_the_background() -> None:
    terminal = Emulated()
    terminal.front = False
    view = LiveView(terminal)
    view(StepStarted("a", "RUN make", time.time() - 5))
    until(lambda: view.drawn)
    time.sleep(0.25)
    assert terminal.written == ""
    terminal.front = True
    until(lambda: terminal.shown() != [])
    view.close()


def test_after_a_pause_the_picture_begins_below() -> None:
    terminal = Emulated()
    view = LiveView(terminal)
    view(StepStarted("a", "RUN make", time.time() - 5))
    until(lambda: terminal.shown() != [])
    view.paused()
    time.sleep(0.2)
    terminal.write("$ fg\r\n")
    view.resumed()
    until(lambda: sum("[+] Building" in line for line in terminal.shown()) == 2)
    view.close()
    assert [line[:12] for line in terminal.shown()] == [
        "[+] Building",
        " => RUN make",
        "$ fg",
        "[+] Building",
        " => RUN make",
    ]


def test_every_write_leaves_the_terminal_as_it_was() -> None:
    terminal = Emulated()
    painter = _Painter(terminal, True)
    painter.paint([(("x" * 80, "done"),), (("y", "error"),)], 80)
    assert terminal.written.count("\x1b[?7l") == terminal.written.count("\x1b[?7h") == 1
    assert "\x1b[?25l" not in terminal.written
    assert terminal.shown() == ["x" * 80, "y"]


def test_only_lines_that_differ_are_written() -> None:
    terminal = Emulated()
    painter = _Painter(terminal, False)
    painter.paint([(("same", ""),), (("old", ""),)], 80)
    terminal.written = ""
    painter.paint([(("same", ""),), (("new", ""),)], 80)
    assert "same" not in terminal.written
    assert terminal.shown() == ["same", "new"]


def test_a_shorter_picture_leaves_nothing_behind() -> None:
    terminal = Emulated()
    painter = _Painter(terminal, True)
    painter.paint([((f"line {n}", ""),) for n in range(9)], 80)
    painter.paint([(("one", ""),)], 80)
    assert terminal.shown() == ["one"]
