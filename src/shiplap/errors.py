"""Everything that can go wrong, as one tree.

    ShiplapError                 exit 1
    ├── UsageError               exit 2    the command line or the request makes no sense
    ├── DockerfileError          exit 1    the text is wrong: file, line, the lines themselves
    ├── ContextError             exit 1    the build context cannot be read, or lacks a file
    ├── StepError                exit 1    a RUN step ended with a status other than 0
    ├── SandboxError             exit 1    a step could not be isolated or started
    ├── TreeError                exit 1    a path cannot be resolved, copied or walked
    ├── ImageError               exit 1    a manifest, config or layer is not what it should be
    ├── StoreError               exit 1    the store cannot be read or written
    ├── RegistryError            exit 1    a registry refused, failed or lied
    ├── ExportError              exit 1    the result cannot be written where it was asked for
    └── Interrupted              exit 130  the user asked to stop

Each has a kebab-case ``code`` that scripts may rely on, a ``where`` (file and line, or blob), a ``hint`` that says what
to try, and survives pickle, so that a step may fail on another machine.
"""

from __future__ import annotations

from typing import Any, ClassVar


class Place:
    """Where an error is: a line range of a file, or a blob.

    ``file`` is the path as the user wrote it; ``line`` and ``end_line`` are 1-based and inclusive; ``text`` holds the
    source lines from ``line`` on; ``marker`` is the 0-based column and the length, in the first line, of what is wrong.
    """

    __slots__ = ("blob", "end_line", "file", "line", "marker", "text")

    def __init__(
        self,
        file: str | None = None,
        line: int | None = None,
        end_line: int | None = None,
        text: tuple[str, ...] = (),
        marker: tuple[int, int] | None = None,
        blob: str | None = None,
    ) -> None:
        self.file = file
        self.line = line
        self.end_line = end_line if end_line is not None else line
        self.text = text
        self.marker = marker
        self.blob = blob

    def __str__(self) -> str:
        if self.file is None:
            return self.blob or ""
        if self.line is None:
            return self.file
        return f"{self.file}:{self.line}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and all(getattr(self, n) == getattr(other, n) for n in Place.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.file, self.line, self.end_line, self.text, self.marker, self.blob)


class ShiplapError(Exception):
    """The base of all errors a user may see. ``str()`` is the message alone; ``render`` shows place and hint too."""

    default_code: ClassVar[str] = "shiplap"
    exit_status: ClassVar[int] = 1

    def __init__(
        self, message: str, *, code: str | None = None, where: Place | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.where = where
        self.hint = hint
        self.platform = ""
        """Where a build for several platforms failed for one of them: that one, or ``linux/amd64->arm64``."""

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))

    def render(self) -> str:
        """The error as a terminal shows it: message, place with its lines and a marker, hint."""
        lines = [f"ERROR: {self.message} [{self.code}]"]
        place = self.where
        if place is not None and str(place):
            lines.append(f"  --> {place}" + (f", for {self.platform}" if self.platform else ""))
            width = len(str((place.line or 0) + max(len(place.text) - 1, 0)))
            for offset, text in enumerate(place.text):
                number = (place.line or 0) + offset
                lines.append(f"  {number:>{width}} | {text}")
                if offset == 0 and place.marker is not None:
                    column, length = place.marker
                    lines.append(f"  {'':>{width}} | {' ' * column}{'^' * max(length, 1)}")
        lines.extend(self.details())
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)

    def details(self) -> list[str]:
        """Further lines for ``render``, between place and hint."""
        return []


_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def quote(text: str) -> str:
    """``text`` on one line of a message, as Go's ``%q`` has it, which BuildKit's messages are written with."""
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif "\udc80" <= char <= "\udcff":
            out.append(f"\\x{ord(char) - 0xDC00:02x}")
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'


def _rebuild(kind: type[ShiplapError], args: tuple[Any, ...], state: dict[str, Any]) -> ShiplapError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(ShiplapError):
    """The command line or the request makes no sense."""

    default_code = "usage"
    exit_status = 2


class DockerfileError(ShiplapError):
    """The Dockerfile is wrong; ``where`` names file and line and carries the lines."""

    default_code = "dockerfile"


class ContextError(ShiplapError):
    """The build context cannot be read, or lacks what the Dockerfile asks for."""

    default_code = "context"


class StepError(ShiplapError):
    """A RUN step ended with ``status`` (0..255, or 128 + signal); ``output`` holds its last lines."""

    default_code = "step-failed"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        output: tuple[str, ...] = (),
        step: str = "",
        code: str | None = None,
        where: Place | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, where=where, hint=hint)
        self.status = status
        self.output = output
        self.step = step

    def details(self) -> list[str]:
        if not self.output:
            return []
        return ["  last output:", *(f"    {line}" for line in self.output)]


class SandboxError(ShiplapError):
    """A step could not be isolated or started on this machine."""

    default_code = "sandbox"


class TreeError(ShiplapError):
    """A path cannot be resolved, copied or walked."""

    default_code = "tree"


class ImageError(ShiplapError):
    """A manifest, config or layer is not what it should be."""

    default_code = "image"


class StoreError(ShiplapError):
    """The store cannot be read or written."""

    default_code = "store"


class RegistryError(ShiplapError):
    """A registry refused, failed or lied. ``status`` is the HTTP status, 0 if there was no answer."""

    default_code = "registry"

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str | None = None,
        where: Place | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code=code, where=where, hint=hint)
        self.status = status


class ExportError(ShiplapError):
    """The result cannot be written where it was asked for."""

    default_code = "export"


class Interrupted(ShiplapError):
    """The user asked to stop."""

    default_code = "interrupted"
    exit_status = 130
