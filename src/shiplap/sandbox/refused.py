"""Why a step could not start, inside the helper, where the tree of errors is too heavy to load."""

from __future__ import annotations


class Refused(Exception):
    """Becomes a SandboxError with the same code, message and hint on the other side of the socket."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class NotExecutable(Exception):
    """The program is not there or cannot be run: the step's fault, so it fails as it would under BuildKit."""
