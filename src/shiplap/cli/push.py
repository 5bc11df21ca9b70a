"""``shiplap push NAME...``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of, write_error
from shiplap.events.plain import PlainView


def run(name: str, argv: list[str]) -> int:
    """Send images to registries."""
    p = Parser("push", "Send images of the store to the registries of their names.")
    p.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    from shiplap.api.transfer import push

    sink = (lambda fact: None) if options.quiet else PlainView(write_error)
    for text in options.image:
        push(text, settings_of(options), sink)
    return 0
