"""Digests of files' bytes; of large files as many at a time as there are processors."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence

from shiplap.trees.entry import Entry
from shiplap.trees.tree import Directory

LARGE = 4 << 20
"""Bytes from which a file is worth a thread: hashing it takes 3 ms, in which nobody else waits for the interpreter."""
CHUNK = 1 << 20


def file_digest(directory: Directory, entry: Entry) -> bytes:
    """sha256 of a regular file's bytes; TreeError if it is cut short while it is read."""
    if entry.size <= CHUNK:
        return hashlib.sha256(directory.read_file(entry)).digest()
    return _digest(directory.open_file(entry))


def _digest(fd: int) -> bytes:
    try:
        hasher = hashlib.sha256()
        while chunk := os.read(fd, CHUNK):
            hasher.update(chunk)
        return hasher.digest()
    finally:
        os.close(fd)


def file_digests(directory: Directory, entries: Sequence[Entry]) -> dict[str, bytes]:
    """``file_digest`` of several large files of one directory, by name. Raises what the first of them in order raised."""
    from concurrent.futures import ThreadPoolExecutor  # 10 ms, which only large files are worth

    opening = threading.Lock()  # a walk's directories are one thread's at a time (held.py)

    def digest(entry: Entry) -> bytes:
        with opening:
            fd = directory.open_file(entry)
        return _digest(fd)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, len(entries)), "shiplap-hash") as pool:
        return {entry.name: found for entry, found in zip(entries, pool.map(digest, entries), strict=True)}
