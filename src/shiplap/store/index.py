"""What the store knows of what it keeps: one sqlite database, in WAL mode, that several processes may use at once.

A row is the commit point of what it names: files without a row are garbage. Rows written since the machine booted and
not yet known to be on disk carry that boot's id; after a crash of the machine they are not believed.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shiplap.errors import StoreError

VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots(
  id TEXT PRIMARY KEY, parent TEXT NOT NULL, layer TEXT NOT NULL, diff_id TEXT NOT NULL DEFAULT '', created REAL NOT NULL,
  used REAL NOT NULL, bytes INTEGER NOT NULL DEFAULT 0, about TEXT NOT NULL DEFAULT '', boot TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS snapshots_parent ON snapshots(parent);
CREATE TABLE IF NOT EXISTS layer_blobs(
  snapshot TEXT NOT NULL, compression TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  media_type TEXT NOT NULL, PRIMARY KEY(snapshot, compression));
CREATE TABLE IF NOT EXISTS results(
  key TEXT PRIMARY KEY, snapshot TEXT NOT NULL, canonical TEXT NOT NULL, parts BLOB NOT NULL,
  created REAL NOT NULL, used REAL NOT NULL, about TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS results_snapshot ON results(snapshot);
CREATE TABLE IF NOT EXISTS images(
  name TEXT PRIMARY KEY, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS digests(key TEXT PRIMARY KEY, value TEXT NOT NULL, used REAL NOT NULL);
"""


class Index:
    """The database. Safe to use from several threads: one connection, one lock; statements are short."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._path = path
        self.boot = _boot_id()
        try:
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
            elif version != VERSION:
                raise StoreError(
                    f"the store's index is of version {version}, this shiplap reads version {VERSION}",
                    code="store-version",
                    hint="use the shiplap that made the store, or another --root",
                )
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows that ``statement`` gives."""
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._fault(error) from error

    def row(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row that ``statement`` gives, or None."""
        found = self.rows(statement, *values)
        return found[0] if found else None

    def write(self, statement: str, *values: Any) -> int:
        """Run one writing statement as a transaction; the number of rows it changed."""
        with self.transaction() as run:
            return int(run(statement, *values))

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Yields ``run(statement, *values) -> rows changed``; all of it takes hold, or nothing."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield lambda statement, *values: self._db.execute(statement, values).rowcount
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> StoreError:
        full = "full" in str(error)
        return StoreError(
            f"the store's index cannot be used: {error} ({self._path})",
            code="disk-full" if full else "index",
            hint="free some space, or run shiplap prune"
            if full
            else "check its permissions; rm of the file costs the cache only",
        )


def now() -> float:
    """Wall clock, for display and age alone."""
    return time.time()


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
