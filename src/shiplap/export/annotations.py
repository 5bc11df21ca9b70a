"""Annotations of manifests, indexes and their descriptors, as ``--annotation`` and ``--output`` give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from shiplap.errors import UsageError
from shiplap.oci.platform import Platform, parse_platform

LEVELS = ("manifest", "index", "manifest-descriptor", "index-descriptor")
_WHERE = re.compile(r"([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?")
_ATTRIBUTE = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)")


class Annotation(msgspec.Struct, frozen=True):
    """One annotation. ``level``: one of LEVELS; ``platform``: of which images, None is all."""

    level: str
    platform: Platform | None
    key: str
    value: str


class Annotations(msgspec.Struct, frozen=True):
    """All that were given. Of two with one key at one place the later counts, and one for a platform before one for all."""

    given: tuple[Annotation, ...] = ()

    def of_index(self, level: str) -> dict[str, str]:
        """``index`` or ``index-descriptor``; a platform that was named with them says nothing."""
        return {item.key: item.value for item in self.given if item.level == level}

    def of_image(self, level: str, platform: Platform) -> dict[str, str]:
        """``manifest`` or ``manifest-descriptor`` of the image for ``platform``."""
        fitting = [item for item in self.given if item.level == level and item.platform in (None, platform)]
        return {item.key: item.value for item in sorted(fitting, key=lambda item: item.platform is not None)}

    def check(self, platforms: Sequence[Platform], index: bool, docker_types: bool) -> None:
        """Raise UsageError if they cannot be put on images for ``platforms``; ``index``: an index is written.

        As in BuildKit, one for another platform than that of a single image is left out without a word.
        """
        for item in self.given:
            if len(platforms) > 1 and item.platform is not None and item.platform not in platforms:
                raise _refused(
                    f"invalid annotation: no platform {item.platform} found in source",
                    "the platforms of this build are " + ", ".join(map(str, platforms)),
                )
            if docker_types and item.level != "manifest":
                raise _refused('cannot export annotations with "oci-mediatypes=false"', "leave it out")
            if not index and item.level.startswith("index"):
                raise _refused(
                    "index annotations not supported for single platform export",
                    "without index: the annotation goes to the manifest; or ask for --provenance or several platforms",
                )


def read_annotations(flags: Iterable[str], attributes: Mapping[str, str]) -> Annotations:
    """Those of ``--annotation [LEVEL[[PLATFORM]],…:]KEY=VALUE`` and, before them, of ``--output annotation….KEY=VALUE``.

    Raises UsageError (invalid-annotation).
    """
    found = []
    for name, value in attributes.items():
        match = _ATTRIBUTE.fullmatch(name)
        if match is not None:
            found.append(_annotation(match[1] or "manifest", match[2], match[3], value))
    for text in flags:
        if text:
            found.extend(_read(text))
    return Annotations(tuple(found))


def _read(text: str) -> list[Annotation]:
    key, equals, value = text.partition("=")
    if not equals or not key.rpartition(":")[2]:  # a name must not be empty (OCI image-spec, annotations.md)
        raise _refused(f"invalid annotation {text!r}, expected key=value", "--annotation KEY=VALUE")
    places, colon, rest = key.partition(":")
    if not colon:
        return [_annotation("manifest", None, key, value)]
    found = []
    for place in places.split(","):
        match = _WHERE.fullmatch(place)
        if match is None:
            raise _refused(
                f"invalid annotation type {place!r}, expected type and optional platform in square brackets",
                "for example manifest[linux/arm64]:KEY=VALUE",
            )
        found.append(_annotation(match[1], match[2], rest, value))
    return found


def _annotation(level: str, platform: str | None, key: str, value: str) -> Annotation:
    if level not in LEVELS:
        raise _refused(f"unknown annotation type {level!r}", "one of " + ", ".join(LEVELS))
    return Annotation(level, parse_platform(platform) if platform else None, key, value)


def _refused(message: str, hint: str) -> UsageError:
    return UsageError(message, code="invalid-annotation", hint=hint)
