"""What the store knows of what it keeps: one sqlite database, in WAL mode, that several processes may use at once.

A row is the commit point of what it names: files without a row are garbage. Rows written since the machine booted and
not yet known to be on disk carry that boot's id; after a crash of the machine they are not believed. sqlite has no
checksums, so each row that matters bears a seal: one whose seal is broken is as if it were not there.

The index is a cache of what may be made again; names of images are not in it (``images.py``). So one that turns out to be
damaged is set aside by whoever opens it next, and begun anew.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shiplap.errors import StoreError
from shiplap.store.locks import Held, hold_lock, locked

VERSION = 2
_MARK = 0x73680000
"""``application_id`` is this and the version: a version that differs from it is damage, not another shiplap's."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots(
  id TEXT PRIMARY KEY, parent TEXT NOT NULL, layer TEXT NOT NULL, diff_id TEXT NOT NULL DEFAULT '', created REAL NOT NULL,
  used REAL NOT NULL, bytes INTEGER NOT NULL DEFAULT -1, about TEXT NOT NULL DEFAULT '', boot TEXT NOT NULL DEFAULT '',
  seal INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS snapshots_parent ON snapshots(parent);
CREATE INDEX IF NOT EXISTS snapshots_layer ON snapshots(layer);
CREATE TABLE IF NOT EXISTS layer_blobs(
  snapshot TEXT NOT NULL, compression TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  media_type TEXT NOT NULL, boot TEXT NOT NULL DEFAULT '', seal INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(snapshot, compression));
