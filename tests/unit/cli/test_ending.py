"""What signals do to a command that does not end by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shiplap.cli import ending

STUCK = """
import os, time
from shiplap.cli import ending
def say(word):  # a handler may interrupt another: nothing that buffers
    os.write(1, word)
with ending.heeding(), ending.cancelling() as cancel, ending.telling(lambda: say(b"told\\n"), lambda: say(b"restored\\n")):
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


def stuck(*signals: signal.Signals) -> tuple[int, float, str, str]:
    """Exit status, seconds, and what was written, of a command that is stuck and gets ``signals``."""
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.03)
    out, told = process.communicate(timeout=10)
    return process.returncode, time.monotonic() - began, out, told


@pytest.mark.parametrize(
    ("signals", "least", "most"),
    [
        ((signal.SIGTERM,), 1.7, 2.0),
        ((signal.SIGTERM, signal.SIGINT), 0.2, 0.5),
        ((signal.SIGTERM, signal.SIGINT, signal.SIGINT), 0.0, 0.25),
    ],
    ids=["one", "two", "three"],
)
def test_patience_ends(signals: tuple[signal.Signals, ...], least: float, most: float) -> None:
    status, seconds, out, told = stuck(*signals)
    assert (status, out, told) == (143, "told\nrestored\n", "ERROR: canceled by SIGTERM [interrupted]\n")
    assert least <= seconds < most


def test_handlers_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with ending.heeding():
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before


def test_other_threads_install_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def command() -> None:
        with ending.heeding(), ending.pausing(print, print):
            seen.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=command)
    thread.start()
    thread.join()
    assert seen == [True]


def test_the_first_signal_raises_where_nothing_can_be_cancelled() -> None:
    code = (
        "import signal\nfrom shiplap.cli import ending\n"
        "with ending.heeding():\n    ending.begin()\n"
        "    try:\n        signal.raise_signal(signal.SIGHUP)\n"
        "    except KeyboardInterrupt:\n        print(ending.interrupted(), ending.was_told())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("129 True\n", "ERROR: canceled by SIGHUP [interrupted]\n")


DROPPED = """
import os, sys, time, weakref
from shiplap.cli import ending
class Held:
    pass
def drop(_):  # what is raised in here goes nowhere
    os.write(1, b"ready\\n")
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
with ending.heeding():
    try:
        ending.begin()
        held = Held()
        reference = weakref.ref(held, drop)
        del held
        time.sleep(5)
    except KeyboardInterrupt:
        sys.exit(ending.interrupted())
    finally:
        ending.over()
"""


def test_an_interrupt_that_python_drops_is_raised_again() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DROPPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=10)
    assert (process.returncode, told) == (143, "ERROR: canceled by SIGTERM [interrupted]\n")
    assert time.monotonic() - began < 1


def test_a_signal_between_commands_changes_nothing() -> None:
    """Once the command is over its status stands; what raised then would end as a traceback."""
    with ending.heeding():
        ending.begin()
        ending.over()
        signal.raise_signal(signal.SIGTERM)
        assert ending.was_told()
        signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    with ending.heeding():
        assert not ending.was_told()


def test_no_interrupt_is_raised_within_an_import(tmp_path: Path) -> None:
    """Half a module is left behind by one, and msgspec has crashed."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\nsignal.raise_signal(signal.SIGTERM)\nsum(range(10**6))\ndone = 1\n"
    )
    code = (
        f"import sys, time\nfrom shiplap.cli import ending\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "with ending.heeding():\n"
        "    try:\n        ending.begin()\n        import slow\n        time.sleep(5)\n"
        "    except KeyboardInterrupt:\n        print(sys.modules['slow'].done, ending.interrupted())\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1 143\n", "ERROR: canceled by SIGTERM [interrupted]\n")
    assert time.monotonic() - began < 2
