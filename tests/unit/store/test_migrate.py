"""A store of the first version is brought up to date, and nothing of it is lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from shiplap.store.snapshots import LayerBlob
from shiplap.store.store import Store

VERSION_1 = """
CREATE TABLE snapshots(
  id TEXT PRIMARY KEY, parent TEXT NOT NULL, layer TEXT NOT NULL, diff_id TEXT NOT NULL DEFAULT '', created REAL NOT NULL,
  used REAL NOT NULL, bytes INTEGER NOT NULL DEFAULT 0, about TEXT NOT NULL DEFAULT '', boot TEXT NOT NULL DEFAULT '');
CREATE INDEX snapshots_parent ON snapshots(parent);
CREATE TABLE layer_blobs(
  snapshot TEXT NOT NULL, compression TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  media_type TEXT NOT NULL, PRIMARY KEY(snapshot, compression));
CREATE TABLE results(
  key TEXT PRIMARY KEY, snapshot TEXT NOT NULL, canonical TEXT NOT NULL, parts BLOB NOT NULL,
  created REAL NOT NULL, used REAL NOT NULL, about TEXT NOT NULL DEFAULT '');
CREATE INDEX results_snapshot ON results(snapshot);
CREATE TABLE images(
  name TEXT PRIMARY KEY, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE digests(key TEXT PRIMARY KEY, value TEXT NOT NULL, used REAL NOT NULL);
PRAGMA user_version=1;
"""


def test_nothing_of_version_1_is_lost(tmp_path: Path) -> None:
    root = tmp_path / "s"
    for name in ("blobs/sha256", "snapshots/one/diff", "tmp", "locks", "files", "mounts", "logs"):
        (root / name).mkdir(parents=True)
    root.chmod(0o700)
    digest = "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730"  # "bar\n"
    (root / "blobs" / digest.replace(":", "/")).write_bytes(b"bar\n")
    with sqlite3.connect(root / "index.sqlite") as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript(VERSION_1)
        old.execute("INSERT INTO snapshots VALUES('one','','one','sha256:d',1.5,1.5,0,'RUN x','')")
        old.execute("INSERT INTO layer_blobs VALUES('one','gzip',?,4,'type')", (digest,))
        old.execute("INSERT INTO results VALUES('key','one','canonical',x'7b7d',1.5,1.5,'RUN x')")
        old.execute("INSERT INTO digests VALUES('one x','value',1.5)")
        old.execute("INSERT INTO images VALUES('docker.io/library/a:1',?,'type',4,1.5)", (digest,))
    old.close()
    for _ in range(2):
        with Store(root) as store:
            found = store.snapshots.get("one")
            assert found is not None and found.diff_id == "sha256:d"
            assert store.snapshots.blob("one", "gzip") == LayerBlob(digest, 4, "type")
            result = store.results.get("key")
            assert result is not None and result.snapshot == "one"
            assert store.results.digest("one x") == "value"
            assert [(image.name, image.digest, image.created) for image in store.images.all()] == [
                ("docker.io/library/a:1", digest, 1.5)
            ]
            assert store.index.rows("PRAGMA user_version") == [(2,)]
            assert not store.index.older
