"""Which platforms this machine can run the steps of a build for, and how; each was tried."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from shiplap.api.isolation import runtime_for
from shiplap.errors import SandboxError
from shiplap.oci.platform import native_platform
from shiplap.settings import Settings

if TYPE_CHECKING:
    from shiplap.sandbox.emulation import Way


class PlatformReport(msgspec.Struct, frozen=True, kw_only=True):
    """One platform. ``how``: ``native``; ``host``: by an emulator that the machine has registered; ``emulator``: by one
    that each step is given for itself; empty: RUN does not work for it, for this ``reason``, and ``fix`` helps."""

    platform: str
    how: str
    program: str = ""
    """Path of the emulator, if it is known."""
    reason: str = ""
    fix: str = ""


def platforms(settings: Settings, isolation: str = "auto") -> tuple[PlatformReport, ...]:
    """Try every platform that shiplap knows an emulator for, the machine's own first (half a second or so).

    As root, or in a process that has entered a user namespace: an ordinary user's that has not, or a machine where no
    step can be isolated, gets a report on its own platform alone, saying so.
    """
    os.makedirs(settings.root, 0o700, exist_ok=True)  # the disk that steps would run on
    try:
        runtime = runtime_for(isolation, settings)()
    except SandboxError as error:
        return nothing_runs(error)
    from shiplap.sandbox.emulation import ways

    return reports(ways(runtime, settings.root, settings.helper_path))


def nothing_runs(error: SandboxError) -> tuple[PlatformReport, ...]:
    """The report on a machine where no step can be isolated."""
    own = PlatformReport(platform=str(native_platform()), how="", reason=error.message, fix=error.hint or "")
    return (own,)


def reports(ways: Iterable[Way]) -> tuple[PlatformReport, ...]:
    """The platforms of architectures, with their variants."""
    from shiplap.sandbox.emulation import platforms as variants

    return tuple(
        PlatformReport(platform=str(each), how=way.how, program=way.program, reason=way.reason, fix=way.fix)
        for way in ways
        for each in variants(way.architecture)
    )
