"""Reads the records of builds (record.py), finished or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec

from shiplap.events.facts import BuildFinished, BuildStarted, Fact
from shiplap.events.record import SUFFIX, being_written, records


class Kept:
    """The record of one build."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name.removesuffix(SUFFIX).partition("-")[2]
        self.started: BuildStarted | None = None
        self.finished: BuildFinished | None = None

    def summarize(self) -> None:
        """Read how it began and how it ended, without what is in between."""
        with open(self.path, "rb") as file:
            first = _decode(file.readline())
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - (1 << 16), 0))
            last = _decode(file.read().rstrip(b"\n").rpartition(b"\n")[2])
        self.started = first if isinstance(first, BuildStarted) else None
        self.finished = last if isinstance(last, BuildFinished) else None

    def running(self) -> bool:
        """Whether its build runs."""
        return being_written(self.path)

    def facts(self, follow: Callable[[], None] | None = None) -> Generator[Fact, None, None]:
        """Its facts. With ``follow``, which is called while there is nothing new, until the build has ended."""
        with open(self.path, "rb") as file:
            rest = b""
            ending = False
            while True:
                line = file.readline()
                if line.endswith(b"\n"):
                    fact = _decode(rest + line)
                    rest = b""
                    if fact is not None:
                        yield fact
                    continue
                rest += line
                if follow is None or ending:
                    return
                # Once it no longer runs, what it wrote last may still be unread: one more look.
                ending = not self.running()
                if not ending:
                    follow()


def kept(directory: Path) -> list[Kept]:
    """The records in ``directory``, the newest last."""
    return [Kept(path) for path in records(directory)]


_decoder = msgspec.json.Decoder(Fact)  # made at import, where only one thread can be (oci.manifest.prepare)


def _decode(line: bytes) -> Fact | None:
    """A fact; None for a line that is none (cut off by a crash, or of a later version)."""
    try:
        fact: Fact = _decoder.decode(line)
    except msgspec.MsgspecError:
        return None
    return fact
