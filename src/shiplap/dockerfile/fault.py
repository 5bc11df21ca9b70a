"""What is wrong, as the code that found it knows it; whoever knows the place makes a DockerfileError of it."""

from __future__ import annotations

from shiplap.errors import DockerfileError, Place


class Fault(Exception):
    """A mistake in a Dockerfile, without its place. Never leaves this room."""

    def __init__(self, message: str, *, code: str = "dockerfile", hint: str | None = None, at: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.at = at
        """The text to mark in the first line, if it stands there."""


class Source:
    """A Dockerfile's name and physical lines, for pointing at them."""

    __slots__ = ("lines", "name")

    def __init__(self, name: str, lines: list[str]) -> None:
        self.name = name
        self.lines = lines

    def place(self, line: int, end_line: int | None = None, at: str = "") -> Place:
        """The lines from ``line`` to ``end_line`` (1-based, inclusive; at most twelve are shown)."""
        end = max(line, end_line or line)
        shown = tuple(text[:400].rstrip("\r\n") for text in self.lines[line - 1 : min(end, line + 11)])
        marker = None
        if at and shown and (column := shown[0].find(at)) >= 0:
            marker = (column, len(at))
        return Place(self.name, line, end, shown, marker)

    def error(self, fault: Fault, line: int, end_line: int | None = None, *, prefix: str = "") -> DockerfileError:
        return DockerfileError(
            prefix + fault.message, code=fault.code, where=self.place(line, end_line, fault.at), hint=fault.hint
        )
