"""A build's record: every fact as a JSON line, in a file of its own, written as the facts happen.

The directory is the caller's. A file is named ``<nanoseconds since 1970>-<id>.jsonl``, so names sort by time, and is
locked (flock) as long as its build runs. Records are bounded: in number, in bytes of all, in bytes of one.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import msgspec

from shiplap.events.facts import BuildFinished, Fact, Sink, StepFinished, StepOutput, StepStarted

SUFFIX = ".jsonl"
_SHARE = 4
"""The part of all bytes that one build may fill: a quarter."""


class Record:
    """Writes facts to a new file of ``directory`` and passes them on to ``sink``, in one order for all threads.

    ``builds`` and ``size``: how many records, and how many bytes of them all, are kept; the oldest go when this one ends.
    A record that cannot be written (a full disk) ends early and never disturbs the build.
    """

    def __init__(self, directory: Path, sink: Sink, *, builds: int, size: int) -> None:
        self.id = ""
        """What the record is asked for by; empty if there is none."""
        self._directory = directory
        self._sink = sink
        self._builds = builds
        self._size = size
        self._left = size // _SHARE
        self._lock = threading.Lock()
        self._encode = msgspec.json.Encoder().encode
        self._numbers: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._fd = -1
        if builds > 0 and size > 0:
            self._open()

    def _open(self) -> None:
        id = os.urandom(3).hex()
        path = self._directory / f"{time.time_ns():019d}-{id}{SUFFIX}"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError:
            return
        self.id = id

    def __call__(self, fact: Fact) -> None:
        with self._lock:
            if isinstance(fact, StepStarted):
                self._numbers.setdefault(fact.step, len(self._numbers) + 1)
            elif isinstance(fact, StepFinished) and fact.error and not fact.canceled:
                self._failures[fact.error] = self._numbers.get(fact.step, 0)
            if self._fd >= 0:
                self._write(fact)
            self._sink(fact)
            if isinstance(fact, BuildFinished):
                self.close()

    def failed(self, error: str) -> int:
        """The number of the step that failed with ``error``; 0 if none did."""
        return self._failures.get(error, 0)

    def close(self) -> None:
        """End the record, and remove the oldest ones if there are too many."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            trim(self._directory, self._builds, self._size)

    def _write(self, fact: Fact) -> None:
        if isinstance(fact, StepOutput):
            if self._left <= 0:
                return
            self._left -= 96 + len(fact.data) * 4 // 3  # as base64
            if self._left <= 0:
                fact = msgspec.structs.replace(fact, data=b"\n[the log of this build is full: SHIPLAP_LOG_SIZE]\n")
        data = memoryview(self._encode(fact) + b"\n")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            os.close(self._fd)
            self._fd = -1


def trim(directory: Path, builds: int, size: int) -> None:
    """Remove the oldest records of builds that have ended, until at most ``builds`` with ``size`` bytes are left."""
    paths = records(directory)
    sizes = []
    for path in paths:
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            sizes.append(0)
    count, total = len(paths), sum(sizes)
    for path, own in zip(paths[:-1], sizes):
        if count <= builds and total <= size:
            return
        if not being_written(path):
            path.unlink(missing_ok=True)
            count -= 1
            total -= own


def records(directory: Path) -> list[Path]:
    """The records in ``directory``, the newest last."""
    try:
        return [directory / name for name in sorted(os.listdir(directory)) if name.endswith(SUFFIX)]
    except OSError:
        return []


def being_written(path: Path) -> bool:
    """Whether the build that this is the record of still runs."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
