"""``shiplap images``."""

from __future__ import annotations

import json
import time

from shiplap.cli.parsing import Parser, age, settings_of, table


def run(name: str, argv: list[str]) -> int:
    """List the images of the store."""
    p = Parser("images", "List the images of the store.")
    p.add_argument("-q", "--quiet", action="store_true", help="print digests alone")
    p.add_argument("--format", default="", choices=("", "json"), help="json: one object a line")
    options = p.parse_args(argv)
    from shiplap.api.images import list_images
    from shiplap.events.plain import size_text

    rows = list_images(settings_of(options))
    if options.quiet:
        print("".join(f"{row.digest}\n" for row in rows), end="")
    elif options.format == "json":
        for row in rows:
            print(json.dumps({field: getattr(row, field) for field in row.__struct_fields__}))
    else:
        lines = [["NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"]]
        for row in rows:
            created = age(time.time() - row.created)
            lines.append([row.name or "<none>", row.digest[7:19], row.platform, created, size_text(row.size)])
        table(lines)
    return 0
