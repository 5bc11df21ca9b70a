"""Cases in one file: sections that begin with ``-- name --``. What stands before the first is a comment."""

from __future__ import annotations

import re

_MARK = re.compile(r"^-- (\S+) --\n", re.MULTILINE)


def read_txtar(text: str) -> dict[str, str]:
    """Section name to text, in order. The comment has the name "" ."""
    parts = _MARK.split(text)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2]))}


def write_txtar(sections: dict[str, str]) -> str:
    out = [sections.get("", "")]
    for name, text in sections.items():
        if name:
            out.append(f"-- {name} --\n{text if text.endswith(chr(10)) or not text else text + chr(10)}")
    return "".join(out)
