"""Results of earlier steps, by cache key; and remembered digests of files that did not change."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from shiplap.store.index import Index, now, seal
from shiplap.store.sealed import sealed, unsealed
from shiplap.trees.entry import Entry, is_text


def built_key(manifest: str) -> str:
    """The key under which the snapshot is kept that the image ``manifest`` was packed from."""
    return f"image {manifest}"


class Result(msgspec.Struct, frozen=True):
    """What a key led to: a snapshot, and the canonical key that the same work bears under any of its names."""

    snapshot: str
    canonical: str


class Results:
    """The cache: key -> result, with the named parts of the key kept, so that a miss can be explained."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def get(self, key: str) -> Result | None:
        row = self._index.row("SELECT snapshot, canonical, seal FROM results WHERE key=?", key)
        return Result(*row[:2]) if row is not None and row[2] == seal(key, *row[:2]) else None

    def put(self, key: str, result: Result, parts: Mapping[str, str], about: str) -> None:
        moment = now()
        self._index.write(
            "INSERT OR REPLACE INTO results(key, snapshot, canonical, parts, created, used, about, seal)"
            " VALUES(?,?,?,?,?,?,?,?)",
            *(key, result.snapshot, result.canonical, msgspec.json.encode(dict(parts)), moment, moment, about),
            seal(key, result.snapshot, result.canonical),
        )

    def touch(self, hits: Mapping[str, str]) -> None:
        """Note that these keys, and the snapshots they led to, were of use now. ``prune`` goes by it."""
        if hits:
            self._index.use(hits)

    def digest(self, key: str) -> str | None:
        """A remembered content digest of part of an immutable snapshot."""
        row = self._index.row("SELECT value, seal FROM digests WHERE key=?", key)
        return str(row[0]) if row is not None and row[1] == seal(key, row[0]) else None

    def put_digest(self, key: str, value: str) -> None:
        self._index.write(
            "INSERT OR REPLACE INTO digests(key, value, used, seal) VALUES(?,?,?,?)",
            key,
            value,
            now(),
            seal(key, value),
        )


class FileMemory:
    """Digests of a build context's files, remembered by inode, size, mtime and ctime (nanoseconds).

    One small file for each context, read when the first file is asked for. A file that changed less than two seconds
    before it was read is not remembered: within a clock tick it could change again unseen (git's "racy" rule).
    """

    def __init__(self, file: Path, aside: Callable[[], Path] | None = None) -> None:
        """``aside`` names a temporary file in the same file system."""
        self._file = file
        self._aside = aside or (lambda: file.with_name(f"{file.name}.{os.getpid()}"))
        self._known: dict[str, tuple[int, int, int, int, bytes]] | None = None
        self._seen: dict[str, tuple[int, int, int, int, bytes]] = {}
        self._changed = False

    def recall(self, path: str, entry: Entry) -> bytes | None:
        if self._known is None:
            self._known = self._load()
        known = self._known.get(path)
        if known is None or known[:4] != (entry.inode, entry.size, entry.mtime, entry.ctime):
            return None
        self._seen[path] = known
        return known[4]

    def remember(self, path: str, entry: Entry, digest: bytes) -> None:
        if now() * 1e9 - max(entry.ctime, entry.mtime) > 2e9 and is_text(path):
            self._seen[path] = (entry.inode, entry.size, entry.mtime, entry.ctime, digest)
            self._changed = True

    def save(self) -> None:
        """Write what was seen in this build; other files of the context are kept as they were known."""
        if not self._changed:
            return
        temporary = self._aside()
        try:
            data = msgspec.msgpack.encode({**(self._known or {}), **self._seen})
            temporary.write_bytes(sealed(self._file.name, data))
            temporary.rename(self._file)
        except OSError:
            temporary.unlink(missing_ok=True)  # costs a re-read next time, nothing else

    def _load(self) -> dict[str, tuple[int, int, int, int, bytes]]:
        try:
            data = unsealed(self._file.name, self._file.read_bytes())
            return msgspec.msgpack.decode(data, type=dict[str, tuple[int, int, int, int, bytes]]) if data else {}
        except (OSError, msgspec.MsgspecError):
            return {}
