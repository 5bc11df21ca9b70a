"""``shiplap prune``."""

from __future__ import annotations

import os
import re

from shiplap.cli.parsing import Parser, settings_of
from shiplap.errors import UsageError


def run(name: str, argv: list[str]) -> int:
    """Remove what no image needs."""
    p = Parser("prune", "Remove cached steps and blobs that no image needs. Waits until no build runs.")
    p.add_argument("-a", "--all", action="store_true", help="images without a name and cache mounts too")
    p.add_argument("-f", "--force", action="store_true", help="always so: accepted for habit's sake")
    p.add_argument(
        "--filter", action="append", default=[], metavar="until=24h", help="only what was not used for so long"
    )
    options = p.parse_args(argv)
    settings = settings_of(options)
    older = max((_until(text) for text in options.filter), default=0.0)
    from shiplap.api.isolation import enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    from shiplap.api.images import prune
    from shiplap.events.plain import size_text

    print(f"freed {size_text(prune(settings, everything=options.all, older_than=older))}")
    return 0


def _until(text: str) -> float:
    match = re.fullmatch(r"until=(\d+)([smhd])", text)
    if match is None:
        raise UsageError(f"cannot read the filter {text!r}", code="bad-command-line", hint="--filter until=24h")
    return int(match.group(1)) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match.group(2)]
