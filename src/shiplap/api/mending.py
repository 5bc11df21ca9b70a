"""What a build does about damage in the store, a full disk and a full store: mend it, or say what is the matter."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from shiplap.errors import ExportError, Interrupted, ShiplapError, StoreError

if TYPE_CHECKING:
    from shiplap.store.room import Room

_MENDED = frozenset({"blob-corrupt", "blob-missing", "snapshot-missing", "snapshot-damaged", "snapshot-changed"})
"""Codes of errors after which building again is the remedy: what was damaged has been removed when they are raised."""
MOST_REPAIRS = 100
_SLICE = 0.05


class Halt(threading.Event):
    """Set when the build is to stop: because somebody set ``outer``, or because a part of it failed."""

    def __init__(self, outer: threading.Event) -> None:
        super().__init__()
        self._outer = outer

    def is_set(self) -> bool:
        return super().is_set() or self._outer.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        end = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = _SLICE if end is None else min(end - time.monotonic(), _SLICE)
            if left <= 0:
                return False
            super().wait(left)
        return True


class Repairs:
    """What was found damaged in the course of one build."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def may_repeat(self, error: StoreError) -> bool:
        """Whether the build is to be done again after ``error``: once for each thing that is found damaged."""
        if error.code not in _MENDED or error.message in self._seen or len(self._seen) >= MOST_REPAIRS:
            return False
        self._seen.add(error.message)
        return True


@contextmanager
def explaining(root: Path, room: Room, cancel: threading.Event) -> Iterator[None]:
    """Turn what a full disk or a full store leads to into the error that says so. ``cancel`` is the user's."""
    try:
        yield
    except Interrupted:
        if room.fault is not None and not cancel.is_set():
            raise room.fault from None
        raise
    except (OSError, ShiplapError) as error:
        if room.fault is not None:
            raise room.fault from error
        if isinstance(error, ExportError):
            raise  # it was not the store that is full
        cause = _no_space(error)
        if cause is None or (isinstance(error, StoreError) and error.code in ("disk-full", "store-full")):
            raise
        from shiplap.store.room import write_fault

        full = write_fault(cause, root)
        full.where = error.where if isinstance(error, ShiplapError) and error.where is not None else None
        raise full from error


def _no_space(error: BaseException) -> OSError | None:
    """The refusal for want of space that ``error`` comes from, if it does."""
    found: BaseException | None = error
    for _ in range(10):
        if found is None:
            return None
        if isinstance(found, OSError) and found.errno in (errno.ENOSPC, errno.EDQUOT):
            return found
        found = found.__cause__ or found.__context__
    return None
