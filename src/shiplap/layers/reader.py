"""Reading a tar stream from outside, strictly forward and within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from shiplap.errors import ImageError
from shiplap.layers import header as tar
from shiplap.layers import sparse
from shiplap.layers.header import BLOCK, Header

EXTENDED_LIMIT = 1 << 20
"""Bytes of extended headers (PAX, GNU long names) of one member. A 1 GiB one costs 1 MB on the wire, and all memory."""

ENTRY_LIMIT = 4_000_000
"""Members of one archive: more than any image is known to have, and no more than a disk has inodes."""


class Source(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


class Seekable(Protocol):
    def seek(self, offset: int, whence: int, /) -> int: ...


class TarReader:
    """The members of a tar stream. Iterate; read a member's data with ``read`` or ``chunks`` before going on."""

    def __init__(self, stream: Source) -> None:
        self._stream = stream
        self._left = 0
        self._pad = 0
        self._globals: dict[str, bytes] = {}
        self._parts: sparse.Parts | None = None

    def __iter__(self) -> Iterator[Header]:
        entries = 0
        while (member := self._next()) is not None:
            entries += 1
            if entries > ENTRY_LIMIT:
                raise ImageError(f"tar has more than {ENTRY_LIMIT} members", code="too-many-entries")
            yield member

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """The data of the present member."""
        for piece in self.pieces(size):
            if isinstance(piece, bytes):
                yield piece
            else:
                for start in range(0, piece, size):
                    yield bytes(min(size, piece - start))

    def pieces(self, size: int = 1 << 20) -> Iterator[bytes | int]:
        """The data of the present member, where it is sparse with holes as their lengths."""
        if self._parts is None:
            yield from self._stored(size, self._left)
            return
        end = 0
        for offset, length in self._parts.spans:
            if offset > end:
                yield offset - end
            yield from self._stored(size, length)
            end = offset + length
        if self._parts.size > end:
            yield self._parts.size - end

    def leap(self, stream: Seekable) -> None:
        """Pass over the present member's data in ``stream``, the one that is read here, without reading it."""
        stream.seek(self._left + self._pad, 1)
        self._left = self._pad = 0

    @property
    def sparse(self) -> bool:
        """Whether the present member has holes."""
        return self._parts is not None

    def _stored(self, size: int, length: int) -> Iterator[bytes]:
        stop = self._left - length
        while self._left > stop:
            chunk = self._stream.read(min(size, self._left - stop))
            if not chunk:
                raise ImageError("unexpected EOF: the archive is cut short", code="truncated-tar")
            self._left -= len(chunk)
            yield chunk

    def _skip(self) -> None:
        for _ in self._stored(1 << 20, self._left):
            pass
        if self._pad:
            self._exactly(self._pad)
            self._pad = 0

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise ImageError("unexpected EOF: the archive is cut short", code="truncated-tar")
            data += more
        return data

    def _body(self, size: int, spent: int) -> bytes:
        if size < 0 or spent + size > EXTENDED_LIMIT:
            raise ImageError(f"tar has an extended header over {EXTENDED_LIMIT} bytes", code="tar-header-too-large")
        body = self._exactly(size)
        self._exactly(-size % BLOCK)
        return body

    def _next(self) -> Header | None:
        self._skip()
        records: dict[str, bytes] = {}
        long_name = long_link = ""
        spent = 0
        while True:
            block = self._stream.read(BLOCK)
            if not block or not any(block):
                if spent or (block and len(block) < BLOCK):
                    raise ImageError("unexpected EOF: the archive is cut short", code="truncated-tar")
                return None
            if len(block) < BLOCK:
                block += self._exactly(BLOCK - len(block))
            header = tar.decode_block(block)
            if header.kind in (tar.PAX, tar.PAX_GLOBAL):
                body = self._body(header.size, spent)
                spent += len(body) + 1
                if header.kind == tar.PAX:
                    records.update(tar.decode_records(body))
                else:
                    self._globals.update(tar.decode_records(body))
            elif header.kind in (tar.GNU_LONGNAME, tar.GNU_LONGLINK):
                body = self._body(header.size, spent)
                spent += len(body) + 1
                text = body.rstrip(b"\0").decode("utf-8", "surrogateescape")
                if header.kind == tar.GNU_LONGNAME:
                    long_name = text
                else:
                    long_link = text
            else:
                break
        header.name = long_name or header.name
        header.link = long_link or header.link
        tar.apply_records(header, {**self._globals, **records})
        if header.kind in (b"\0", b"7"):
            header.kind = tar.REGULAR
        if header.kind == tar.REGULAR and header.name.endswith("/"):
            header.kind = tar.DIRECTORY  # as old archives mark directories
        if header.size < 0:
            raise ImageError("tar has a negative size", code="invalid-tar")
        self._parts = None
        holds = header.kind in (tar.REGULAR, tar.GNU_SPARSE)
        self._left = header.size if holds else 0
        self._pad = -header.size % BLOCK if holds else 0
        if header.kind == tar.GNU_SPARSE or (header.kind == tar.REGULAR and sparse.is_sparse(records)):
            self._see_parts(header, block, records)
        return header

    def _see_parts(self, header: Header, block: bytes, records: dict[str, bytes]) -> None:
        if header.kind == tar.GNU_SPARSE:
            self._parts = sparse.old_parts(block, lambda: self._exactly(BLOCK), header.size)
        elif sparse.map_in_data(records):
            self._parts = sparse.data_parts(records, self._block_of_data, header.size)
        else:
            self._parts = sparse.pax_parts(records, header.size)
        header.name = sparse.real_name(records) or header.name
        header.kind, header.size = tar.REGULAR, self._parts.size

    def _block_of_data(self) -> bytes:
        self._left -= BLOCK
        return self._exactly(BLOCK)
