"""How this process may isolate steps: chosen once, when the first RUN needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from shiplap.settings import Settings

if TYPE_CHECKING:
    from shiplap.sandbox.spec import Runtime

_state: dict[str, bool] = {"single": False}


def runtime_for(isolation: str, settings: Settings) -> Callable[[], Runtime]:
    """A function that gives the runtime for ``isolation`` (auto, native, oci), the same one each time."""
    lock = threading.Lock()
    chosen: list[Runtime] = []

    def runtime() -> Runtime:
        with lock:
            if not chosen:
                from shiplap.sandbox.detect import choose

                chosen.append(choose(isolation, settings.root))
            return chosen[0]

    return runtime


def enter_user_namespace() -> None:
    """Let an ordinary user's process become root of a user namespace of its own. Call once, before any thread starts."""
    from shiplap.sandbox.userns import enter_user_namespace as enter

    _state["single"] = enter().single


def single_id() -> bool:
    """True if this process entered a user namespace in which only one user id is mapped."""
    return _state["single"]
