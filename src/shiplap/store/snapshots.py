"""Snapshots: file systems as chains of layer directories. Made aside, renamed into place, then recorded."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec

from shiplap.errors import StoreError
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import prepare
from shiplap.store.blobs import Blobs
from shiplap.store.index import Index, now
from shiplap.store.locks import locked
from shiplap.trees.change import ChangeTree, remove_tree
from shiplap.trees.part import Content, Table
from shiplap.trees.tree import Tree

_TABLE = "contents"

EMPTY = ""
"""The id of the empty file system (scratch)."""


prepare(Content)


class Snapshot(msgspec.Struct, frozen=True):
    """One layer and, through ``parent``, those beneath it. ``diff_id`` is empty until the layer was packed.

    ``layer`` is the id under which the layer's directory lies: its own, or that of the snapshot it was made from over
    nothing (``COPY --link``), whose packed layer then is this one's too.
    """

    id: str
    parent: str
    layer: str
    diff_id: Digest
    created: float


class LayerBlob(msgspec.Struct, frozen=True):
    """A packed form of a snapshot's layer."""

    digest: Digest
    size: int
    media_type: str


class Draft:
    """A snapshot under construction: ``diff`` receives the layer, ``work`` is overlayfs' scratch directory."""

    def __init__(self, snapshots: Snapshots, parent: str) -> None:
        self._snapshots = snapshots
        self.parent = parent
        self.id = os.urandom(8).hex()
        self.directory = snapshots.temporary / f"snapshot-{os.getpid()}-{self.id}"
        self.diff = str(self.directory / "diff")
        self.work = str(self.directory / "work")

    def __enter__(self) -> Draft:
        try:
            os.makedirs(self.diff, 0o755)
            os.mkdir(self.work, 0o700)
        except OSError as error:
            raise StoreError(f"cannot write to the store: {error}", code="store-write") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.directory.exists():
            remove_directory(self.directory)

    def commit(
        self, *, about: str = "", id: str | None = None, diff_id: Digest = "", contents: Content | None = None
    ) -> Snapshot:
        """Publish it. ``id``: its name, when it is known beforehand (an image's layer); another's equal one may win.

        ``contents``: the layer was packed without being files; it is known by its table of contents until somebody
        needs the files. Its blob must be recorded (``record_blob``) at once.
        """
        remove_directory(Path(self.work))
        if contents is not None:
            remove_directory(Path(self.diff))
            (self.directory / _TABLE).write_bytes(msgspec.msgpack.encode(contents))
        name = id or self.id
        target = self._snapshots.directory / name
        try:
            self.directory.rename(target)
        except OSError:
            # Left by a process that died between rename and record, or made by another meanwhile.
            existing = self._snapshots.get(name)
            if existing is not None:
                return existing
            remove_directory(target)
            self.directory.rename(target)
        snapshot = Snapshot(name, self.parent, name, diff_id, now())
        self._snapshots.record(snapshot, about)
        return snapshot


