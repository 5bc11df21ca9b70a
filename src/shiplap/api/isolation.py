"""How this process may isolate steps: chosen once, when the first RUN needs it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from shiplap.errors import SandboxError
from shiplap.settings import Settings

if TYPE_CHECKING:
    from shiplap.sandbox.detect import Memory
    from shiplap.sandbox.spec import Runtime

_state: dict[str, bool] = {"single": False}


def runtime_for(isolation: str, settings: Settings, memory: Memory | None = None) -> Callable[[], Runtime]:
    """A function that gives the runtime for ``isolation`` (auto, native, oci), the same one each time.

    ``memory``: where it is kept for other processes that one works.

    It raises SandboxError(code="no-user-namespace") in an ordinary user's program that has not entered one: entering
    changes who the whole process is, so that is for the program to say, not for a library to do behind its back.
    """
    lock = threading.Lock()
    chosen: list[Runtime] = []

    def runtime() -> Runtime:
        if os.geteuid() != 0:
            raise SandboxError(
                "an ordinary user's program has to enter a user namespace before it can isolate a step",
                code="no-user-namespace",
                hint="call shiplap.enter_user_namespace() first thing, before any thread starts",
            )
        with lock:
            if not chosen:
                from shiplap.sandbox.detect import choose

                chosen.append(choose(isolation, settings.root, settings.snapshots, memory))
            return chosen[0]

    return runtime


def begin(network: bool) -> None:
    """Have the sandbox's processes, and with ``network`` its isolated network, begin to start for the first step of this
    process; harmless if none comes. After ``enter_user_namespace``, if that is needed.
    """
    from shiplap.sandbox import spawn

    spawn.begin(network)


def enter_user_namespace() -> None:
    """Let an ordinary user's process become root of a user namespace of its own; nothing happens to root's.

    Call it once, before any thread starts. Files it then makes for ids other than 0 belong to the user's range in
    /etc/subuid. Raises SandboxError (no-userns), saying what forbids it on this machine.
    """
    from shiplap.sandbox.userns import enter_user_namespace as enter

    _state["single"] = enter().single


def single_id() -> bool:
    """True if this process entered a user namespace in which only one user id is mapped."""
    return _state["single"]
