"""``shiplap inspect IMAGE...``."""

from __future__ import annotations

import json

from shiplap.cli.parsing import Parser, settings_of


def run(name: str, argv: list[str]) -> int:
    """Show images as JSON."""
    p = Parser("inspect", "Show name, manifest and config of images as JSON.")
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    from shiplap.api.images import inspect

    settings = settings_of(options)
    print(json.dumps([inspect(text, settings) for text in options.image], indent=2))
    return 0
