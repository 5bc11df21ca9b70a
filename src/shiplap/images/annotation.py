"""``--annotation [type[platform],…:]key=value``, read as buildx reads it (util/buildflags, ``ParseAnnotations``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from shiplap.errors import UsageError, quote
from shiplap.oci.platform import parse_platform

INDEX, DESCRIPTOR = "index", "manifest-descriptor"
TYPES = (INDEX, "index-descriptor", "manifest", DESCRIPTOR)
_TYPE = re.compile(r"([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?")


class AnnotationKey(NamedTuple):
    """What an annotation is put on: ``type`` empty if it was not said, ``platform`` empty for all."""

    key: str
    type: str = ""
    platform: str = ""


def parse_annotations(texts: Sequence[str]) -> dict[AnnotationKey, str]:
    """Annotations by where they go; of two for one place the last counts. Raises UsageError (invalid-annotation)."""
    found: dict[AnnotationKey, str] = {}
    for text in filter(None, texts):
        name, equals, value = text.partition("=")
        if not equals:
            raise _wrong(f"invalid annotation {quote(text)}, expected key=value")
        types, colon, key = name.partition(":")
        if not colon:
            found[AnnotationKey(name)] = value
            continue
        for each in types.split(","):
            match = _TYPE.fullmatch(each)
            if match is None:
                raise _wrong(
                    f"invalid annotation type {quote(each)}, expected type and optional platform in square brackets"
                )
            if match[1] not in TYPES:
                raise _wrong(f"unknown annotation type {quote(match[1])}")
            found[AnnotationKey(key, match[1], _written(match[2]) if match[2] else "")] = value
    return found


def _written(text: str) -> str:
    """A platform as containerd writes it after reading it (platforms, ``Parse``): variants that go without saying stay."""
    platform = parse_platform(text)
    stated = text.count("/") > 1
    if platform.architecture == "arm64" and stated and not platform.variant:
        platform = platform._replace(variant="v8")
    elif platform.architecture == "arm" and not stated and platform.variant == "v7":
        platform = platform._replace(variant="")
    return str(platform)


def _wrong(why: str) -> UsageError:
    return UsageError(
        f"failed to parse annotations: {why}",
        code="invalid-annotation",
        hint=f"write {'|'.join((INDEX, DESCRIPTOR))}[os/architecture]:key=value",
    )
