"""What the commands' parsers share."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import Any, BinaryIO, NoReturn

from shiplap.errors import UsageError
from shiplap.settings import Settings, load

_unseen = partial(argparse.RawDescriptionHelpFormatter, width=80)
"""Made for each flag, to see that its metavar can be shown: without a width it asks shutil for the terminal's, at 3 ms."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UsageErrors, with a suggestion where a flag is misspelt."""

    def __init__(self, name: str, description: str, **options: Any) -> None:
        super().__init__(
            prog=f"shiplap {name}",
            description=description,
            allow_abbrev=False,
            formatter_class=_unseen,
            **options,
        )
        self.add_argument(
            "--root",
            metavar="DIR",
            help="where shiplap keeps everything (default: SHIPLAP_ROOT, else the user's data directory)",
        )

    def format_help(self) -> str:
        """The text of ``--help``, as wide as the terminal."""
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        hint = f"{self.prog} --help"
        if message.startswith("unrecognized arguments: "):
            from difflib import get_close_matches

            wrong = message.split()[2].partition("=")[0]
            close = get_close_matches(wrong, [flag for action in self._actions for flag in action.option_strings], 1)
            hint = f"{close[0]} (or {self.prog} --help)" if close else hint
        raise UsageError(message, code="bad-command-line", hint=hint)


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings for a command line."""
    return load(os.environ, root=options.root)


def pairs(texts: list[str] | None, what: str) -> dict[str, str]:
    """``K=V`` flags as a dictionary."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{what} must be KEY=VALUE, not {text!r}", code="bad-command-line")
        found[key] = value
    return found


def table(rows: list[list[str]]) -> None:
    """Print rows in columns, as docker does."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_error(text: str) -> None:
    """Write progress to standard error, from any thread. If its reader has gone, the command ends; else all is well."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError as error:
        from shiplap.cli import ending

        # A terminal that hung up, a full disk: no reason to lose the build.
        ending.silence(sys.stderr.fileno())
        if isinstance(error, BrokenPipeError):
            ending.reader_has_gone()


def standard_input() -> BinaryIO:
    """Standard input. Raises UsageError if it is closed."""
    if sys.stdin is None:
        raise UsageError("standard input is closed", code="no-stdin", hint="redirect it from a file")
    return sys.stdin.buffer


def age(seconds: float) -> str:
    """``3 hours ago``."""
    for size, name in (
        (86400 * 365, "year"),
        (86400 * 30, "month"),
        (86400 * 7, "week"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "seconds ago"
