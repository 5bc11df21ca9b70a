"""``shiplap verify``: builds twice and says what differs; takes the flags of build. Exit 0 the same, 1 not, 2 trouble."""

from __future__ import annotations

import json
import os

from shiplap.cli.build import parser, request_of
from shiplap.cli.ending import cancelling
from shiplap.cli.parsing import settings_of
from shiplap.cli.view import progress_mode, view
from shiplap.errors import Interrupted, ShiplapError


def run(name: str, argv: list[str]) -> int:
    """Verify that a build is reproducible."""
    p = parser(
        "verify",
        "Build twice, with --reproducible and without the cache, and compare: says which step makes which file\n"
        "differ. Takes the flags of build; nothing is pushed or written. Exit status: 0 both are the same, 1 they differ,\n"
        "2 trouble.",
    )
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

        for difference in found.differences:
            for line in difference_lines(difference):
                print(printable(line))
    return 0 if found.same else 1
