"""``shiplap graph PATH``."""

from __future__ import annotations

from pathlib import Path

from shiplap.cli.parsing import Parser, pairs, settings_of
from shiplap.errors import ExportError


def run(name: str, argv: list[str]) -> int:
    """Draw a Dockerfile."""
    p = Parser("graph", "Draw the stages and operations of a Dockerfile: what the target needs, and what it does not.")
    p.add_argument("path", metavar="PATH", help="build context, or a Dockerfile")
    p.add_argument("-f", "--file", help="the Dockerfile (default: PATH/Dockerfile)")
    p.add_argument("--target", default="", help="the stage to build")
    p.add_argument("--build-arg", action="append", metavar="K=V", help="value of an ARG")
    p.add_argument("--platform", default="", help="os/architecture of the result")
    p.add_argument("--format", default="text", choices=("text", "mermaid", "dot", "svg"), help="how it is drawn")
    p.add_argument("-o", "--output", default="-", metavar="FILE", help="default: standard output")
    options = p.parse_args(argv)
    from shiplap.api.drawing import draw_dockerfile

    settings = settings_of(options)
    text = draw_dockerfile(
        options.path,
        settings,
        file=options.file,
        target=options.target,
        style=options.format,
        build_args=pairs(options.build_arg, "--build-arg"),
        platform=options.platform,
        every_stage=settings.docker_buildkit is False,
    )
    if options.output == "-":
        print(text, end="")
    else:
        try:
            Path(options.output).write_text(text)
        except OSError as error:
            raise ExportError(f"cannot write {options.output}: {error.strerror}", code="cannot-write") from None
    return 0
