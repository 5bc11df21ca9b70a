"""The sink: same bytes for any number of threads and any pieces, right digests, bounded memory, faults that surface."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import resource
import subprocess
import sys
import threading

import pytest

from shiplap.layers.compression import Decompressed, codec
from shiplap.layers.sink import Packed, Sink

PROFILES = [("gzip", None), ("gzip", 6), ("gzip", 0), ("zstd", None), ("zstd", 9), ("", None)]
SIZES = [0, 1, 1 << 20, (1 << 20) + 1, (4 << 20) - 1, 9 << 20]


def text(size: int) -> bytes:
    generator = random.Random(5)
    line = b"".join(b"%d " % generator.randrange(5000) for _ in range(20_000))
    return (line * (size // len(line) + 1))[:size]


def pack(data: bytes, name: str, level: int | None, threads: int = 2, piece: int = 65_536) -> tuple[bytes, Packed]:
    out = io.BytesIO()
    with Sink(out, codec(name, level), threads=threads) as sink:
        for start in range(0, len(data), piece):
            sink.add(data[start : start + piece])
    return out.getvalue(), sink.packed()


@pytest.mark.parametrize(("name", "level"), PROFILES)
@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(name: str, level: int | None, size: int) -> None:
    data = text(size)
    stream, packed = pack(data, name, level)
    assert Decompressed(io.BytesIO(stream)).read(size + 1) == data
    assert packed.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert packed.digest == "sha256:" + hashlib.sha256(stream).hexdigest()
    assert (packed.size, packed.plain_size) == (len(stream), size)


@pytest.mark.parametrize(("name", "level"), PROFILES)
def test_bytes_do_not_depend_on_threads_or_pieces(name: str, level: int | None) -> None:
    data = text(9 << 20)
    expected = pack(data, name, level, threads=1, piece=len(data))[0]
    for threads, piece in ((1, 999), (2, 1 << 20), (5, 3_000_017), (16, 65_536)):
        assert pack(data, name, level, threads, piece)[0] == expected


def test_the_reproducible_profile_is_what_zlib_makes_anywhere() -> None:
    """Recorded: bytes of zlib 1.2.13; a zlib that is another implementation (zlib-ng) would show here."""
    stream, _ = pack(text(3 << 20), "gzip", 6)
    assert hashlib.sha256(stream).hexdigest() == ("f3ce72e52719bac63e11db8627c0c8972bb80d72a589bf2dd18373fda07fd2d4")


def test_gzip_is_one_member_for_readers_that_stop_after_one() -> None:
    data = text(5 << 20)
    stream, _ = pack(data, "gzip", None)
    import zlib

    inflate = zlib.decompressobj(31)
    assert inflate.decompress(stream) == data
    assert inflate.eof
    assert inflate.unused_data == b""
    assert gzip.decompress(stream) == data


def test_a_fault_of_the_file_reaches_the_caller_and_no_thread_stays() -> None:
    class Full(io.RawIOBase):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    before = threading.active_count()
    with pytest.raises(OSError, match="No space"), Sink(Full(), codec("gzip", 1), threads=2) as sink:  # type: ignore[arg-type]
        for _ in range(200):
            sink.add(bytes(1 << 20))
    assert threading.active_count() == before


def test_a_fault_of_the_caller_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), Sink(io.BytesIO(), codec("gzip")) as sink:
        sink.add(bytes(5 << 20))
        raise KeyError
    assert threading.active_count() == before


def test_memory_does_not_grow_with_the_layer() -> None:
    script = (
        "import os, resource\n"
        "from shiplap.layers.compression import codec\n"
        "from shiplap.layers.sink import Sink\n"
        "block = os.urandom(1 << 20)\n"
        "with open(os.devnull, 'wb') as out, Sink(out, codec('gzip'), threads=2) as sink:\n"
        "    for _ in range(600):\n"
        "        sink.add(block)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # A child's peak begins with its parent's; above that, 600 MiB went through less than 100.
    assert int(told.stdout) < max(inherited + 1024, 100 * 1024)
