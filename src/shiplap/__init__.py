"""shiplap builds multi-stage Dockerfiles into OCI images. Names only: each is imported when first used."""

from __future__ import annotations

TYPE_CHECKING = (
    False  # typing takes longer to import than all else here, and until the command line has begun to run an
)
# interrupt would end in a traceback
if TYPE_CHECKING:
    from typing import Any

    from shiplap.api import Output, Request, Result, Secret, StageResult, build, enter_user_namespace
    from shiplap.errors import ShiplapError

__version__ = "0.1.0"
__all__ = [
    "Output",
    "Request",
    "Result",
    "Secret",
    "ShiplapError",
    "StageResult",
    "__version__",
    "build",
    "enter_user_namespace",
]

_HOMES = {
    "Output": "shiplap.api",
    "Request": "shiplap.api",
    "Result": "shiplap.api",
    "Secret": "shiplap.api",
    "StageResult": "shiplap.api",
    "build": "shiplap.api",
    "enter_user_namespace": "shiplap.api",
    "ShiplapError": "shiplap.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'shiplap' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
