"""The graph of a Dockerfile, drawn without asking any registry: bases count as empty images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from shiplap.api.context import open_build_context
from shiplap.api.request import Request
from shiplap.dockerfile.lower import lower
from shiplap.dockerfile.options import LowerOptions, ResolvedImage
from shiplap.dockerfile.parse import parse
from shiplap.graph.draw import draw
from shiplap.oci.config import RootFS, empty_config
from shiplap.oci.digest import digest_of
from shiplap.oci.platform import Platform, native_platform, parse_platform
from shiplap.oci.reference import Reference
from shiplap.settings import Settings


class Unasked:
    """Takes every image for one layer over an empty config: enough for a picture."""

    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        digest = reference.digest or digest_of(str(reference).encode())
        config = msgspec.structs.replace(empty_config(platform), rootfs=RootFS(diff_ids=(digest,)))
        return ResolvedImage(reference, digest, config)


def draw_dockerfile(
    context: str,
    settings: Settings,
    *,
    file: str | None = None,
    target: str = "",
    style: str = "text",
    build_args: Mapping[str, str] | None = None,
    platform: str = "",
    every_stage: bool = False,
) -> str:
    """The stages and operations that ``target`` needs, as ``style``: text, mermaid, dot or svg."""
    path = Path(context)
    request = Request(
        context=path if path.is_dir() else path.parent, dockerfile=file or (context if path.is_file() else None)
    )
    native = native_platform()
    with open_build_context(request, settings) as opened:
        dockerfile = parse(opened.dockerfile, opened.dockerfile_name)
        options = LowerOptions(
            target=target,
            build_args=dict(build_args or {}),
            target_platform=parse_platform(platform) if platform else native,
            build_platform=native,
            ignore=opened.ignore,
            every_stage=every_stage,
        )
        plan = lower(dockerfile, options, Unasked())
    targets = [node for node in (plan.target, *plan.also) if node is not None]
    unneeded = [stage.name or f"stage-{stage.index}" for stage in plan.stages if not stage.needed]
    return draw(targets, style, unneeded)
