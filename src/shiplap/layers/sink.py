"""Where a tar goes: hashed, compressed in blocks on all processors, hashed again and written, in order.

Four things go on at once: the caller reads files and hashes the plain bytes; as many threads as there are processors
compress a block each; one thread hashes and writes what came out. A tar of a single block starts no thread.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from shiplap.layers.compression import Codec
from shiplap.oci.digest import Digest

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_WAITING = 4
"""Blocks beyond one for each processor that may be in memory, compressed or not yet."""


class Packed(msgspec.Struct, frozen=True):
    """What came out: ``diff_id`` of the plain tar, ``digest`` and ``size`` of the compressed one, ``plain_size`` in bytes."""

    diff_id: Digest
    digest: Digest
    size: int
    plain_size: int


class Sink:
    """Takes pieces of any size with ``add``; a context manager. Its bytes depend on the pieces joined and the codec alone."""

    def __init__(self, out: BinaryIO, codec: Codec, *, threads: int = 0) -> None:
        self._out = out
        self._codec = codec
        self._threads = threads or min(len(os.sched_getaffinity(0)), 16)
        self._plain = hashlib.sha256()
        self._compressed = hashlib.sha256()
        self._crc = self._size = self._plain_size = 0
        self._crc32 = _crc32()
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._pool: ThreadPoolExecutor | None = None
        self._writer: threading.Thread | None = None
        self._queue: queue.Queue[Future[bytes] | None] = queue.Queue(self._threads + _WAITING)
        self._fault: BaseException | None = None

    def __enter__(self) -> Sink:
        self._write(self._codec.head)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._gathered:
                self._send(b"".join(self._pieces))
        finally:
            if self._writer is not None:
                self._queue.put(None)
                self._writer.join()
            if self._pool is not None:
                self._pool.shutdown()
        if kind is None:
            if self._fault is not None:
                raise self._fault
            self._write(self._codec.tail(self._crc, self._plain_size))

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._gathered += len(piece)
        size = self._codec.block_size
        if self._gathered < size:
            return
        gathered = b"".join(self._pieces)
        whole = self._gathered - self._gathered % size
        for start in range(0, whole, size):
            if self._writer is None:
                self._start()
            self._send(gathered[start : start + size])
        self._pieces = [gathered[whole:]]
        self._gathered -= whole

    def packed(self) -> Packed:
        return Packed(
            "sha256:" + self._plain.hexdigest(), "sha256:" + self._compressed.hexdigest(), self._size, self._plain_size
        )

    def _start(self) -> None:
        from concurrent.futures import ThreadPoolExecutor  # 10 ms, which a tar of one block does not need

        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="shiplap-compress")
        self._writer = threading.Thread(target=self._drain, name="shiplap-write", daemon=True)
        self._writer.start()

    def _send(self, block: bytes) -> None:
        if self._fault is not None:
            raise self._fault
        if self._pool is not None:
            self._queue.put(self._pool.submit(self._codec.block, block))
        self._plain.update(block)
        self._crc = self._crc32(block, self._crc)
        self._plain_size += len(block)
        if self._pool is None:
            self._write(self._codec.block(block))

    def _drain(self) -> None:
        while (block := self._queue.get()) is not None:
            try:
                if self._fault is None:
                    self._write(block.result())
            except BaseException as fault:  # noqa: BLE001  handed to the producing thread, which raises it
                self._fault = fault

    def _write(self, data: bytes) -> None:
        if data:
            self._compressed.update(data)
            self._size += len(data)
            self._out.write(data)


def _crc32() -> Callable[[bytes, int], int]:
    from isal import isal_zlib  # 12 GB/s, where zlib's makes 1

    return isal_zlib.crc32
