"""What a place where images are can do: a ``Source`` is read, a ``Target`` written. One image at a time, blobs as streams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

import msgspec

from shiplap.errors import ImageError, Place
from shiplap.oci.digest import Digest, split_digest
from shiplap.oci.manifest import Descriptor
from shiplap.oci.reference import Reference

CHUNK = 1 << 20
MOST_MANIFESTS = 10_000
"""How many manifests an image may be made of, all indexes together."""


class Source(Protocol):
    """An image where it is. Every byte handed out has the digest it was asked for by: ``chunks`` holds the last one back."""

    title: str
    """How to call it in messages."""
    names: tuple[str, ...]
    """The full references it is known by there."""
    attaches: bool
    """It can hold what refers to an image, and ``referrers`` knows it."""

    def root(self) -> tuple[Descriptor, bytes]:
        """The manifest or index, its very bytes."""

    def holds(self, descriptor: Descriptor) -> bool:
        """Whether this manifest of an index is here: archives and the store may hold some platforms only."""

    def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index below the root."""

    def chunks(self, descriptor: Descriptor, step: str = "") -> Iterator[bytes]:
        """A blob, in chunks of up to 1 MiB. ``step`` names the transfer in Progress facts."""

    def interrupt(self) -> None:
        """End every read under way, in any thread."""

    def home_of(self, descriptor: Descriptor) -> Reference | None:
        """The repository of a registry that has the blob, if one has: another there may take it without a copy."""

    def referrers(self, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """The manifests there that have this one as their subject; none where none can be."""


class Transfer(msgspec.Struct, frozen=True):
    """What a copy moves. ``manifests`` has each one's bytes, those that others name first and the root last.

    ``attached`` are referrers: each root has a subject, among these manifests or among those attached before it.
    """

    root: Descriptor
    manifests: tuple[tuple[Descriptor, bytes], ...]
    blobs: tuple[Descriptor, ...]
    names: tuple[str, ...] = ()
    attached: tuple[Transfer, ...] = ()

    def whole(self) -> tuple[list[tuple[Descriptor, bytes]], list[Descriptor]]:
        """All manifests and all blobs, those of what is attached too, each once."""
        parts = (self, *self.attached)
        manifests = {each[0].digest: each for part in parts for each in part.manifests}
        return list(manifests.values()), list({blob.digest: blob for part in parts for blob in part.blobs}.values())


class Target(Protocol):
    """Where an image is put: completely, or not at all."""

    title: str
    partial: bool
    """It may hold an index of which some manifests are missing."""
    one_platform: bool
    """It is meant for one platform's image, unless more is asked for."""
    attaches: bool
    """It can hold what is ``attached``."""

    def write(self, transfer: Transfer, source: Source, step: str) -> None:
        """Put it there; what is there already is not read again."""


def checked_chunks(file: BinaryIO, descriptor: Descriptor) -> Iterator[bytes]:
    """``descriptor.size`` bytes of ``file`` from where it stands; raises before the last chunk if the digest is another."""
    algorithm, expected = split_digest(descriptor.digest)
    hasher = hashlib.new(algorithm)
    left = descriptor.size
    held = b""
    while left > 0:
        data = file.read(min(CHUNK, left))
        if not data:
            break
        left -= len(data)
        hasher.update(data)
        if held:
            yield held
        held = data
    if hasher.hexdigest() != expected:
        raise ImageError(
            f"blob {descriptor.digest} has other bytes than its digest says" + (": it is cut short" if left else ""),
            code="digest-mismatch",
            where=Place(blob=descriptor.digest),
            hint="the file is damaged: make it anew",
        )
    if held:
        yield held


def read_small(source: Source, descriptor: Descriptor, limit: int) -> bytes:
    """All of a small blob. Raises ImageError (blob-too-large)."""
    if descriptor.size > limit:
        raise ImageError(
            f"blob {descriptor.digest} has {descriptor.size} bytes, over the limit of {limit}",
            code="blob-too-large",
            where=Place(blob=descriptor.digest),
        )
    return b"".join(source.chunks(descriptor))


class ChunkReader:
    """Chunks as a file that is read once."""

    def __init__(self, chunks: Iterator[bytes], skip: int = 0) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")
        while skip > 0:
            skip -= len(self.read(min(skip, CHUNK))) or skip

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only where a chunk ends; empty at the end."""
        if not self._buffer:
            self._buffer = memoryview(next(self._chunks, b""))
        part = self._buffer if size < 0 else self._buffer[:size]
        self._buffer = self._buffer[len(part) :]
        return bytes(part)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
