"""``shiplap rmi IMAGE...``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of


def run(name: str, argv: list[str]) -> int:
    """Forget names of images."""
    p = Parser("rmi", "Forget names of images; shiplap prune then frees what nothing needs any more.")
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    from shiplap.api.images import remove

    for removed in remove(options.image, settings_of(options)):
        print(f"Untagged: {removed}")
    return 0
