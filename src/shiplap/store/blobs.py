"""Blobs by digest: written aside, checked, renamed. What stands under a digest has been seen to have it.

Disks fail and hands slip, so it is seen again whenever a blob is copied out or unpacked. One that has other bytes by then
is removed on the spot: what is missing is made or fetched again by whoever needs it next.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from shiplap.errors import ImageError, Place, StoreError, TreeError
from shiplap.oci.digest import Digest, split_digest
from shiplap.store.leases import BLOB, NEW_BLOB, Lease

if TYPE_CHECKING:
    from shiplap.store.hashing import Hashing


_COMPARED = 1 << 20
_LARGE = 8 << 20
"""Bytes from which a blob that is read is hashed beside whatever else is done with it."""


class Space(Protocol):
    """Who is asked before space is taken. ``room.Room`` says what each does; ``limit`` 0: there is no need to ask."""

    limit: int

    def take(self, size: int) -> None: ...

    def take_some(self, size: int) -> int: ...

    def give(self, size: int) -> None: ...

    def watched(self, directory: Path) -> AbstractContextManager[None]: ...

    def settle(self, directory: Path) -> int: ...


class Blobs:
    """The directory ``blobs/<algorithm>/<hex>`` of a store (the layout of an OCI image layout)."""

    def __init__(self, directory: Path, temporary: Path, lease: Lease, space: Space) -> None:
        self._directory = directory
        self.temporary = temporary
        self.lease = lease
        self.space = space
        self.keep_damaged = False
        """Only say what is damaged, do not remove it."""

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._directory.joinpath(*split_digest(digest))

    def has(self, digest: Digest, size: int = -1) -> bool:
        """Whether it is there, and (unless -1) has this size in bytes. What is there then stays as long as we run."""
        self.lease.hold(BLOB, digest)
        try:
            found = os.stat(self.path(digest))
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and size in (-1, found.st_size)

    def size(self, digest: Digest) -> int:
        """Size in bytes; StoreError(code="blob-missing") if it is not there."""
        self.lease.hold(BLOB, digest)
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: Digest, limit: int = 64 << 20) -> bytes:
        """All of a small blob, its digest checked. Raises StoreError: blob-missing, blob-corrupt."""
        with self.open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise ImageError(f"blob of {size} bytes is over the limit", code="too-large", where=Place(blob=digest))
            data = self._readable(digest, file)
        algorithm, expected = split_digest(digest)
        if hashlib.new(algorithm, data).hexdigest() != expected:
            raise self.condemn(digest)
        return data

    def known(self, digest: Digest) -> bytes | None:
        """All of a small blob, if it is here and undamaged."""
        try:
            return self.read(digest)
        except StoreError:
            return None

    def sound(self, digest: Digest) -> bool:
        """Whether it is here and, read to its end, undamaged."""
        try:
            self.check(digest)
        except StoreError:
            return False
        return True

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's file. The reader checks what it reads (see ``verified``)."""
        self.lease.hold(BLOB, digest)
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError:
            raise _missing(digest) from None
        except IsADirectoryError:
            raise self.condemn(digest) from None
        return file

    def verified(self, digest: Digest) -> VerifiedReader:
        """A reader whose ``finish`` raises unless all that was there had this digest."""
        return VerifiedReader(self, self.open(digest), digest)

    def check(self, digest: Digest) -> None:
        """Read it all. Raises StoreError: blob-missing, blob-corrupt."""
        with self.verified(digest) as reader:
            reader.finish()

    @contextmanager
    def blamed(self, digest: Digest) -> Iterator[None]:
        """Where what the blob holds cannot be read: if that is because it is damaged, say so instead."""
        try:
            yield
        except (ImageError, TreeError):
            self.check(digest)
            raise

    def condemn(self, digest: Digest) -> StoreError:
        """Remove what stands under ``digest`` and is something else; the error to raise."""
        if self.keep_damaged:
            return _corrupt(digest, "shiplap fsck --repair")
        path = self.path(digest)
        try:
            if path.is_dir() and not path.is_symlink():
                from shiplap.store.snapshots import remove_directory

                remove_directory(path)
            else:
                path.unlink(missing_ok=True)
        except (OSError, StoreError):
            return _corrupt(digest, "remove it by hand: it cannot be removed")
        return _corrupt(digest, "build or pull again: it was removed, and will be made anew")

    def write(self, data: bytes) -> Digest:
        """Keep ``data``; its digest. What stands there already is compared: it is small, and may have been damaged."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self.has(digest, len(data)) and self._same(digest, data):
            return digest
        with self.writer(len(data)) as writer:
            writer.file.write(data)
            writer.commit(digest)
        return digest

    def _same(self, digest: Digest, data: bytes) -> bool:
        try:
            return self.path(digest).read_bytes() == data
        except OSError:
            return False

    def keep(self, digest: Digest, size: int, verified: Iterable[bytes]) -> None:
        """Keep what ``verified`` yields: it has compared digest and size before it ends, or raises.

        For what a registry's ``open_blob`` yields, which would otherwise be hashed twice.
        """
        with self.writer(max(size, 0)) as writer:
            for chunk in verified:
                writer.file.write(chunk)
            writer.commit(digest)

    def save(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> None:
        """Keep what ``chunks`` yield; it must have this digest and size (bytes, -1 = any)."""
        with self.writer(max(size, 0)) as writer:
            algorithm, expected = split_digest(digest)
            hasher = hashlib.new(algorithm)
            written = 0
            for chunk in chunks:
                hasher.update(chunk)
                written += len(chunk)
                writer.file.write(chunk)
            if hasher.hexdigest() != expected or size not in (-1, written):
                raise ImageError(
                    f"blob is {algorithm}:{hasher.hexdigest()} of {written} bytes, expected {digest} of {size}",
                    code="digest-mismatch",
                    where=Place(blob=digest),
                )
            writer.commit(digest)

    def writer(self, size: int = 0) -> BlobWriter:
        """A file to write a blob into whose digest is not known yet. ``size``: bytes that it will have, 0 = unknown."""
        name = f"{self.lease.begin()}-blob-{os.urandom(6).hex()}"
        return BlobWriter(self, self.temporary / name, size)

    def all(self) -> Iterator[tuple[Digest, int]]:
        """Digests and sizes of all blobs. What bears no digest as its name is left out."""
        for algorithm in sorted(self._directory.iterdir()):
            try:
                files = list(os.scandir(algorithm))
            except NotADirectoryError:
                continue
            for file in files:
                digest = f"{algorithm.name}:{file.name}"
                try:
                    split_digest(digest)
                    yield digest, file.stat(follow_symlinks=False).st_size
                except (ImageError, FileNotFoundError):
                    continue  # somebody else's file, or removed meanwhile

    def remove(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)

    def _readable(self, digest: Digest, file: BinaryIO) -> bytes:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(digest, error) from None


class BlobWriter:
    """Writes a blob aside; ``commit`` puts it in place, leaving the block without it removes it."""

    def __init__(self, blobs: Blobs, path: Path, size: int) -> None:
        self._blobs = blobs
        self._path = path
        try:
            self._raw = StoreFile(path, blobs.space, size)
        except OSError as error:
            raise fault(error, path) from None
        self.file: BinaryIO = io.BufferedWriter(self._raw, 1 << 16)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._raw.done = True  # what is still buffered is not wanted
            self.file.close()
        finally:
            self._path.unlink(missing_ok=True)
            self._blobs.space.give(self._raw.granted)

    def write(self, data: bytes) -> int:
        return self.file.write(data)

    def commit(self, digest: Digest) -> None:
        """Name it ``digest``, which the caller has computed while writing."""
        self.file.flush()
        self._blobs.lease.make(NEW_BLOB, digest)
        target = self._blobs.path(digest)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                self._blobs.condemn(digest)
            # Renamed over a file, what was written has to be on disk first (ext4: half a second for 500 MB).
            if not self._stands(target):
                self._path.rename(target)
        except OSError as error:
            raise fault(error, target) from None

    def _stands(self, target: Path) -> bool:
        """Whether these very bytes are there already."""
        try:
            with target.open("rb", buffering=0) as there, self._path.open("rb", buffering=0) as here:
                if os.fstat(there.fileno()).st_size != os.fstat(here.fileno()).st_size:
                    return False
                while ours := here.read(_COMPARED):
                    if there.read(_COMPARED) != ours:
                        return False
                return True
        except OSError:
            return False


class StoreFile(io.FileIO):
    """A new file of the store: asks for room before it writes, and says what is the matter when it cannot."""

    def __init__(self, path: Path, space: Space, size: int = 0) -> None:
        self._space = space
        self._written = 0
        self.granted = 0
        self.done = False
        self._size = size
        super().__init__(path, "xb", opener=_private)

    def write(self, data: object, /) -> int:
        if self.done:
            return memoryview(data).nbytes  # type: ignore[arg-type]
        length = memoryview(data).nbytes  # type: ignore[arg-type]
        if self._space.limit and self._written + length > self.granted:
            lacking = self._written + length - self.granted
            if self._size >= self._written + length:
                lacking = self._size - self.granted
                self._space.take(lacking)
                self.granted += lacking
            else:
                self.granted += self._space.take_some(lacking)
        try:
            written = super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise fault(error, str(self.name), max(self._size - self._written, length)) from None
        self._written += written or 0
        return written or 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def fault(error: OSError, path: str | Path, need: int = 0) -> StoreError:
    """See ``room.write_fault``."""
    from shiplap.store.room import write_fault

    return write_fault(error, path, need)


class VerifiedReader:
    """Hashes what is read; ``finish`` reads the rest and checks. Closing without ``finish`` checks nothing."""

    def __init__(self, blobs: Blobs, file: BinaryIO, digest: Digest) -> None:
        algorithm, self._expected = split_digest(digest)
        self._blobs = blobs
        self._digest = digest
        self._file = file
        self._beside: Hashing | None = None
        if os.fstat(file.fileno()).st_size >= _LARGE:
            from shiplap.store.hashing import Hashing

            self._beside = Hashing(algorithm)
        self._hasher = self._beside or hashlib.new(algorithm)

    def __enter__(self) -> VerifiedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._beside is not None:
            self._beside.close()

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise _unreadable(self._digest, error) from None
        self._hasher.update(data)
        return data

    def finish(self) -> None:
        """Raise StoreError(code="blob-corrupt") unless the file has the digest it is named by."""
        while self.read(1 << 20):
            pass
        if self._hasher.hexdigest() != self._expected:
            raise self._blobs.condemn(self._digest)


def _missing(digest: Digest) -> StoreError:
    return StoreError(
        f"blob {digest} is not in the store",
        code="blob-missing",
        where=Place(blob=digest),
        hint="pull or build the image again",
    )


def _corrupt(digest: Digest, hint: str) -> StoreError:
    return StoreError(
        f"blob {digest} is damaged: its bytes have another digest",
        code="blob-corrupt",
        where=Place(blob=digest),
        hint=hint,
    )


def _unreadable(digest: Digest, error: OSError) -> StoreError:
    return StoreError(
        f"blob {digest} cannot be read: {error.strerror}",
        code="blob-unreadable",
        where=Place(blob=digest),
        hint="the disk may be failing: look at dmesg, and copy the store elsewhere",
    )
