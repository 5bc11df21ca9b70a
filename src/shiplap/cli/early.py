"""Signals before a command has begun and after it has ended: there is nothing to clean up, so the process ends at once.

In between ``ending`` heeds them. This is the first thing that ``shiplap`` runs, so no import here may cost time.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself takes ten times as long: it makes enums
import atexit
import os

_NAMES = {_signal.SIGINT: "SIGINT", _signal.SIGTERM: "SIGTERM", _signal.SIGHUP: "SIGHUP"}


def heed() -> None:
    """Heed signals from here to the end of the process. One that is ignored stays ignored."""
    for number in _NAMES:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, _end)
    # Registered first, so called last, when all threads have ended. Then the interpreter is taken down, which gives signals
    # their own effect again: one that comes so late would end as killed a command that has told its result.
    atexit.register(_ignore)


def _end(number: int, _frame: object) -> None:
    try:
        os.write(2, f"ERROR: canceled by {_NAMES[number]} [interrupted]\n".encode())
    except OSError:
        pass
    os._exit(128 + number)


def _ignore() -> None:
    for number in _NAMES:
        _signal.signal(number, _signal.SIG_IGN)