class Snapshots:
    """The directory ``snapshots/<id>/diff`` of a store and its rows in the index."""

    def __init__(self, directory: Path, temporary: Path, index: Index, blobs: Blobs) -> None:
        self.directory = directory
        self.temporary = temporary
        self._index = index
        self._blobs = blobs
        self._unpacking = threading.RLock()

    def draft(self, parent: str) -> Draft:
        """Begin a layer over the snapshot ``parent`` (EMPTY: scratch)."""
        return Draft(self, parent)

    def record(self, snapshot: Snapshot, about: str) -> None:
        self._index.write(
            "INSERT OR REPLACE INTO snapshots(id, parent, layer, diff_id, created, used, about, boot) VALUES(?,?,?,?,?,?,?,?)",
            *(
                snapshot.id,
                snapshot.parent,
                snapshot.layer,
                snapshot.diff_id,
                snapshot.created,
                snapshot.created,
                about,
                self._index.boot,
            ),
        )

    def get(self, id: str) -> Snapshot | None:
        """The snapshot ``id`` if it is recorded, whole, and known to have survived."""
        row = self._index.row("SELECT id, parent, layer, diff_id, created, boot FROM snapshots WHERE id=?", id)
        if row is None or row[5] not in ("", self._index.boot) or not self._holds(row[2]):
            return None
        return Snapshot(*row[:5])

    def chain(self, id: str) -> list[Snapshot]:
        """The snapshot and those beneath it, top first; raises StoreError(code="snapshot-missing")."""
        found: list[Snapshot] = []
        while id != EMPTY:
            snapshot = self.get(id)
            if snapshot is None:
                raise StoreError(f"snapshot {id} is not in the store", code="snapshot-missing", hint="build again")
            found.append(snapshot)
            id = snapshot.parent
        return found

    def whole(self, id: str) -> bool:
        """True if the snapshot and all beneath it are there."""
        try:
            self.chain(id)
        except StoreError:
            return False
        return True

    def _holds(self, layer: str) -> bool:
        return (self.directory / layer / "diff").is_dir() or (self.directory / layer / _TABLE).exists()

    def diff(self, snapshot: Snapshot) -> str:
        """The directory of the snapshot's own layer; unpacked now if the layer was packed without being files."""
        path = self.directory / snapshot.layer / "diff"
        if not path.is_dir():
            with self._unpacking, locked(str(self.directory / snapshot.layer / "lock")):
                if not path.is_dir():
                    self._unpack(snapshot, path)
        return str(path)

    def source(self, snapshot: Snapshot) -> str | Table:
        """What to make a tree's layer of: the directory if there is one, else the table of contents."""
        directory = self.directory / snapshot.layer
        if (directory / "diff").is_dir():
            return str(directory / "diff")
        root = msgspec.msgpack.decode((directory / _TABLE).read_bytes(), type=Content)

        def open_file(path: str) -> int:
            return os.open(f"{self.diff(snapshot)}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

        return Table(root, open_file, lambda: self.diff(snapshot))

    def _unpack(self, snapshot: Snapshot, path: Path) -> None:
        from shiplap.layers.compression import Decompressed
        from shiplap.layers.unpack import unpack

        row = self._index.row("SELECT digest FROM layer_blobs WHERE snapshot=? LIMIT 1", snapshot.layer)
        if row is None:
            raise StoreError(f"snapshot {snapshot.layer} lost its layer", code="snapshot-missing", hint="build again")
        with self.draft(snapshot.parent) as draft, self._blobs.verified(row[0]) as blob:
            with self.tree(snapshot.parent) as base, ChangeTree(draft.diff, base) as target:
                unpack(Decompressed(blob), target)
            blob.finish()
            os.rename(draft.diff, path)

    def stack(self, id: str, layer: str, about: str) -> Snapshot:
        """Record the layer of the snapshot ``layer`` (made over nothing) on top of ``id``; no file is copied."""
        snapshot = Snapshot(os.urandom(8).hex(), id, layer, "", now())
        self.record(snapshot, about)
        return snapshot

    def directories(self, id: str) -> list[str]:
        """The layer directories of the whole chain, top first."""
        return [self.diff(snapshot) for snapshot in self.chain(id)]

    def tree(self, id: str) -> Tree:
        """The snapshot's file system; a context manager."""
        return Tree([self.source(snapshot) for snapshot in self.chain(id)])

    def blob(self, id: str, compression: str) -> LayerBlob | None:
        """The packed form with ``compression`` (``gzip``, ``zstd``, ``uncompressed``, or ``original``), if recorded."""
        row = self._index.row(
            "SELECT digest, size, media_type FROM layer_blobs WHERE snapshot=? AND compression=?", id, compression
        )
        return LayerBlob(*row) if row is not None else None

    def record_blob(self, id: str, compression: str, diff_id: Digest, blob: LayerBlob) -> None:
        with self._index.transaction() as run:
            run("UPDATE snapshots SET diff_id=? WHERE id=?", diff_id, id)
            run(
                "INSERT OR REPLACE INTO layer_blobs(snapshot, compression, digest, size, media_type) VALUES(?,?,?,?,?)",
                *(id, compression, blob.digest, blob.size, blob.media_type),
            )

    def remove(self, id: str) -> None:
        """Forget the snapshot, then delete its files."""
        with self._index.transaction() as run:
            run("DELETE FROM snapshots WHERE id=?", id)
            run("DELETE FROM layer_blobs WHERE snapshot=?", id)
            run("DELETE FROM results WHERE snapshot=?", id)
        remove_directory(self.directory / id)


def remove_directory(path: Path) -> None:
    """Remove a directory of the store, whatever modes its files have."""
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_tree(parent, path.name)
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror}", code="store-write") from error
    finally:
        os.close(parent)


def directory_bytes(path: Path) -> int:
    """Bytes on disk below ``path``."""
    total = 0
    pending = [str(path)]
    while pending:
        try:
            with os.scandir(pending.pop()) as found:
                for item in found:
                    total += item.stat(follow_symlinks=False).st_blocks * 512
                    if item.is_dir(follow_symlinks=False):
                        pending.append(item.path)
        except OSError:
            continue
    return total
