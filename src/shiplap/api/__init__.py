"""Wires the rooms together and does nothing else: a build (Request -> Result), and what one does with its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shiplap.api.building import build
    from shiplap.api.isolation import enter_user_namespace
    from shiplap.api.request import Output, Request, Result, Secret, StageResult

__all__ = ["Output", "Request", "Result", "Secret", "StageResult", "build", "enter_user_namespace"]

_HOMES = {
    "build": "building",  # a module named as the function would take its place once it is imported
    "enter_user_namespace": "isolation",
    "Output": "request",
    "Request": "request",
    "Result": "request",
    "Secret": "request",
    "StageResult": "request",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'shiplap.api' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"shiplap.api.{home}"), name)
