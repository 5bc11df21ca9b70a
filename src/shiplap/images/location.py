"""Where an image is, as people write it: skopeo's transports, and buildx's ``oci-layout://``."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from shiplap.errors import ImageError, UsageError
from shiplap.oci.digest import is_digest
from shiplap.oci.reference import parse_reference

STORE, REGISTRY, LAYOUT = "store", "docker", "oci"
OCI_ARCHIVE, DOCKER_ARCHIVE, ENGINE = "oci-archive", "docker-archive", "docker-daemon"

FORMS = (
    "NAME (or store:NAME), docker://HOST/NAME:TAG, oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG], "
    "docker-archive:FILE[:NAME], docker-daemon:NAME"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_UNSPOKEN = ("containers-storage", "dir", "sif", "tarball", "ostree")


class Location(NamedTuple):
    """``path``: a directory or file; ``name``: a reference, or in a layout a tag; ``digest``: which of a layout's."""

    transport: str
    path: str = ""
    name: str = ""
    digest: str = ""

    def __str__(self) -> str:
        if self.transport == STORE:
            return self.name
        if self.transport == REGISTRY:
            return f"docker://{self.name}"
        text = ":".join(part for part in (self.transport, self.path, self.name) if part)
        return text + (f"@{self.digest}" if self.digest else "")


def parse_location(text: str, plain: str = STORE) -> Location:
    """Read ``text``; a name without a transport is of ``plain``. Raises UsageError (bad-location), ImageError."""
    if text.startswith("docker://"):
        return _named(REGISTRY, text.removeprefix("docker://"), text)
    if text.startswith("oci-layout://"):
        return _layout(text.removeprefix("oci-layout://"), text)
    transport, colon, rest = text.partition(":")
    if colon and transport == LAYOUT:
        return _filed(LAYOUT, rest, text)
    if colon and transport in (OCI_ARCHIVE, DOCKER_ARCHIVE):
        return _filed(transport, rest, text)
    if colon and transport in (ENGINE, STORE):
        return _named(transport, rest, text)
    if colon and transport in _UNSPOKEN:
        raise _bad(text, f"{transport}: is a transport that shiplap does not speak")
    return _named(plain, text, text)


def _named(transport: str, name: str, text: str) -> Location:
    if not name:
        raise _bad(text, "it names no image")
    if transport == STORE and re.fullmatch(r"(sha256:)?[0-9a-f]{4,64}", name):
        return Location(transport, name=name)
    try:
        parse_reference(name)
    except ImageError as error:
        if os.sep in name and os.path.exists(name):
            kind = "oci:" if os.path.isdir(name) else "oci-archive:"
            raise _bad(text, f"for a file or directory write {kind}{name}") from None
        raise error
    return Location(transport, name=name)


def _filed(transport: str, rest: str, text: str) -> Location:
    rest, at, digest = rest.partition("@")
    if at and not is_digest(digest):
        raise _bad(text, f"{digest[:80]!r} is no digest")
    path, _, name = rest.partition(":")
    if not path:
        raise _bad(text, "it names no " + ("directory" if transport == LAYOUT else "file"))
    return Location(transport, path, name, digest)


def _layout(rest: str, text: str) -> Location:
    # buildx (util/ocilayout): the last colon stands before the tag if what follows can be one.
    path, at, digest = rest.rpartition("@")
    if not at or not is_digest(digest):
        path, digest = rest, ""
    front, colon, tag = path.rpartition(":")
    if colon and _TAG.fullmatch(tag):
        path = front
    else:
        tag = "" if digest else "latest"
    if not path:
        raise _bad(text, "it names no directory")
    return Location(LAYOUT, path, tag, digest)


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"{text[:200]!r} is no place of an image: {why}", code="bad-location", hint=f"write {FORMS}")
