"""``shiplap pull NAME...``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of
from shiplap.cli.view import progress_mode, view


def run(name: str, argv: list[str]) -> int:
    """Get images from registries."""
    p = Parser("pull", "Get images from their registries into the store.")
    p.add_argument("--platform", default="", help="os/architecture[/variant] (default: this machine's)")
    p.add_argument("-q", "--quiet", action="store_true", help="print digests alone")
    p.add_argument(
        "--progress", default="", choices=("auto", "plain", "tty", "quiet", "rawjson"), help="how progress is shown"
    )
    p.add_argument("image", nargs="+")
    options = p.parse_args(argv)
    from shiplap.api.transfer import pull

    settings = settings_of(options)
    mode = "quiet" if options.quiet else progress_mode(options.progress, settings)
    for text in options.image:
        with view(mode, settings, "Pulling") as sink:
            image = pull(text, options.platform, settings, sink)
        print(image.digest)
    return 0
