"""Bringing a store of an earlier version up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiplap.store.images import Image
from shiplap.store.index import SCHEMA, seal
from shiplap.store.locks import locked
from shiplap.store.snapshots import LayerBlob, Snapshot, blob_seal, snapshot_seal

if TYPE_CHECKING:
    from shiplap.store.store import Store


def migrate(store: Store) -> None:
    """Version 1 had no seals, no leases, and the names of images in the index. Nothing is lost.

    Waits until no shiplap of that version builds: it held this lock.
    """
    index = store.index
    with locked(str(store.root / "locks" / "store")), index.transaction() as run:
        if index.rows("PRAGMA user_version")[0][0] != 1:
            index.older = False
            return  # another process was faster
        for name, digest, media_type, size, created in index.rows(
            "SELECT name, digest, media_type, size, created FROM images"
        ):
            # It may lack layers that no step has needed yet.
            store.images.keep(Image(name, digest, media_type, size, created, whole=False))
        run("DROP TABLE images")
        for table in ("snapshots", "layer_blobs", "results", "digests"):
            run(f"ALTER TABLE {table} ADD COLUMN seal INTEGER NOT NULL DEFAULT 0")
        run("ALTER TABLE layer_blobs ADD COLUMN boot TEXT NOT NULL DEFAULT ''")
        # What a crash may have spoiled was not known of packed layers: each is read once.
        run("UPDATE layer_blobs SET boot='unknown'")
        run("UPDATE snapshots SET bytes=-1")
        for statement in SCHEMA.split(";"):
            run(statement)
        for id, *fields in index.rows("SELECT id, parent, layer, diff_id, created FROM snapshots"):
            run("UPDATE snapshots SET seal=? WHERE id=?", snapshot_seal(Snapshot(id, *fields)), id)
        for id, compression, *fields in index.rows(
            "SELECT snapshot, compression, digest, size, media_type FROM layer_blobs"
        ):
            sealed = blob_seal(id, compression, LayerBlob(*fields))
            run("UPDATE layer_blobs SET seal=? WHERE snapshot=? AND compression=?", sealed, id, compression)
        for key, *fields in index.rows("SELECT key, snapshot, canonical FROM results"):
            run("UPDATE results SET seal=? WHERE key=?", seal(key, *fields), key)
        for key, value in index.rows("SELECT key, value FROM digests"):
            run("UPDATE digests SET seal=? WHERE key=?", seal(key, value), key)
        for path in store.snapshots.directory.glob("*/contents"):
            store.snapshots.seal_table(path.parent.name)
        index.upgraded(run)
