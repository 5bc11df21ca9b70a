"""``shiplap prune``."""

from __future__ import annotations

import argparse
import os
import sys

from shiplap.cli.parsing import Parser, settings_of
from shiplap.cli.sizes import parse_size

_EPILOG = """Nothing that a running build uses is removed, and none is kept waiting. Images with names stay: shiplap rmi forgets
them.

examples:
  shiplap prune                                   every cached step
  shiplap prune --filter until=24h                those not used for a day
  shiplap prune --max-used-space 10g              as many as must go, least recently used first
  shiplap prune --filter type=exec.cachemount     cache mounts alone
"""


def run(name: str, argv: list[str]) -> int:
    """Remove what no image needs."""
    p = Parser(name, "Remove cached steps and blobs that no image needs.", epilog=_EPILOG)
    add = p.add_argument
    add("-a", "--all", action="store_true", help="images without a name, cache mounts and remembered digests too")
    add("-f", "--force", action="store_true", help="do not ask (it asks only on a terminal)")
    add(
        "--filter",
        action="append",
        default=[],
        metavar="FILTER",
        help="only what it lets through: until=24h, type=KIND, id=ID, description~=WORDS, parents=ID, inuse, shared, "
        "private, mutable, immutable; several must all hold",
    )
    add(
        "--keep",
        "--reserved-space",
        "--keep-storage",
        default="",
        metavar="SIZE",
        help="this much may always stay: remove only what is over it, least recently used first",
    )
    add("--max-used-space", default="", metavar="SIZE", help="no more than this stays, least recently used goes first")
    add("--min-free-space", default="", metavar="SIZE", help="so much shall be free on the disk")
    add("--verbose", action="store_true", help="list what was removed")
    for habit in ("--builder", "--timeout"):
        p.add_argument(habit, default="", help=argparse.SUPPRESS)
    options = p.parse_args(argv)
    settings = settings_of(options)
    reserved, most, free = (
        parse_size(text, flag)
        for text, flag in (
            (options.keep, "--keep"),
            (options.max_used_space, "--max-used-space"),
            (options.min_free_space, "--min-free-space"),
        )
    )
    from shiplap.api.isolation import enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    from shiplap.api.space import prune, wanted
    from shiplap.events.plain import size_text

    what = wanted(options.filter, everything=options.all, reserved=reserved, most=most, free=free)
    if not options.force and not _agreed(options.all):
        return 0
    removed = prune(settings, what)
    if options.verbose:
        for record in removed.records:
            print(f"{record.id[:24]:<24}  {record.kind:<20}  {size_text(record.size):>9}  {record.about}")
    print(f"removed {len(removed.records)}, freed {size_text(removed.bytes)}")
    return 0


def _agreed(everything: bool) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    what = "all build cache" if everything else "all cached steps that no image needs"
    return input(f"This removes {what} that the filters and limits let go. Go on? [y/N] ").strip().lower() in (
        "y",
        "yes",
    )
