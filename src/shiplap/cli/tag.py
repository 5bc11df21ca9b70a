"""``shiplap tag SOURCE TARGET``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of


def run(name: str, argv: list[str]) -> int:
    """Give an image a further name."""
    p = Parser("tag", "Give an image a further name.")
    p.add_argument("source")
    p.add_argument("target")
    options = p.parse_args(argv)
    from shiplap.api.images import tag

    tag(options.source, options.target, settings_of(options))
    return 0
