"""``shiplap push NAME...``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of
from shiplap.cli.view import progress_mode, view


def run(name: str, argv: list[str]) -> int:
    """Send images to registries."""
    p = Parser("push", "Send images of the store to the registries of their names.")
    p.add_argument(
        "--platform", default="", help="push this platform's image alone, not the index (os/architecture[/variant])"
    )
    p.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    p.add_argument(
        "--progress", default="", choices=("auto", "plain", "tty", "quiet", "rawjson"), help="how progress is shown"
    )
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    from shiplap.api.transfer import push

    settings = settings_of(options)
    mode = "quiet" if options.quiet else progress_mode(options.progress, settings)
    for text in options.image:
        with view(mode, settings, "Pushing") as sink:
            push(text, settings, sink, options.platform)
    return 0
