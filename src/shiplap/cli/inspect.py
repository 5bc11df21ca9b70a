"""``shiplap inspect IMAGE...``."""

from __future__ import annotations

import json

from shiplap.cli.copying import PLACES
from shiplap.cli.parsing import Parser, settings_of


def run(name: str, argv: list[str]) -> int:
    """Show images as JSON."""
    p = Parser("inspect", f"Show name, manifest and config of images as JSON.\n\n{PLACES}")
    p.add_argument("--platform", default="", help="of an index: os/architecture[/variant] (default: this machine's)")
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    from shiplap.api.looking import inspect

    settings = settings_of(options)
    print(json.dumps([inspect(text, settings, options.platform) for text in options.image], indent=2))
    return 0