CREATE TABLE IF NOT EXISTS results(
  key TEXT PRIMARY KEY, snapshot TEXT NOT NULL, canonical TEXT NOT NULL, parts BLOB NOT NULL,
  created REAL NOT NULL, used REAL NOT NULL, about TEXT NOT NULL DEFAULT '', seal INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS results_snapshot ON results(snapshot);
CREATE TABLE IF NOT EXISTS digests(
  key TEXT PRIMARY KEY, value TEXT NOT NULL, used REAL NOT NULL, seal INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS taken(lease TEXT PRIMARY KEY, bytes INTEGER NOT NULL);
"""
# ``snapshots.bytes`` is -1 until somebody measured; ``taken`` is what running builds write now (``room.py``).

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def seal(*values: object) -> int:
    """A checksum of the values of a row. It finds damage, not malice: the store is private to its owner."""
    return zlib.crc32("\0".join(map(str, values)).encode("utf-8", "surrogateescape"))


class Index:
    """The database. Safe to use from several threads: one connection, one lock; statements are short.

    ``fresh``: there was nothing in it. ``replaced``: it was damaged and has been begun anew. ``older``: it is of
    version 1, and whoever opened it is to bring it up to date (``migrate.py``).
    """

    def __init__(self, path: Path, guard: Path) -> None:
        self._lock = threading.RLock()
        self._path = path
        self._damaged = path.with_name("index.damaged")
        self.boot = _boot_id()
        self.fresh = self.replaced = self.older = False
        held = hold_lock(str(guard), shared=True)
        assert held is not None
        self._guard: Held = held
        try:
            self._db = self._opened(guard)
        except BaseException:
            self._guard.release()
            raise

    def _opened(self, guard: Path) -> sqlite3.Connection:
        if not self._damaged.exists():
            try:
                if self._path.exists():
                    return self._connect()
                # Of several that begin it at once, all but one would be told that it is locked (PRAGMA journal_mode).
                with locked(f"{guard}.new"):
                    return self._connect()
            except sqlite3.Error as error:
                if not self._is_damage(error):
                    raise self._fault(error) from error
        # Nobody may have it open when it goes: a write-ahead log must never meet another database than its own.
        self._guard.release()
        found = _alone(str(guard))
        if found is None:
            raise StoreError(
                "the store's index is damaged, and other shiplap processes still have it open",
                code="index-damaged",
                hint="run this again when they have ended: the index is then begun anew, and no image is lost",
            )
        self._guard = found
        try:
            if self._damaged.exists() or not self._readable():
                for path in (f"{self._path}-wal", f"{self._path}-shm", self._path, self._damaged):
                    with suppress(FileNotFoundError):
                        os.unlink(path)
                self.replaced = True
            db = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise self._fault(error) from error
        self._guard.share()
        return db

    def _readable(self) -> bool:
        try:
            self._connect().close()
        except sqlite3.Error as error:
            return not self._is_damage(error)
        return True

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            db.text_factory = _text
            if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != VERSION:
                self._begin(db, version)
        except BaseException:
            db.close()
            raise
        return db

    def _begin(self, db: sqlite3.Connection, version: int) -> None:
        mark = db.execute("PRAGMA application_id").fetchone()[0]
        if version == 0 and mark == 0:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id={_MARK | VERSION}")
                db.execute(f"PRAGMA user_version={VERSION}")
            db.execute("COMMIT")
            self.fresh = True
        elif version == 1 and mark == 0:
            self.older = True
        elif mark != _MARK | version:
            raise sqlite3.DatabaseError("malformed: its version is not the one it was given")
        else:
            raise StoreError(
                f"the store's index is of version {version}, this shiplap reads version {VERSION}",
                code="store-version",
                hint="use the shiplap that made the store, or another --root",
            )

    def upgraded(self, run: Any) -> None:
        """Mark it as of this version; inside the transaction whose ``run`` this is."""
        run(f"PRAGMA application_id={_MARK | VERSION}")
        run(f"PRAGMA user_version={VERSION}")
        self.older = False

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._guard.release()

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

    def use(self, hits: Mapping[str, str]) -> bool:
        """Note that these keys, and the snapshots they lead to, are of use now: ``prune`` goes by it.

        False if one of them leads elsewhere by now, or to what is not believed after a crash.
        """
        moment = now()
        there = True
        with self.transaction() as run:
            for key, snapshot in hits.items():
                there &= run("UPDATE results SET used=? WHERE key=? AND snapshot=?", moment, key, snapshot) > 0
                if snapshot:  # an empty one names none
                    believed = "UPDATE snapshots SET used=? WHERE id=? AND boot IN ('', ?)"
                    there &= run(believed, moment, snapshot, self.boot) > 0
        return there

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Yields ``run(statement, *values) -> rows changed``; all of it takes hold, or nothing."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield lambda statement, *values: self._db.execute(statement, values).rowcount
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._fault(error) from error

    def check(self) -> list[str]:
        """What sqlite finds wrong with the file's structure, in its own words; nothing if it is sound."""
        with self._lock:
            try:
                found = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check(20)")]
            except sqlite3.Error as error:
                found = [str(error)]
        return [] if found == ["ok"] else found

    def condemn(self) -> None:
        """Let whoever opens the index next begin it anew."""
        with suppress(OSError):
            self._damaged.touch(0o600)

    @staticmethod
    def _is_damage(error: BaseException) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return isinstance(error, sqlite3.Error) and "malformed" in str(error)
        # Our statements are right: a table or column they do not find is a schema whose bytes have changed.
        return code & 0xFF in _DAMAGE or (code & 0xFF == sqlite3.SQLITE_ERROR and "no such" in str(error))

    def _fault(self, error: BaseException) -> StoreError:
        if self._is_damage(error) or (_code(error) == sqlite3.SQLITE_READONLY and os.access(self._path, os.W_OK)):
            self.condemn()
            return StoreError(
                f"the store's index is damaged: {error} ({self._path})",
                code="index-damaged",
                hint="run the same again: the index is begun anew; that costs what was cached, but no image",
            )
        if _code(error) == sqlite3.SQLITE_FULL or (_code(error) == sqlite3.SQLITE_IOERR and _is_full(self._path)):
            return StoreError(
                f"no space left for the store's index ({self._path})",
                code="disk-full",
                hint="free some space, or run shiplap prune",
            )
        return StoreError(
            f"the store's index cannot be used: {error} ({self._path})",
            code="index",
            hint="check its permissions; rm of the file costs the cache only",
        )


def now() -> float:
    """Wall clock, for display and age alone."""
    return time.time()


def _alone(guard: str) -> Held | None:
    for _ in range(50):
        found = hold_lock(guard, wait=False)
        if found is not None:
            return found
        time.sleep(0.02)
    return None


def _text(data: bytes) -> str:
    # Damage may have made it no UTF-8; then the seal of its row is broken too, and nobody believes it.
    return data.decode("utf-8", "surrogateescape")


def _code(error: BaseException) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _is_full(path: Path) -> bool:
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < 1 << 16 or (found.f_files > 0 and found.f_favail < 2)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
