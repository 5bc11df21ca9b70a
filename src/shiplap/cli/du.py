"""``shiplap du``."""

from __future__ import annotations

import os

from shiplap.cli.parsing import Parser, settings_of, table


def run(name: str, argv: list[str]) -> int:
    """Show what the store holds."""
    p = Parser("du", "Show what the store holds.")
    options = p.parse_args(argv)
    settings = settings_of(options)
    from shiplap.api.isolation import enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    from shiplap.api.images import usage
    from shiplap.events.plain import size_text

    rows = usage(settings)
    table([["KIND", "COUNT", "SIZE"], *([row.kind, str(row.count), size_text(row.bytes)] for row in rows)])
    print(f"\nin {settings.root}: {size_text(sum(row.bytes for row in rows))}")
    return 0
