"""``shiplap du``."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING

from shiplap.cli.parsing import Parser, age, settings_of, table
from shiplap.errors import UsageError

if TYPE_CHECKING:
    from shiplap.api.space import Record


def run(name: str, argv: list[str]) -> int:
    """Show what the store holds."""
    p = Parser(name, "Show what the store holds, in bytes.")
    p.add_argument("-v", "--verbose", action="store_true", help="everything there is to know of each record")
    p.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="FILTER",
        help="list the records it lets through: until=24h, type=KIND, id=ID, description~=WORDS, parents=ID, inuse, "
        "shared, private, mutable, immutable",
    )
    p.add_argument(
        "--format", default="", choices=("", "json", "table"), help="json: one record a line; table: in columns"
    )
    for habit in ("--builder", "--timeout"):
        p.add_argument(habit, default="", help=argparse.SUPPRESS)
    options = p.parse_args(argv)
    if options.format and options.verbose:
        raise UsageError("--format and --verbose cannot be used together", code="bad-command-line")
    settings = settings_of(options)
    from shiplap.api.isolation import enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    from shiplap.api.space import usage
    from shiplap.events.plain import size_text

    found = usage(settings, options.filter)
    if options.format == "json":
        for record in found.records:
            print(json.dumps(_fields(record)))
    elif options.verbose:
        print("\n".join(_block(record) for record in found.records), end="")
    elif options.format == "table" or options.filter:
        rows = [["ID", "RECLAIMABLE", "SIZE", "LAST USED", "TYPE"]]
        for record in found.records:
            used = age(max(time.time() - record.used, 0))
            rows.append([record.id[:25], str(not record.in_use).lower(), size_text(record.size), used, record.kind])
        table(rows)
    else:
        lines = [
            [line.kind, str(line.count), size_text(line.bytes), size_text(line.reclaimable)] for line in found.lines
        ]
        table([["KIND", "COUNT", "SIZE", "RECLAIMABLE"], *lines])
        print(f"\nin {settings.root}: {size_text(found.total)}")
    return 0


def _fields(record: Record) -> dict[str, object]:
    """As ``docker buildx du --format json`` names them."""
    return {
        "ID": record.id,
        "Parents": list(record.parents),
        "CreatedAt": _time(record.created),
        "Mutable": record.mutable,
        "Reclaimable": not record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "Description": record.about,
        "LastUsedAt": _time(record.used),
        "Type": record.kind,
    }


def _block(record: Record) -> str:
    from shiplap.events.plain import size_text

    lines = [("ID", record.id)]
    lines += [("Parent", parent) for parent in record.parents]
    lines += [
        ("Created at", _time(record.created)),
        ("Mutable", str(record.mutable).lower()),
        ("Reclaimable", str(not record.in_use).lower()),
        ("Shared", str(record.shared).lower()),
        ("Size", size_text(record.size)),
        ("Description", record.about),
        ("Last used", age(max(time.time() - record.used, 0))),
        ("Type", record.kind),
    ]
    return "".join(f"{title + ':':<14}{text}\n" for title, text in lines if text)


def _time(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
