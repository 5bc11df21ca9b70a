"""``shiplap verify``: builds twice and says what differs; takes the flags of build. Exit 0 the same, 1 not, 2 trouble."""

from __future__ import annotations

import argparse
import json
import os

from shiplap.cli.build import parser, request_of
from shiplap.cli.ending import cancelling
from shiplap.cli.parsing import settings_of
from shiplap.cli.view import progress_mode, view
from shiplap.errors import Interrupted, ShiplapError

_NO_EFFECT = {
    *("tag", "output", "load", "push", "no_cache", "no_cache_filter", "iidfile", "metadata_file"),
    *("check", "call", "reproducible"),
}
"""Flags of build that change nothing here. They are taken, so that the command line of a build can be, as it is."""


def run(name: str, argv: list[str]) -> int:
    """Verify that a build is reproducible."""
    p = parser(
        "verify",
        "Build twice, with --reproducible and without the cache, and compare: says which step makes which file\n"
        "differ. Takes the flags of build (some change nothing here, and are not listed); nothing is pushed or written.\n"
        "Exit status: 0 both are the same, 1 they differ, 2 trouble.",
    )
    for action in p._actions:
        if action.dest in _NO_EFFECT:
            action.help = argparse.SUPPRESS
    p.add_argument("--format", default="text", choices=("text", "json"), help="how differences are shown")
    p.epilog = "example:\n  shiplap verify --build-arg V=2 ."
    options = p.parse_args(argv)
    settings = settings_of(options)
    request = request_of(options, settings)
    mode = "quiet" if options.quiet else progress_mode(options.progress, settings)
    from shiplap.api.isolation import enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    from shiplap.api.differing import plain_difference
    from shiplap.api.verifying import verify

    try:
        with view(mode, settings) as sink, cancelling() as cancel:
            found = verify(request, events=sink, cancel=cancel)
    except Interrupted:
        raise
    except ShiplapError as error:
        error.exit_status = 2  # type: ignore[misc]
        raise
    if options.format == "json":
        told = {
            "same": found.same,
            "digests": list(found.digests),
            "differences": [plain_difference(difference) for difference in found.differences],
        }
        print(json.dumps(told, indent=2))
    elif found.same:
        print(f"reproducible: {found.digests[0]}, both times")
    else:
        from shiplap.cli.diff import difference_lines
        from shiplap.events.printable import printable

        if not found.differences:
            print(f"the images are the same, what is attested of them is not: {found.digests[0]}, {found.digests[1]}")
        for difference in found.differences:
            for line in difference_lines(difference):
                print(printable(line))
    return 0 if found.same else 1
