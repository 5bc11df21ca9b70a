"""Streams in and out, by content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib

import pytest

from shiplap.errors import ImageError, UsageError
from shiplap.layers.compression import Decompressed, codec, zstd_module
from shiplap.layers.sink import Sink

TEXT = bytes(range(256)) * 5000


def encode(name: str) -> bytes:
    packed = io.BytesIO()
    with Sink(packed, codec(name)) as sink:
        sink.add(TEXT)
    return packed.getvalue()


@pytest.mark.parametrize("name", ["gzip", "zstd", "uncompressed"])
def test_round_trip(name: str) -> None:
    stream = Decompressed(io.BytesIO(encode(name)))
    assert b"".join(iter(lambda: stream.read(777), b"")) == TEXT


@pytest.mark.parametrize(
    "data",
    [gzip.compress(TEXT), bz2.compress(TEXT), lzma.compress(TEXT), zstd_module().compress(TEXT), TEXT],
    ids=["gzip", "bzip2", "xz", "zstd", "plain"],
)
def test_what_others_compressed(data: bytes) -> None:
    assert Decompressed(io.BytesIO(data)).read(len(TEXT) + 1) == TEXT


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd_module().compress])
def test_several_members_and_padding(compress: object) -> None:
    data = compress(b"one") + compress(b"two") + bytes(1000)  # type: ignore[operator]
    assert Decompressed(io.BytesIO(data)).read(100) == b"onetwo"


def test_gzip_output_is_the_same_each_time_and_readable() -> None:
    assert encode("gzip") == encode("gzip")
    assert zlib.decompress(encode("gzip"), 31) == TEXT


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd_module().compress])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damage_is_an_error(compress: object, damage: str) -> None:
    data = bytearray(compress(TEXT))  # type: ignore[operator]
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError):
        stream = Decompressed(io.BytesIO(bytes(data)))
        read = b"".join(iter(lambda: stream.read(1 << 20), b""))
        # A flip may hit what a checksum does not cover; then the bytes themselves must differ.
        if read != TEXT:
            raise ImageError("differs")


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    stream = Decompressed(io.BytesIO(bomb), limit=1 << 20)
    with pytest.raises(ImageError) as error:
        while stream.read(1 << 16):
            pass
    assert error.value.code == "stream-too-large"


def test_a_zstd_window_over_128_mib_is_refused() -> None:
    zstd = zstd_module()
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.enable_long_distance_matching: 1}
    wide = zstd.ZstdCompressor(options=options)
    data = wide.compress(bytes(300 << 20)) + wide.flush()
    with pytest.raises(ImageError):
        stream = Decompressed(io.BytesIO(data))
        while stream.read(1 << 20):
            pass


@pytest.mark.parametrize(("name", "level"), [("gzip", 10), ("zstd", 23), ("lz4", None)])
def test_unknown_names_and_levels(name: str, level: int | None) -> None:
    with pytest.raises(UsageError):
        codec(name, level)
