"""``shiplap builder inspect``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shiplap.cli.parsing import Parser, settings_of, table
from shiplap.errors import SandboxError
from shiplap.settings import Settings

if TYPE_CHECKING:
    from shiplap.api.platforms import PlatformReport

HOW = {
    "native": "this processor",
    "host": "an emulator registered on this machine",
    "emulator": "an emulator of the step's own",
    "": "no",
}


def run(name: str, argv: list[str]) -> int:
    """Say which platforms this machine can run, and how."""
    p = Parser(
        "builder inspect",
        "Say which platforms RUN works for on this machine, and how: each is tried with a tiny program.",
        epilog="exit status: 0 if RUN works for some platform, 1 if it does not",
    )
    p.add_argument("--format", default="text", choices=("text", "json"), help="json: one object, for scripts")
    p.add_argument("--isolation", default="auto", choices=("auto", "oci", "native"), help="how steps are isolated")
    options = p.parse_args(argv)
    found = tried(settings_of(options), options.isolation)
    if options.format == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode({"platforms": found})).decode())
    else:
        rows = [
            [each.platform, f"{HOW[each.how]}{f': {each.program}' if each.how and each.program else ''}"]
            for each in found
        ]
        table([["PLATFORM", "RUN BY"], *rows])
        for line in dict.fromkeys(line for each in found if not each.how for line in _why(each)):
            print(line)
    return 0 if any(each.how for each in found) else 1


def tried(settings: Settings, isolation: str = "auto") -> tuple[PlatformReport, ...]:
    """The platforms, each tried; an ordinary user's process enters a user namespace for it."""
    from shiplap.api.platforms import platforms

    if os.geteuid() != 0:
        from shiplap.api.isolation import enter_user_namespace

        try:
            enter_user_namespace()
        except SandboxError as error:
            from shiplap.api.platforms import nothing_runs

            return nothing_runs(error)
    return platforms(settings, isolation)


def _why(each: PlatformReport) -> list[str]:
    return [f"\n{each.platform}: {each.reason}", *([f"  try: {each.fix}"] if each.fix else [])]
