"""The entry point: finds the command, lets it run, shows errors. Imports nothing heavy before it knows what is asked."""

from __future__ import annotations

import os
import sys

from shiplap import __version__

TYPE_CHECKING = False  # what is imported up here is imported before signals are heeded (early.py)
if TYPE_CHECKING:
    from typing import TextIO

# name -> (module, one line of help). The order is that of the help text.
COMMANDS = {
    "build": ("build", "Build an image from a Dockerfile"),
    "run": ("run", "Run a command in a new container from an image"),
    "images": ("images", "List the images of the store"),
    "inspect": ("inspect", "Show an image's manifest and config"),
    "diff": ("diff", "Show how two images differ: by step, file and byte"),
    "verify": ("verify", "Build twice, and say which step makes which file differ"),
    "history": ("history", "Show how an image was made"),
    "logs": ("logs", "Show what the steps of a build wrote"),
    "tag": ("tag", "Give an image a further name"),
    "rmi": ("rmi", "Forget names of images"),
    "save": ("save", "Write images to an archive"),
    "load": ("load", "Read images from an archive"),
    "imagetools create": ("imagetools", "Make an image of others, without a build"),
    "imagetools inspect": ("imagetools", "Show an image in a registry, or anywhere else"),
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
    "builder inspect": ("builder", "Say which platforms this machine can run, and how"),
    "builder build": ("build", "The same as shiplap build"),
    "builder prune": ("prune", "The same as shiplap prune"),
    "buildx build": ("build", "The same as shiplap build"),
    "buildx b": ("build", "The same as shiplap build"),
    "buildx create": ("buildx", "Keep a name for a builder; it is started nowhere"),
    "buildx inspect": ("buildx", "Show a builder, and the platforms it builds for"),
    "buildx ls": ("buildx", "List the builders"),
    "buildx use": ("buildx", "Choose the current builder"),
    "buildx rm": ("buildx", "Forget builders"),
    "buildx stop": ("buildx", "Nothing to stop: succeeds if the builder is known"),
    "buildx du": ("du", "The same as shiplap du"),
    "buildx prune": ("prune", "The same as shiplap prune"),
    "buildx version": ("version", "The same as shiplap version"),
}
# first word -> what its commands are for; their names are two words in COMMANDS.
FAMILIES = {
    "imagetools": "Make images of images, and look into them where they are: shiplap imagetools create, inspect",
    "builder": "What this machine can build: shiplap builder inspect",
    "buildx": "For scripts written for docker buildx: shiplap buildx create, ls, use, build, ...",
}


def run() -> None:
    """Console script: run the command line and exit."""
    from shiplap.cli import early

    early.heed()
    import gc

    # Looking for cycles costs a short command 5 % of its time (7 of 140 ms, nearly all while importing), and finds next to
    # nothing: it is done a hundred times more rarely.
    gc.set_threshold(70_000, 20, 20)
    status = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not _flushes(stream):
            status = status or 1
    # All is cleaned up. Nothing that is left may hold us up: a thread that reads from a silent server, or the
    # interpreter taking itself apart (15 ms).
    os._exit(status)


def main(argv: list[str]) -> int:
    """Run one command line; the exit status."""
    name, rest = _split(argv)
    if name == "":
        print(usage())
        return 0 if not argv or argv[0] in ("-h", "--help", "help") else 2
    if name in FAMILIES:
        print(family_usage(name))
        return 0 if rest else 2
    if name not in COMMANDS:
        from difflib import get_close_matches

        if name in ("buildx bake", "bake"):
            print("shiplap: bake is not there yet: build each target with shiplap build", file=sys.stderr)
            return 2
        close = get_close_matches(name, [*COMMANDS, *FAMILIES], 1)
        print(f"shiplap: unknown command {name!r}" + (f" (did you mean {close[0]}?)" if close else ""), file=sys.stderr)
        print("try: shiplap --help", file=sys.stderr)
        return 2
    from shiplap.cli import ending

    ending.open_standard_descriptors()
    with ending.heeding():
        return _attempt(name, rest)


def _attempt(name: str, rest: list[str]) -> int:
    """Run a command; its exit status. From the first to the last of it a signal raises KeyboardInterrupt, which ends here."""
    from shiplap.cli import ending

    try:
        try:
            ending.begin()
            return _told(name, rest)
        finally:
            ending.over()
    except KeyboardInterrupt:
        return ending.interrupted()


def _told(name: str, rest: list[str]) -> int:
    """Run a command; its exit status. Whatever goes wrong is told in words."""
    from importlib import import_module

    from shiplap.cli import ending
    from shiplap.errors import Interrupted, ShiplapError, StepError

    try:
        command = import_module(f"shiplap.cli.{COMMANDS[name][0]}")
        status = int(command.run(name, rest))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
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
    from shiplap.errors import ShiplapError
    from shiplap.settings import load

    try:
        return load(os.environ).traceback
    except ShiplapError:
        return False


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """The command (of a family: two words) and its arguments; ``--root DIR`` may stand before it."""
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
    if name == "buildx" and "imagetools" in rest[:3]:
        position = rest.index("imagetools")
        name, rest = "imagetools", [*rest[:position], *rest[position + 1 :]]
    if name in FAMILIES:
        while rest and rest[0].startswith("-"):  # buildx's own flags: --builder NAME, --debug
            word = rest.pop(0)
            if word in ("-h", "--help"):
                return name, ["--help"]
            if word == "--builder" and rest:
                front += ["--builder", rest.pop(0)]
            elif word.startswith("--builder="):
                front.append(word)
        if not rest or rest[0] == "help":
            return name, rest
        name, rest = f"{name} {rest[0]}", rest[1:]
    return name, [*front, *rest]


def usage() -> str:
    """The text of ``shiplap --help``."""
    shown = {name: text for name, (_, text) in COMMANDS.items() if " " not in name} | FAMILIES
    width = max(map(len, shown)) + 2
    lines = [f"  {name:<{width}}{text}" for name, text in shown.items()]
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


def family_usage(family: str) -> str:
    """The text of ``shiplap buildx --help``."""
    shown = {name: text for name, (_, text) in COMMANDS.items() if name.startswith(f"{family} ")}
    width = max(map(len, shown)) + 2
    return "\n".join(
        (
            f"Usage: shiplap {family} COMMAND ...",
            "",
            f"{FAMILIES[family].partition(':')[0]}.",
            "",
            "Commands:",
            *(f"  {name:<{width}}{text}" for name, text in shown.items()),
        )
    )
