"""``shiplap rmi IMAGE...``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of
from shiplap.errors import UsageError


def run(name: str, argv: list[str]) -> int:
    """Forget names of images."""
    p = Parser("rmi", "Forget names of images; shiplap prune then frees what nothing needs any more.")
    p.add_argument("image", nargs="*")
    p.add_argument("-a", "--all", action="store_true", help="all names in the store")
    options = p.parse_args(argv)
    if options.all == bool(options.image):
        raise UsageError(
            "name the images to forget, or --all", code="bad-command-line", hint="shiplap images lists them"
        )
    from shiplap.api.images import remove

    for removed in remove(options.image or None, settings_of(options)):
        print(f"Untagged: {removed}")
    return 0
