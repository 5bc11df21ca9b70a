"""``shiplap save -o FILE IMAGE...``."""

from __future__ import annotations

import sys

from shiplap.cli.parsing import Parser, settings_of
from shiplap.errors import UsageError


def run(name: str, argv: list[str]) -> int:
    """Write images to an archive."""
    p = Parser(
        "save", "Write images, under all the names given, to one archive that docker load, podman load and skopeo read."
    )
    p.add_argument("-o", "--output", default="-", metavar="FILE", help="default: standard output")
    p.add_argument("--format", default="docker", choices=("docker", "oci"), help="docker (also readable as OCI) or oci")
    p.add_argument("--platform", default="", help="this platform alone (default: all that the store has)")
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    if options.output == "-" and sys.stdout.isatty():
        raise UsageError("refusing to write an archive to a terminal", code="output-is-terminal", hint="-o FILE")
    from shiplap.api.moving import save

    save(options.image, options.output, settings_of(options), options.format, platform=options.platform)
    return 0
