"""``shiplap import ROOTFS NAME``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of


def run(name: str, argv: list[str]) -> int:
    """Make an image from a root file system."""
    p = Parser(
        "import", "Make an image of one layer from a root file system: a tar, plain or compressed, or a directory."
    )
    p.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="ENV, CMD, ENTRYPOINT, ... for the config",
    )
    p.add_argument("--platform", default="", help="os/architecture of what is in it (default: this machine's)")
    p.add_argument("source", metavar="TAR|DIR|-")
    p.add_argument("name", metavar="NAME")
    options = p.parse_args(argv)
    from shiplap.api.importing import import_rootfs

    row = import_rootfs(options.source, options.name, settings_of(options), options.change, options.platform)
    print(row.digest)
    return 0
