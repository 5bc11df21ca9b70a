"""Reading a tar stream from outside, strictly forward and within limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from shiplap.errors import ImageError
from shiplap.layers import header as tar
from shiplap.layers.header import BLOCK, Header

EXTENDED_LIMIT = 1 << 20
"""Bytes of extended headers (PAX, GNU long names) of one member. A 1 GiB one costs 1 MB on the wire, and all memory."""

ENTRY_LIMIT = 10_000_000


class Source(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


class TarReader:
    """The members of a tar stream. Iterate; read a member's data with ``read`` or ``chunks`` before going on."""

    def __init__(self, stream: Source) -> None:
        self._stream = stream
        self._left = 0
        self._pad = 0
        self._globals: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Header]:
        entries = 0
        while (member := self._next()) is not None:
            entries += 1
            if entries > ENTRY_LIMIT:
                raise ImageError(f"tar has more than {ENTRY_LIMIT} members", code="too-many-entries")
            yield member

    def chunks(self, size: int = 1 << 20) -> Iterator[bytes]:
        """The data of the present member."""
        while self._left:
            chunk = self._stream.read(min(size, self._left))
            if not chunk:
                raise ImageError("unexpected EOF: the archive is cut short", code="truncated-tar")
            self._left -= len(chunk)
            yield chunk

    def _skip(self) -> None:
        for _ in self.chunks():
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
        if header.kind == b"S":
            raise ImageError("tar holds a sparse file in GNU form, which is not supported", code="unsupported-tar")
        if header.size < 0:
            raise ImageError("tar has a negative size", code="invalid-tar")
        self._left = header.size if header.kind == tar.REGULAR else 0
        self._pad = -header.size % BLOCK if header.kind == tar.REGULAR else 0
        return header
