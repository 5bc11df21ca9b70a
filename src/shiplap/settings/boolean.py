"""Yes and no, as docker's tools spell them: in the environment, in flags and in Dockerfiles."""

from __future__ import annotations

_VALUES = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True)
_VALUES.update(dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False))


def parse_bool(text: str) -> bool | None:
    """``strconv.ParseBool`` of Go; None where that has an error."""
    return _VALUES.get(text)
