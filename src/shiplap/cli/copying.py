"""``shiplap copy SOURCE TARGET``."""

from __future__ import annotations

import sys

from shiplap.cli.parsing import Parser, settings_of
from shiplap.cli.view import progress_mode, view
from shiplap.errors import UsageError

PLACES = """A place is NAME or store:NAME (shiplap's store), docker://HOST/NAME:TAG (a registry), oci:DIRECTORY[:TAG] or
oci-layout://DIRECTORY[:TAG|@DIGEST], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] (FILE may be -: standard input or
output), or docker-daemon:NAME (a running Docker or Podman)."""


def run(name: str, argv: list[str]) -> int:
    """Copy an image from place to place."""
    p = Parser("copy", f"Copy an image from place to place without unpacking it; digests stay.\n\n{PLACES}")
    p.add_argument("--platform", default="", help="copy this platform's image alone (os/architecture[/variant])")
    p.add_argument(
        "--all",
        action="store_true",
        help="all platforms: what is done anyway, but into docker-archive: and docker-daemon:, which take this machine's",
    )
    p.add_argument(
        "--referrers",
        action="store_true",
        help="also what refers to the image or to its platforms: signatures, attestations, bills of materials, and what refers "
        "to those; between registries, layouts and OCI archives",
    )
    p.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    p.add_argument(
        "--progress", default="", choices=("auto", "plain", "tty", "quiet", "rawjson"), help="how progress is shown"
    )
    p.add_argument("source")
    p.add_argument("target")
    options = p.parse_args(argv)
    if options.all and options.platform:
        raise UsageError("--all and --platform cannot be used together", code="bad-command-line")
    transport, *rest = options.target.split(":")
    streamed = transport in ("oci-archive", "docker-archive") and rest[:1] == ["-"]
    if streamed and sys.stdout.isatty():
        raise UsageError(
            "refusing to write an archive to a terminal", code="output-is-terminal", hint="FILE instead of -"
        )
    from shiplap.api.moving import copy

    settings = settings_of(options)
    mode = "quiet" if options.quiet else progress_mode(options.progress, settings)
    with view(mode, settings, "Copying") as sink:
        copied = copy(
            options.source,
            options.target,
            settings,
            sink,
            platform=options.platform,
            everything=options.all,
            referrers=options.referrers,
        )
    if not options.quiet and not streamed:
        print(copied.digest)
    return 0
