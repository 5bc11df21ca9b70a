"""Compressing and decompressing streams, by name (``gzip``, ``zstd``, ``""``) or by what the bytes are.

The codecs release the interpreter's lock. gzip is written by isal at level 2: 326 MB/s of shared libraries and 440 of Python
sources on one core (ratios 2.96 and 3.67; level 1: 385 and 413, 2.92 and 3.62; zlib at level 6: about 30).
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from shiplap.errors import ImageError, UsageError

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BZIP2_MAGIC = b"BZh"
XZ_MAGIC = b"\xfd7zXZ\x00"
WINDOW_LOG_LIMIT = 27
"""Largest zstd window that is accepted: 128 MiB."""

_READ = 1 << 18
_STEP = 1 << 20


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Codec(Protocol):
    """Compresses a stream in blocks of ``block_size`` bytes (the last may be shorter), each on its own.

    So blocks can be compressed at the same time, on any number of threads, and the bytes never depend on that number. What is
    lost is that a block knows nothing of the one before: 0.1 % with gzip, whose window is 32 KiB (measured on libraries).
    The stream is ``head``, the blocks in order, ``tail``.
    """

    block_size: int
    head: bytes

    def block(self, data: bytes, /) -> bytes: ...
    def tail(self, crc: int, size: int, /) -> bytes:
        """``crc``: CRC-32 of all plain bytes; ``size``: how many they were."""


class _Plain:
    block_size = 1 << 20
    head = b""

    def block(self, data: bytes, /) -> bytes:
        return data

    def tail(self, crc: int, size: int, /) -> bytes:
        return b""


class _Gzip:
    """One gzip member (RFC 1952) whose deflate blocks end on byte boundaries, as pigz writes it."""

    block_size = 1 << 20
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, no system: nothing of this machine

    def __init__(self, level: int | None) -> None:
        if level is None or level == -1:
            from isal import isal_zlib

            self._new: Any = lambda: isal_zlib.compressobj(2, wbits=-15)
        else:
            self._new = lambda: zlib.compressobj(level, wbits=-15)

    def block(self, data: bytes, /) -> bytes:
        deflate = self._new()
        return bytes(deflate.compress(data) + deflate.flush(zlib.Z_FULL_FLUSH))

    def tail(self, crc: int, size: int, /) -> bytes:
        # An empty last block with fixed codes (RFC 1951, 3.2.3), then CRC-32 and size modulo 2^32.
        return b"\x03\x00" + struct.pack("<II", crc, size & 0xFFFFFFFF)


class _Zstd:
    """A frame for each block (RFC 8878, 3.1: a stream is one or more frames)."""

    block_size = 4 << 20
    head = b""

    def __init__(self, level: int | None) -> None:
        module = zstd_module()
        chosen = 3 if level is None or level == -1 else level
        options = {
            module.CompressionParameter.compression_level: chosen,
            module.CompressionParameter.checksum_flag: 1,
        }
        self._compress: Any = lambda data: module.compress(data, options=options)
        self._empty: bytes = self._compress(b"")

    def block(self, data: bytes, /) -> bytes:
        return bytes(self._compress(data))

    def tail(self, crc: int, size: int, /) -> bytes:
        return b"" if size else self._empty


def codec(name: str, level: int | None = None) -> Codec:
    """The codec of that name. ``level`` None or -1: the fast profile.

    gzip, fast: Intel's isal, whose bytes differ between processors with and without AVX2. gzip with a level: zlib, whose
    bytes do not. Raises UsageError for a name or level that is not known.
    """
    if name == "" or name == "uncompressed":
        return _Plain()
    if name == "gzip":
        if level is not None and not -1 <= level <= 9:
            raise UsageError(f"compression level {level} is out of range for gzip (0 to 9)", code="invalid-compression")
        return _Gzip(level)
    if name == "zstd":
        if level is not None and not -1 <= level <= 22:
            raise UsageError(
                f"compression level {level} is out of range for zstd (0 to 22)", code="invalid-compression"
            )
        return _Zstd(level)
    raise UsageError(f"unknown compression {name!r}", code="invalid-compression", hint="use gzip, zstd or uncompressed")


def detect(head: bytes) -> str:
    """Name of the compression that ``head``, the first bytes of a stream, shows; ``""`` for none that is known."""
    for magic, name in ((GZIP_MAGIC, "gzip"), (ZSTD_MAGIC, "zstd"), (BZIP2_MAGIC, "bzip2"), (XZ_MAGIC, "xz")):
        if head.startswith(magic):
            return name
    # zstd: a stream may begin with a skippable frame (RFC 8878, 3.1.2)
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return ""


def zstd_module() -> Any:
    """``compression.zstd`` of Python 3.14, or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd
    from backports import zstd

    return zstd


class Decompressed:
    """A stream's bytes, decompressed by what they are; memory stays bounded whatever the ratio.

    Corrupt or truncated input raises ImageError(code="corrupt-stream"). ``limit``: most bytes that may come out.
    """

    def __init__(self, source: Source, *, limit: int | None = None) -> None:
        self._source = source
        head = _read_exactly(source, 6)
        self.compression = detect(head)
        self._chunks = self._plain(head) if not self.compression else self._inflate(head)
        self._buffer = memoryview(b"")
        self._left = limit

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end."""
        parts: list[memoryview] = []
        wanted = size
        while wanted:
            if not self._buffer:
                self._buffer = memoryview(next(self._chunks, b""))
                if not self._buffer:
                    break
                if self._left is not None:
                    self._left -= len(self._buffer)
                    if self._left < 0:
                        raise ImageError("stream decompresses to more than its limit", code="stream-too-large")
            part = self._buffer[:wanted]
            self._buffer = self._buffer[len(part) :]
            wanted -= len(part)
            parts.append(part)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def _plain(self, head: bytes) -> Iterator[bytes]:
        if head:
            yield head
        while chunk := self._source.read(_STEP):
            yield chunk

    def _inflate(self, head: bytes) -> Iterator[bytes]:
        new, faults = _decoder(self.compression)
        decoder = new()
        data = head
        try:
            while True:
                while not decoder.eof:
                    out = decoder.decompress(data, _STEP)
                    data = b"" if self.compression != "gzip" else decoder.unconsumed_tail
                    if out:
                        yield out
                    elif not data and not decoder.eof and getattr(decoder, "needs_input", True):
                        data = self._source.read(_READ)
                        if not data:
                            raise ImageError(f"unexpected EOF in {self.compression} stream", code="corrupt-stream")
                # Streams may be several members one after the other; zero bytes behind the last are padding.
                data = decoder.unused_data or self._source.read(_READ)
                data = data.lstrip(b"\0")
                while not data:
                    more = self._source.read(_READ)
                    if not more:
                        return
                    data = more.lstrip(b"\0")
                if detect(data + b"\0" * 6) != self.compression and len(data) >= 6:
                    return
                decoder = new()
        except faults as error:
            raise ImageError(f"corrupt {self.compression} stream: {error}", code="corrupt-stream") from None


def _decoder(name: str) -> tuple[Any, tuple[type[Exception], ...]]:
    if name == "gzip":
        from isal import isal_zlib

        error: Any = isal_zlib.error
        return lambda: isal_zlib.decompressobj(wbits=31), (error, zlib.error, EOFError)
    if name == "zstd":
        zstd = zstd_module()
        options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG_LIMIT}
        return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError, EOFError)
    if name == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, EOFError, ValueError)
    import lzma

    return lambda: lzma.LZMADecompressor(memlimit=256 << 20), (lzma.LZMAError, EOFError)


def _read_exactly(source: Source, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            break
        data += more
    return data
