"""What a build has made, before and after its outputs are carried out."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shiplap.api.request import ImageResult, Request
from shiplap.dockerfile.options import Plan
from shiplap.oci.platform import Platform


class Built(msgspec.Struct, frozen=True):
    """What was built for one platform."""

    plan: Plan
    snapshot: str

    @property
    def platform(self) -> Platform:
        return self.plan.config.platform


class Delivered(msgspec.Struct, frozen=True):
    """What was made of the result."""

    digest: str = ""
    config_digest: str = ""
    size: int = 0
    image_size: int = 0
    media_type: str = ""
    annotations: Mapping[str, str] = {}
    images: tuple[ImageResult, ...] = ()
    names: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    stored: Mapping[str, str] = {}
    """Digests by the names that the store knows the result under now."""
    archives: tuple[tuple[str, tuple[bytes | tuple[str, int], ...]], ...] = ()
    """Path and pieces of each archive written: bytes, or digest and size of a blob."""


def wants_nothing(request: Request) -> bool:
    """Whether the steps are to run, and that is all: then nothing is packed, and what packs is not imported."""
    outputs = {output.type for output in request.outputs}
    return outputs == {"cacheonly"} and not (request.push or request.load or request.attests)
