"""Blobs: nothing is under a digest but what has it."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.errors import ImageError, StoreError
from shiplap.oci.digest import digest_of
from shiplap.store.blobs import Blobs
from shiplap.store.store import Store

DATA = b"some bytes"


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Blobs]:
    with Store(tmp_path / "s") as store:
        yield store.blobs


def left_aside(tmp_path: Path) -> list[str]:
    return os.listdir(tmp_path / "s" / "tmp")


def test_write_read_and_list(blobs: Blobs, tmp_path: Path) -> None:
    digest = blobs.write(DATA)
    assert digest == digest_of(DATA)
    assert (blobs.has(digest), blobs.size(digest), blobs.read(digest)) == (True, len(DATA), DATA)
    assert list(blobs.all()) == [(digest, len(DATA))]
    assert left_aside(tmp_path) == []


def test_blobs_are_private(blobs: Blobs) -> None:
    assert stat.S_IMODE(blobs.path(blobs.write(DATA)).stat().st_mode) == 0o600


def test_writing_what_is_there_writes_nothing(blobs: Blobs) -> None:
    digest = blobs.write(DATA)
    inode = blobs.path(digest).stat().st_ino
    assert blobs.write(DATA) == digest
    assert blobs.path(digest).stat().st_ino == inode


@pytest.mark.parametrize(("chunks", "size"), [([b"some ", b"byteS"], 10), ([DATA], 9), ([DATA, b"!"], -1), ([], 0)])
def test_save_refuses_what_has_another_digest_or_size(
    blobs: Blobs, tmp_path: Path, chunks: list[bytes], size: int
) -> None:
    with pytest.raises(ImageError) as caught:
        blobs.save(digest_of(DATA), size, chunks)
    assert caught.value.code == "digest-mismatch"
    assert not blobs.has(digest_of(DATA))
    assert left_aside(tmp_path) == []


@pytest.mark.parametrize("size", [-1, 10])
def test_save_takes_what_has_the_digest(blobs: Blobs, size: int) -> None:
    blobs.save(digest_of(DATA), size, [b"some ", b"bytes"])
    assert blobs.read(digest_of(DATA)) == DATA


def test_a_stream_that_breaks_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some "
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.save(digest_of(DATA), 10, broken())
    assert list(blobs.all()) == []
    assert left_aside(tmp_path) == []


def test_what_a_verified_stream_yields_is_kept_only_if_it_ends_well(blobs: Blobs) -> None:
    def broken() -> Iterator[bytes]:
        yield DATA
        raise OSError("another digest")

    with pytest.raises(OSError):
        blobs.keep(digest_of(DATA), len(DATA), broken())
    assert not blobs.has(digest_of(DATA)) and not list(blobs.temporary.glob("*-blob-*"))
    blobs.keep(digest_of(DATA), len(DATA), iter([DATA]))
    assert blobs.read(digest_of(DATA)) == DATA


def test_a_damaged_blob_is_never_believed_and_goes_at_once(blobs: Blobs) -> None:
    digest = blobs.write(DATA)
    blobs.path(digest).write_bytes(b"same bytes")
    with pytest.raises(StoreError) as caught:
        blobs.read(digest)
    assert caught.value.code == "blob-corrupt"
    assert not blobs.has(digest)
    blobs.write(DATA)
    blobs.path(digest).write_bytes(b"same bytes")
    with blobs.verified(digest) as reader:
        assert reader.read(4) == b"same"
        with pytest.raises(StoreError) as caught:
            reader.finish()
    assert caught.value.code == "blob-corrupt"
    assert not blobs.has(digest)


@pytest.mark.parametrize("damage", [b"some bytez", b"some", b"", b"some bytes and more"])
def test_writing_again_mends_what_was_damaged(blobs: Blobs, damage: bytes) -> None:
    digest = blobs.write(DATA)
    blobs.path(digest).write_bytes(damage)
    assert blobs.write(DATA) == digest
    assert blobs.read(digest) == DATA


LARGE = bytes(9 << 20)


def written(blobs: Blobs, data: bytes) -> None:
    """As by who does not know the digest before."""
    with blobs.writer() as writer:
        writer.file.write(data)
        writer.commit(digest_of(data))


@pytest.mark.parametrize("data", [DATA, LARGE])
@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_made_again_replaces_only_what_is_damaged(
    blobs: Blobs, tmp_path: Path, data: bytes, damaged: bool
) -> None:
    written(blobs, data)
    path = blobs.path(digest_of(data))
    if damaged:
        path.write_bytes(data[:-1] + b"x")
    before = path.stat().st_ino
    written(blobs, data)
    assert (path.stat().st_ino == before) != damaged
    assert blobs.read(digest_of(data)) == data
    assert left_aside(tmp_path) == []


def test_a_large_blob_is_hashed_beside(blobs: Blobs) -> None:
    written(blobs, LARGE)
    digest = digest_of(LARGE)
    with blobs.verified(digest) as reader:
        assert reader.read(5 << 20) == LARGE[: 5 << 20]
        reader.finish()
    with blobs.verified(digest) as reader:
        assert reader.read(1) == b"\0"  # and no more: nothing waits for the rest
    with blobs.path(digest).open("r+b") as file:
        file.seek(8 << 20)
        file.write(b"x")
    with blobs.verified(digest) as reader, pytest.raises(StoreError) as caught:
        reader.finish()
    assert caught.value.code == "blob-corrupt"
    assert not blobs.has(digest)
    assert not [thread for thread in threading.enumerate() if thread.name == "shiplap-hash"]


def test_a_directory_in_the_place_of_a_blob_is_none(blobs: Blobs) -> None:
    digest = digest_of(DATA)
    (blobs.path(digest) / "below").mkdir(parents=True)
    assert not blobs.has(digest)
    with pytest.raises(StoreError, match="damaged"):
        blobs.read(digest)
    assert blobs.write(DATA) == digest
    assert blobs.read(digest) == DATA


def test_a_blob_of_another_size_is_not_the_one_that_was_asked_for(blobs: Blobs) -> None:
    digest = blobs.write(DATA)
    assert (blobs.has(digest, len(DATA)), blobs.has(digest, len(DATA) + 1)) == (True, False)


def test_an_error_in_what_a_blob_holds_is_the_blobs_own_if_it_is_damaged(blobs: Blobs) -> None:
    digest = blobs.write(DATA)
    with pytest.raises(ImageError, match="bad tar"), blobs.blamed(digest):
        raise ImageError("bad tar")
    blobs.path(digest).write_bytes(b"same bytes")
    with pytest.raises(StoreError) as caught, blobs.blamed(digest):
        raise ImageError("bad tar")
    assert caught.value.code == "blob-corrupt"


def test_verified_reads_to_the_end_by_itself(blobs: Blobs) -> None:
    with blobs.verified(blobs.write(DATA)) as reader:
        assert reader.read(2) == b"so"
        reader.finish()


def test_what_is_missing_says_so(blobs: Blobs) -> None:
    digest = digest_of(b"never written")
    for ask in (blobs.read, blobs.size, blobs.open, blobs.verified):
        with pytest.raises(StoreError) as caught:
            ask(digest)
        assert caught.value.code == "blob-missing"
        assert caught.value.where is not None and caught.value.where.blob == digest
    blobs.remove(digest)


def test_a_blob_over_the_limit_is_not_read_as_a_whole(blobs: Blobs) -> None:
    with pytest.raises(ImageError) as caught:
        blobs.read(blobs.write(DATA), limit=9)
    assert caught.value.code == "too-large"


def test_an_uncommitted_writer_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.writer() as writer:
        writer.write(DATA)
        assert len(left_aside(tmp_path)) == 1
    assert left_aside(tmp_path) == [] and list(blobs.all()) == []
