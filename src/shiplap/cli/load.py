"""``shiplap load -i FILE``."""

from __future__ import annotations

from shiplap.cli.parsing import Parser, settings_of


def run(name: str, argv: list[str]) -> int:
    """Read images from an archive."""
    p = Parser(
        "load",
        "Read images from docker archives, OCI archives (plain, gzip, zstd, bzip2 or xz) and OCI layout directories.",
    )
    p.add_argument("-i", "--input", default="-", metavar="FILE", help="default: standard input")
    options = p.parse_args(argv)
    from shiplap.api.moving import load

    for loaded in load(options.input, settings_of(options)):
        print(f"Loaded image: {loaded}")
    return 0
