"""``shiplap history IMAGE``."""

from __future__ import annotations

import json

from shiplap.cli.copying import PLACES
from shiplap.cli.parsing import Parser, settings_of, table


def run(name: str, argv: list[str]) -> int:
    """Show how an image was made, newest step first."""
    p = Parser("history", f"Show how an image was made, newest step first.\n\n{PLACES}")
    p.add_argument("--platform", default="", help="of an index: os/architecture[/variant] (default: this machine's)")
    p.add_argument("--no-trunc", action="store_true", help="show whole lines")
    p.add_argument("--format", default="", choices=("", "json"), help="json: one object a line")
    p.add_argument("image")
    options = p.parse_args(argv)
    from shiplap.api.looking import history
    from shiplap.events.plain import size_text

    rows = history(options.image, settings_of(options), options.platform)
    if options.format == "json":
        for row in rows:
            print(json.dumps(row))
        return 0
    lines = [["CREATED", "CREATED BY", "SIZE", "COMMENT"]]
    for row in rows:
        text = row["created_by"].replace("\n", " ")
        shown = text if options.no_trunc or len(text) <= 60 else text[:59] + "…"
        lines.append([row["created"][:19], shown, size_text(row["size"]), row["comment"]])
    table(lines)
    return 0
