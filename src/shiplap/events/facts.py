"""Every fact of a build is one of these. Times are seconds since the epoch; ``step`` is a node digest or a transfer name."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class BuildStarted(msgspec.Struct, frozen=True, tag="build-started"):
    """A build began; ``log`` names its record in the store, empty if none is kept."""

    at: float
    context: str = ""
    dockerfile: str = ""
    target: str = ""
    tags: tuple[str, ...] = ()
    log: str = ""


class StepStarted(msgspec.Struct, frozen=True, tag="step-started"):
    """Work on a step began, or (``cached``) its earlier result was found. ``stage``: its name or number, if it has one."""

    step: str
    name: str
    at: float
    cached: bool = False
    file: str = ""
    line: int = 0
    stage: str = ""


class StepOutput(msgspec.Struct, frozen=True, tag="step-output"):
    """Bytes a step wrote; ``stream`` is 1 (standard output) or 2 (standard error)."""

    step: str
    stream: int
    data: bytes
    at: float


class StepFinished(msgspec.Struct, frozen=True, tag="step-finished"):
    """A step ended; ``error`` is empty if it went well, and says nothing about the step itself if it was ``canceled``."""

    step: str
    at: float
    seconds: float
    cached: bool = False
    error: str = ""
    canceled: bool = False


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Part of a step that counts: bytes of a blob pulled, pushed or written. ``total`` 0 = unknown."""

    step: str
    item: str
    current: int
    total: int
    at: float
    done: bool = False


class Warned(msgspec.Struct, frozen=True, tag="warning"):
    """Something the user should know; ``rule`` names a build check, where one found it."""

    message: str
    rule: str = ""
    file: str = ""
    line: int = 0
    url: str = ""


class BuildFinished(msgspec.Struct, frozen=True, tag="build-finished"):
    """The whole build ended."""

    at: float
    seconds: float
    steps_run: int
    steps_reused: int
    digest: str = ""
    error: str = ""
    canceled: bool = False


Fact = BuildStarted | StepStarted | StepOutput | StepFinished | Progress | Warned | BuildFinished

Sink = Callable[[Fact], None]
"""Takes facts as they happen, from any thread, and never raises."""
