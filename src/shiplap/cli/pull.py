"""``shiplap pull NAME...``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of, write_error
from shiplap.events.plain import PlainView


def run(name: str, argv: list[str]) -> int:
    """Get images from registries."""
    p = Parser("pull", "Get images from their registries into the store.")
    p.add_argument("--platform", default="", help="os/architecture[/variant] (default: this machine's)")
    p.add_argument("-q", "--quiet", action="store_true", help="print digests alone")
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    from shiplap.api.transfer import pull

    sink = (lambda fact: None) if options.quiet else PlainView(write_error)
    for text in options.image:
        print(pull(text, options.platform, settings_of(options), sink).digest)
    return 0
