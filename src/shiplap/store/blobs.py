"""Blobs by digest: written aside, checked, renamed. What stands under a digest has been seen to have it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from shiplap.errors import ImageError, Place, StoreError
from shiplap.oci.digest import Digest, split_digest


class Blobs:
    """The directory ``blobs/<algorithm>/<hex>`` of a store (the layout of an OCI image layout)."""

    def __init__(self, directory: Path, temporary: Path) -> None:
        self._directory = directory
        self._temporary = temporary

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._directory.joinpath(*split_digest(digest))

    def has(self, digest: Digest) -> bool:
        return self.path(digest).exists()

    def size(self, digest: Digest) -> int:
        """Size in bytes; StoreError(code="blob-missing") if it is not there."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: Digest, limit: int = 64 << 20) -> bytes:
        """All of a small blob, its digest checked. Raises StoreError: blob-missing, blob-corrupt."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise _missing(digest) from None
        if len(data) > limit:
            raise ImageError(f"blob of {len(data)} bytes is over the limit", code="too-large", where=Place(blob=digest))
        algorithm, expected = split_digest(digest)
        if hashlib.new(algorithm, data).hexdigest() != expected:
            raise _corrupt(digest)
        return data

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's file. The reader checks what it reads (see ``verified``)."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise _missing(digest) from None

    def verified(self, digest: Digest) -> VerifiedReader:
        """A reader whose ``finish`` raises unless all that was there had this digest."""
        return VerifiedReader(self.open(digest), digest)

    def write(self, data: bytes) -> Digest:
        """Keep ``data``; its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if not self.has(digest):
            with self.writer() as writer:
                writer.write(data)
                writer.commit(digest)
        return digest

    def save(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Keep what ``chunks`` yield; it must have this digest and size (bytes, -1 = any)."""
        with self.writer() as writer:
            algorithm, expected = split_digest(digest)
            hasher = hashlib.new(algorithm)
            written = 0
            for chunk in chunks:
                hasher.update(chunk)
                written += len(chunk)
                writer.write(chunk)
            if hasher.hexdigest() != expected or size not in (-1, written):
                raise ImageError(
                    f"blob is {algorithm}:{hasher.hexdigest()} of {written} bytes, expected {digest} of {size}",
                    code="digest-mismatch",
                    where=Place(blob=digest),
                )
            writer.commit(digest)

    def writer(self) -> BlobWriter:
        """A file to write a blob into whose digest is not known yet."""
        return BlobWriter(self, self._temporary / f"blob-{os.getpid()}-{os.urandom(6).hex()}")

    def all(self) -> Iterator[tuple[Digest, int]]:
        """Digests and sizes of all blobs."""
        for algorithm in sorted(self._directory.iterdir()):
            for file in algorithm.iterdir():
                yield f"{algorithm.name}:{file.name}", file.stat().st_size

    def remove(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)


class BlobWriter:
    """Writes a blob aside; ``commit`` puts it in place, leaving the block without it removes it."""

    def __init__(self, blobs: Blobs, path: Path) -> None:
        self._blobs = blobs
        self._path = path
        try:
            self.file: BinaryIO = path.open("xb")
        except OSError as error:
            raise StoreError(f"cannot write to the store: {error}", code="store-write") from error

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._path.unlink(missing_ok=True)

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            raise StoreError(
                f"cannot write to the store: {error.strerror} ({self._path.parent})",
                code="store-write",
                hint="free some space, or run shiplap prune",
            ) from error

    def commit(self, digest: Digest) -> None:
        """Name it ``digest``, which the caller has computed while writing."""
        self.file.flush()
        os.fchmod(self.file.fileno(), 0o600)
        target = self._blobs.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path.rename(target)


class VerifiedReader:
    """Hashes what is read; ``finish`` reads the rest and checks. Closing without ``finish`` checks nothing."""

    def __init__(self, file: BinaryIO, digest: Digest) -> None:
        algorithm, self._expected = split_digest(digest)
        self._digest = digest
        self._file = file
        self._hasher = hashlib.new(algorithm)

    def __enter__(self) -> VerifiedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._hasher.update(data)
        return data

    def finish(self) -> None:
        """Raise StoreError(code="blob-corrupt") unless the file has the digest it is named by."""
        while self.read(1 << 20):
            pass
        if self._hasher.hexdigest() != self._expected:
            raise _corrupt(self._digest)


def _missing(digest: Digest) -> StoreError:
    return StoreError(
        f"blob {digest} is not in the store",
        code="blob-missing",
        where=Place(blob=digest),
        hint="pull or build the image again",
    )


def _corrupt(digest: Digest) -> StoreError:
    return StoreError(
        f"blob {digest} is damaged: its bytes have another digest",
        code="blob-corrupt",
        where=Place(blob=digest),
        hint="run shiplap rmi on its image and pull or build it again",
    )
