"""The entry point: finds the command, lets it run, shows errors. Imports nothing heavy before it knows what is asked."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TextIO

from shiplap import __version__
from shiplap.errors import Interrupted, ShiplapError, StepError

# name -> (module, one line of help). The order is that of the help text.
COMMANDS = {
    "build": ("build", "Build an image from a Dockerfile"),
    "buildx": ("build", "The same, for scripts: shiplap buildx build"),
    "run": ("run", "Run a command in a new container from an image"),
    "images": ("images", "List the images of the store"),
    "inspect": ("inspect", "Show an image's manifest and config"),
    "history": ("history", "Show how an image was made"),
    "logs": ("logs", "Show what the steps of a build wrote"),
    "tag": ("tag", "Give an image a further name"),
    "rmi": ("rmi", "Forget names of images"),
    "save": ("save", "Write images to an archive"),
    "load": ("load", "Read images from an archive"),
    "copy": ("copying", "Copy an image between store, registries, layouts, archives and Docker"),
    "import": ("importing", "Make an image from a root file system"),
    "pull": ("pull", "Get an image from a registry"),
    "push": ("push", "Send an image to a registry"),
    "login": ("login", "Log in to a registry"),
    "logout": ("login", "Forget a login"),
    "check": ("check", "Find what may be wrong in a Dockerfile, and mend it"),
    "graph": ("graph", "Draw the stages and operations of a Dockerfile"),
    "du": ("du", "Show what the store holds, in bytes"),
    "prune": ("prune", "Remove what no image needs"),
    "fsck": ("fsck", "Check the store, and repair it"),
    "doctor": ("doctor", "Say whether RUN works on this machine, how, and what would make it better"),
    "version": ("version", "Show the version"),
}


def run() -> None:
    """Console script: run the command line and exit."""
    status = main(sys.argv[1:])
    from shiplap.cli import ending

    if ending.was_told():
        # All is cleaned up. What is left of threads, a read from a silent server say, must not hold us up.
        os._exit(status)
    sys.exit(status)


def main(argv: list[str]) -> int:
    """Run one command line; the exit status."""
    name, rest = _split(argv)
    if name == "":
        print(usage())
        return 0 if not argv or argv[0] in ("-h", "--help", "help") else 2
    if name not in COMMANDS:
        from difflib import get_close_matches

        close = get_close_matches(name, COMMANDS, 1)
        print(f"shiplap: unknown command {name!r}" + (f" (did you mean {close[0]}?)" if close else ""), file=sys.stderr)
        print("try: shiplap --help", file=sys.stderr)
        return 2
    from shiplap.cli import ending

    ending.open_standard_descriptors()
    with ending.heeding():
        return _attempt(name, rest)


def _attempt(name: str, rest: list[str]) -> int:
    """Run a command; its exit status. Whatever goes wrong is told in words."""
    from shiplap.cli import ending

    try:
        command = import_module(f"shiplap.cli.{COMMANDS[name][0]}")
        status = int(command.run(name, rest))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return ending.interrupted()
    except ShiplapError as error:
        if isinstance(error, Interrupted) or (ending.was_told() and not isinstance(error, StepError)):
            return ending.interrupted()
        from shiplap.events.printable import printable

        # It may quote a Dockerfile, a registry or what a step wrote.
        ending.say(printable(error.render()))
        return error.exit_status
    except BrokenPipeError:
        return ending.broken_pipe()
    except OSError as error:
        if sys.stdout is not None and not _flushes(sys.stdout):
            ending.silence(1)
        ending.say(f"ERROR: {error} [system]\n  try: check permissions and free space")
        return 1
    except Exception as error:
        if _wants_traceback():
            raise
        ending.say(
            f"ERROR: {type(error).__name__}: {error} [internal]\n"
            "  this is a fault of shiplap; SHIPLAP_TRACEBACK=1 shows where: please report it"
        )
        return 70


def _flushes(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _wants_traceback() -> bool:
    from shiplap.settings import load

    try:
        return load(os.environ).traceback
    except ShiplapError:
        return False


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """The command and its arguments; ``--root DIR`` may stand before it, ``docker buildx build`` drops its ``build``."""
    front: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--root" and rest:
            front = ["--root", rest.pop(0)]
        elif word.startswith("--root="):
            front = [word]
        elif word == "--version":
            return "version", []
        else:
            return "", rest
    if not rest:
        return "", []
    name, *rest = rest
    if name == "help":
        return ("", []) if not rest else (rest[0], ["--help"])
    if name == "buildx":
        if not rest or rest[0] not in ("build", "b"):
            return ("buildx", ["--help"]) if not rest or rest[0].startswith("-") else (f"buildx {rest[0]}", [])
        rest = rest[1:]
    return name, [*front, *rest]


def usage() -> str:
    """The text of ``shiplap --help``."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        (
            f"shiplap {__version__}: builds multi-stage Dockerfiles into OCI images. No daemon, no root, no setup.",
            "",
            "Usage: shiplap [--root DIR] COMMAND ...",
            "",
            "Commands:",
            *lines,
            "",
            "shiplap COMMAND --help says more. Everything shiplap keeps lies under --root, else SHIPLAP_ROOT,",
            "else ~/.local/share/shiplap.",
        )
    )
