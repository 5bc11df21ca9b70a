"""Flags of instructions, ``--name[=value]`` (reference 1.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.suggest import did_you_mean, nearest

TEXT, BOOLEAN, LIST = "text", "boolean", "list"


class Flags:
    """The flags of one instruction, checked against what it knows."""

    __slots__ = ("_lists", "_texts")

    def __init__(self, given: Sequence[str], known: Mapping[str, str]) -> None:
        self._texts: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}
        for flag in given:
            name, equals, value = flag.partition("=")
            key = name[2:]
            kind = known.get(key)
            if kind is None:
                names = sorted(known)
                match = nearest(key, names)
                raise Fault(
                    f"unknown flag: {name}{did_you_mean(key, names)}",
                    code="unknown-flag",
                    hint=f"--{match}" if match else _flags(names),
                    at=name,
                )
            if kind != LIST and key in self._texts:
                raise Fault(f"duplicate flag specified: {name}", code="duplicate-flag", hint="give it once", at=name)
            if (not equals and kind != BOOLEAN) or (kind == BOOLEAN and equals and not value):
                raise Fault(
                    f"missing a value on flag: {name}", code="missing-flag-value", hint=f"write {name}=value", at=name
                )
            if kind == LIST:
                self._lists.setdefault(key, []).append(value)
                continue
            if kind == BOOLEAN:
                value = value.lower() or "true"
                if value not in ("true", "false"):
                    shown = flag.partition("=")[2]
                    raise Fault(
                        f"expecting boolean value for flag {name}, not: {shown}",
                        code="invalid-flag-value",
                        hint="write true or false",
                        at=flag,
                    )
            self._texts[key] = value

    def text(self, name: str, default: str = "") -> str:
        return self._texts.get(name, default)

    def truth(self, name: str) -> bool | None:
        """True, False, or None if the flag was not given."""
        value = self._texts.get(name)
        return None if value is None else value == "true"

    def list(self, name: str) -> tuple[str, ...]:
        return tuple(self._lists.get(name, ()))


def _flags(names: Sequence[str]) -> str:
    return "its flags are " + ", ".join(f"--{name}" for name in names) if names else "this instruction has no flags"
