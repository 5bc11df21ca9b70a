"""How a command ends when it is told to: gracefully within two seconds; at the second signal in a moment.

The first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt in the main thread, or sets the event of ``cancelling``, so
that every ``with`` on the way out cleans up. The exit status is 128 + the signal's number, as a shell's own would be.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

GRACE = 1.8
"""Seconds for an orderly end. Then nobody is waited for any more: what is unfinished is removed, and the process ends."""
HURRY = 0.25
"""The same after a second signal. A third one ends the process there and then."""
CLEARING = 10.0
"""Seconds for removing what is unfinished. All that a step had written may be much, and the machine busy."""
CLEARING_IN_A_HURRY = 1.0
"""The same after a second signal. What then still lies about goes with the next command; the store is whole at any moment."""
AGAIN = 0.01
"""Seconds until an interrupt that was put off is raised."""
_HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Ending:
    def __init__(self) -> None:
        self.number = 0
        """The first signal that came."""
        self.again = False
        self.late_once = False
        self.clearing = False
        """Nobody is waited for any more."""
        self.running = False
        """Between ``begin`` and ``over``: an exception that is raised here is caught."""
        self.lost = False
        """It is to be raised a little later: an import was under way, or the interpreter dropped it (in a ``__del__``)."""
        self.cancel: threading.Event | None = None
        self.told: list[Callable[[], None]] = []
        self.restore: list[Callable[[], None]] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            # In a hurry: what is nearly over (a step is killed and its files removed in 40 ms) may still end well.
            signal.setitimer(signal.ITIMER_REAL, CLEARING_IN_A_HURRY if self.clearing else HURRY)
            if self.again:
                self.now()
            self.again = True
            return
        self.number = number
        # A timer of the kernel's: a thread could not be started safely in here.
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        for tell in self.told:
            tell()
        self.stop(frame)

    def stop(self, frame: FrameType | None) -> None:
        if self.cancel is not None:
            self.cancel.set()
        elif self.running and importing(frame):
            self.put_off()
        elif self.running:
            raise KeyboardInterrupt

    def put_off(self) -> None:
        self.lost = True
        signal.setitimer(signal.ITIMER_REAL, AGAIN)

    def dropped(self, what: sys.UnraisableHookArgs, /) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt) and self.number:
            self.put_off()
        else:
            sys.__unraisablehook__(what)

    def late(self, _number: int, frame: FrameType | None) -> None:
        if self.lost and not self.again:
            self.lost = False
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            self.stop(frame)
            return
        if self.number == signal.SIGPIPE and not self.late_once:
            self.late_once = True
            signal.setitimer(signal.ITIMER_REAL, GRACE)
            self.stop(frame)
            return
        if not self.clearing:
            self.clearing = True
            signal.setitimer(signal.ITIMER_REAL, CLEARING_IN_A_HURRY if self.again else CLEARING)
            with suppress(Exception):
                from shiplap.api.leaving import put_away

                put_away()
        self.now()

    def now(self) -> NoReturn:
        for restore in self.restore:
            restore()
        with suppress(OSError):
            if self.number != signal.SIGPIPE:
                os.write(2, f"{self.message()}\n".encode())
        os._exit(self.status())

    def status(self) -> int:
        return 128 + (self.number or signal.SIGINT)

    def message(self) -> str:
        return f"ERROR: canceled by {signal.Signals(self.number or signal.SIGINT).name} [interrupted]"


def importing(frame: FrameType | None) -> bool:
    """Whether an import is under way. To raise something in the middle of one is to leave half of a module, to lose it (the
    locks of imports are weak references with callbacks), or worse: msgspec 0.22 crashes when what it asks of the types of a
    new Struct raises (seen: SIGSEGV in ``_core`` at 4 of 180 signals in the first 200 ms)."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


_ending = _Ending()


@contextmanager
def heeding() -> Iterator[None]:
    """Heed signals. One that was ignored from the start (nohup, a shell's ``&``) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _ending.__init__()  # type: ignore[misc]
    before = {}
    for number in _HEEDED:
        handler = signal.getsignal(number)
        if handler is not signal.SIG_IGN:
            before[number] = handler
            signal.signal(number, _ending.handle)
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _ending.late)
    hook, sys.unraisablehook = sys.unraisablehook, _ending.dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        if not _ending.number:
            for known, old in before.items():
                signal.signal(known, old if old is not None else signal.SIG_DFL)


def begin() -> None:
    """From here on the first signal raises KeyboardInterrupt. One that came before has ended the process or is on its way."""
    _ending.running = True
    if _ending.number:
        raise KeyboardInterrupt


def over() -> None:
    """From here on no signal raises anything: the command has ended, and its status is known."""
    _ending.running = False


@contextmanager
def cancelling() -> Iterator[threading.Event]:
    """An event that the first signal sets, instead of raising KeyboardInterrupt."""
    _ending.cancel = threading.Event()
    try:
        yield _ending.cancel
    finally:
        _ending.cancel = None


@contextmanager
def telling(told: Callable[[], None], restore: Callable[[], None]) -> Iterator[None]:
    """Call ``told`` at the first signal, ``restore`` before an end at once. Both run in a signal handler."""
    _ending.told.append(told)
    _ending.restore.append(restore)
    try:
        yield
    finally:
        _ending.told.remove(told)
        _ending.restore.remove(restore)


@contextmanager
def pausing(paused: Callable[[], None], resumed: Callable[[], None]) -> Iterator[None]:
    """Call ``paused`` before a Ctrl-Z stops the process and ``resumed`` once it goes on. Both run in a signal handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: object) -> None:
        paused()
        handler = signal.signal(number, signal.SIG_DFL)
        # To this very thread: it stops here. In an orphaned process group, which nobody could continue, it does not.
        signal.raise_signal(number)
        signal.signal(number, handler)
        resumed()

    before = {signal.SIGCONT: signal.signal(signal.SIGCONT, lambda *_: resumed())}  # after a SIGSTOP, unannounced
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
        before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def reader_has_gone() -> None:
    """Whoever read our output has gone (``| head``): stop, quietly, as SIGPIPE would have it."""
    if _ending.number:
        return
    _ending.number = signal.SIGPIPE
    if _ending.cancel is not None:
        _ending.cancel.set()
    else:
        # Whichever thread found out, it is the main thread that ends the command.
        _thread.interrupt_main(signal.SIGALRM)


def interrupted() -> int:
    """The exit status of a command that was told to end; says so, unless nobody reads."""
    if _ending.number != signal.SIGPIPE:
        say(_ending.message())
    return _ending.status()


def was_told() -> bool:
    """Whether a signal came, or the reader has gone."""
    return _ending.number != 0


def say(text: str) -> None:
    """A last line on standard error, if there is one and somebody reads it."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def broken_pipe() -> int:
    """The exit status when standard output's reader has gone; nothing more is written there."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                silence(stream.fileno())
    return 128 + signal.SIGPIPE


def silence(number: int) -> None:
    """Send what is still written to descriptor ``number`` nowhere."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, number)
    os.close(null)


def open_standard_descriptors() -> None:
    """If the caller closed 0, 1 or 2, put /dev/null there, or the next file opened would be what others write to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
