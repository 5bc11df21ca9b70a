"""``shiplap imagetools create|inspect``, also as ``shiplap buildx imagetools``."""

from __future__ import annotations

import sys

from shiplap.cli.parsing import Parser, settings_of
from shiplap.cli.view import progress_mode, view


def run(name: str, argv: list[str]) -> int:
    """One command of the family."""
    return _create(argv) if name.endswith("create") else _inspect(argv)


def _create_parser() -> Parser:
    p = Parser(
        "imagetools create",
        "Make an image of others: an index over their manifests. A source is a reference, a digest in the one repository\n"
        "that is spoken of, a descriptor as JSON, or any other place that shiplap copy knows.",
    )
    p.add_argument("-t", "--tag", action="append", default=[], help="what to call it; may be given several times")
    p.add_argument("-f", "--file", action="append", default=[], help="read a source from a file: a descriptor")
    p.add_argument("--append", action="store_true", help="add to what the first --tag names")
    p.add_argument("--dry-run", action="store_true", help="show the image instead of pushing it")
    p.add_argument("--annotation", action="append", default=[], help="[index|manifest-descriptor[PLATFORM]:]KEY=VALUE")
    p.add_argument("-p", "--platform", action="append", default=[], help="keep these platforms alone")
    p.add_argument(
        "--prefer-index",
        default="true",
        choices=("true", "false"),
        help="of a single manifest make an index, not a copy",
    )
    p.add_argument("--metadata-file", default="", metavar="FILE", help="write digest and name to a file, as JSON")
    p.add_argument(
        "--progress", default="", choices=("auto", "none", "plain", "tty", "quiet", "rawjson"), help="how it is shown"
    )
    p.add_argument("--builder", default="", help="ignored: there is no builder")
    p.add_argument("source", nargs="*")
    return p


def _inspect_parser() -> Parser:
    p = Parser("imagetools inspect", "Show an image in a registry, or in any other place that shiplap copy knows.")
    p.add_argument(
        "--format", default="", metavar="TEMPLATE", help="a Go template over Name, Manifest, Image, Provenance, SBOM"
    )
    p.add_argument("--raw", action="store_true", help="the very bytes of the manifest")
    p.add_argument("--builder", default="", help="ignored: there is no builder")
    p.add_argument("name")
    return p


def _create(argv: list[str]) -> int:
    # As in Go, the flag alone is true and never takes the next word.
    words = ["--prefer-index=true" if word == "--prefer-index" else word for word in argv]
    options = _create_parser().parse_args(words)
    from shiplap.api.imagetools import Creation, create

    settings = settings_of(options)
    creation = Creation(
        sources=tuple(options.source),
        files=tuple(options.file),
        tags=tuple(options.tag),
        annotations=tuple(options.annotation),
        platforms=tuple(options.platform),
        append=options.append,
        prefer_index=options.prefer_index == "true",
        dry_run=options.dry_run,
        metadata_file=options.metadata_file,
    )
    with view(progress_mode(options.progress, settings), settings, "Pushing") as sink:
        raw = create(creation, settings, sink)
    if options.dry_run:
        sys.stdout.write(raw.decode() + "\n")
    return 0


def _inspect(argv: list[str]) -> int:
    options = _inspect_parser().parse_args(argv)
    from shiplap.api.imagetools import inspect

    answer = inspect(options.name, settings_of(options), raw=options.raw, template=options.format)
    sys.stdout.flush()
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0
