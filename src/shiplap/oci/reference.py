"""Image references, by the grammar of distribution/reference: ``[host[:port]/]path[:tag][@digest]``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from shiplap.errors import ImageError
from shiplap.oci.digest import is_digest

DEFAULT_HOST = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")

LONGEST_PATH = 255
"""Characters of a path, as distribution/reference counts them (without the host)."""

LONGEST_REFERENCE = 1024
"""Characters of a whole reference: a host, a path, a tag and a digest at their longest, with room to spare."""


class Reference(NamedTuple):
    """A normalised reference. ``host`` and ``path`` are never empty; ``tag`` or ``digest`` may be."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def name(self) -> str:
        """``docker.io/library/busybox``: host and path without tag and digest."""
        return f"{self.host}/{self.path}"

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def familiar(self) -> str:
        """The short form people type: ``busybox:1``."""
        name = self.name
        if self.host == DEFAULT_HOST:
            name = self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path
        return name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_tag(text: str) -> bool:
    """Whether ``text`` can be a tag."""
    return _TAG.fullmatch(text) is not None


@lru_cache(4096)
def parse_reference(text: str, default_tag: str = "latest") -> Reference:
    """Read a reference as Docker does: docker.io, ``library/`` and, without a digest, ``default_tag`` are implied.

    Raises ImageError(code="invalid-reference").
    """
    if len(text) > LONGEST_REFERENCE:
        raise _invalid(text, "invalid reference format")
    if _IDENTIFIER.fullmatch(text):
        raise _invalid(text, f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    rest, _, digest = text.partition("@")
    if "@" in text and not is_digest(digest):
        raise _invalid(text, "invalid reference format")
    host, slash, path = rest.partition("/")
    if not slash or not (any(mark in host for mark in ".:[") or host == "localhost" or host != host.lower()):
        host, path = DEFAULT_HOST, rest
    elif host == "index.docker.io":
        host = DEFAULT_HOST
    path, colon, tag = path.partition(":")
    if host == DEFAULT_HOST and "/" not in path:
        path = "library/" + path
    if path != path.lower():
        raise _invalid(text, f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _HOST.fullmatch(host) or (colon and not _TAG.fullmatch(tag)):
        raise _invalid(text, "invalid reference format")
    if len(path) > LONGEST_PATH:
        raise _invalid(text, f"repository name must not be more than {LONGEST_PATH} characters")
    return Reference(host, path, tag or ("" if digest else default_tag), digest)


def _invalid(text: str, why: str) -> ImageError:
    return ImageError(
        f'failed to parse reference "{text[:300]}": {why}',
        code="invalid-reference",
        hint="write [host/]name[:tag][@sha256:…] in lower case",
    )
