"""Snapshots: file systems as chains of layer directories. Made aside, renamed into place, then recorded."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from shiplap.errors import StoreError
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import prepare
from shiplap.store.blobs import Blobs, fault
from shiplap.store.index import Index, now, seal
from shiplap.store.leases import NAMED_SNAPSHOT, NEW_SNAPSHOT, SNAPSHOT
from shiplap.store.locks import locked
from shiplap.store.sealed import sealed, unsealed
from shiplap.trees.change import ChangeTree, remove_tree
from shiplap.trees.owners import Owners
from shiplap.trees.part import Content, Table
from shiplap.trees.tree import Tree

_TABLE = "contents"
_ORIGINAL = "original"

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
        self._blobs = snapshots.blobs
        self._held = ExitStack()
        self.parent = parent
        self.id = os.urandom(8).hex()
        self.directory = snapshots.temporary / f"{self._blobs.lease.begin()}-snapshot-{self.id}"
        self.diff = str(self.directory / "diff")
        self.work = str(self.directory / "work")

    def __enter__(self) -> Draft:
        try:
            os.makedirs(self.diff, 0o755)
            os.mkdir(self.work, 0o700)
        except OSError as error:
            remove_directory(self.directory)
            raise fault(error, self.directory) from None
        self._held.enter_context(self._blobs.space.watched(self.directory))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
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
        name = id or self.id
        target = self._snapshots.directory / name
        try:
            if contents is not None:
                data = msgspec.msgpack.encode(contents)
                (self.directory / _TABLE).write_bytes(sealed(name, data))
            size = self._blobs.space.settle(self.directory) if self._blobs.space.limit else -1
            self._blobs.lease.make(NAMED_SNAPSHOT if id else NEW_SNAPSHOT, name)
            try:
                self.directory.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # Left by a process that died between rename and record, or made by another meanwhile.
                existing = self._snapshots.get(name)
                if existing is not None:
                    return existing
                remove_directory(target)
                self.directory.rename(target)
        except OSError as error:
            raise fault(error, self.directory) from None
        snapshot = Snapshot(name, self.parent, name, diff_id, now())
        self._snapshots.record(snapshot, about, size)
        return snapshot


class Snapshots:
    """The directory ``snapshots/<id>/diff`` of a store and its rows in the index."""

    def __init__(self, directory: Path, locks: Path, index: Index, blobs: Blobs) -> None:
        self.directory = directory
        self._path = str(directory)
        self.temporary = blobs.temporary
        self.blobs = blobs
        self._locks = locks
        self._index = index
        self._unpacking = threading.RLock()
        self._known: dict[str, Snapshot] = {}
        """Seen to be there, and held since by our lease: they need not be looked at again."""

    def draft(self, parent: str) -> Draft:
        """Begin a layer over the snapshot ``parent`` (EMPTY: scratch)."""
        return Draft(self, parent)

    def record(self, snapshot: Snapshot, about: str, size: int = -1) -> None:
        """Write its row. ``size``: bytes on disk, -1 = nobody measured yet."""
        self._known.pop(snapshot.id, None)
        self._index.write(
            "INSERT OR REPLACE INTO snapshots(id, parent, layer, diff_id, created, used, bytes, about, boot, seal)"
            " VALUES(?,?,?,?,?,?,?,?,?,?)",
            *(snapshot.id, snapshot.parent, snapshot.layer, snapshot.diff_id, snapshot.created, snapshot.created),
            *(size, about, self._index.boot, snapshot_seal(snapshot)),
        )

    def get(self, id: str) -> Snapshot | None:
        """The snapshot ``id`` if it is recorded, whole, and known to have survived. It then stays as long as we run."""
        known = self._known.get(id)
        if known is not None:
            return known
        self.blobs.lease.hold(SNAPSHOT, id)
        row = self._index.row("SELECT id, parent, layer, diff_id, created, boot, seal FROM snapshots WHERE id=?", id)
        if row is None or row[5] not in ("", self._index.boot):
            return None
        snapshot = Snapshot(*row[:5])
        if row[6] != snapshot_seal(snapshot) or not self._holds(snapshot.layer):
            return None
        if self.blobs.lease.active:
            self._known[id] = snapshot
        return snapshot

    def chain(self, id: str) -> list[Snapshot]:
        """The snapshot and those beneath it, top first; none for EMPTY. Raises StoreError(code="snapshot-missing")."""
        found: list[Snapshot] = []
        while id != EMPTY:
            snapshot = self.get(id)
            if snapshot is None:
                raise StoreError(f"snapshot {id} is not in the store", code="snapshot-missing", hint="build again")
            found.append(snapshot)
            id = snapshot.parent
        return found

    def look_again(self) -> None:
        """Doubt all that was seen: something was found damaged, or is held no longer."""
        self._known.clear()

    def whole(self, id: str) -> bool:
        """True if the snapshot and all beneath it are there."""
        try:
            self.chain(id)
        except StoreError:
            return False
        return True

    def _holds(self, layer: str) -> bool:
        """Whether what makes the layer is there: its files or its packed form; an image's layer needs both.

        (Packed again it would be another blob than the one its image names.)
        """
        made_of = self.directory / layer
        files = (made_of / "diff").is_dir()
        if not files and not (made_of / _TABLE).exists():
            return False
        recorded = {row[0] for row in self._index.rows("SELECT compression FROM layer_blobs WHERE snapshot=?", layer)}
        if _ORIGINAL in recorded:
            return self.blob(layer, _ORIGINAL) is not None
        return files or any(self.blob(layer, compression) is not None for compression in recorded)

    def diff(self, snapshot: Snapshot) -> str:
        """The directory of the snapshot's own layer; unpacked now if the layer was packed without being files."""
        path = f"{self._path}/{snapshot.layer}/diff"
        if not os.path.isdir(path):
            with self._unpacking, locked(str(self._locks / f"unpack-{snapshot.layer}"), remove=True):
                if not os.path.isdir(path):
                    self._unpack(snapshot, path)
        return path

    def source(self, snapshot: Snapshot) -> str | Table:
        """What to make a tree's layer of: the directory if there is one, else the table of contents."""
        path = f"{self._path}/{snapshot.layer}/diff"  # no pathlib: this is asked n times for a tree of n layers
        if os.path.isdir(path):
            return path
        root = self.table(snapshot.layer)
        if root is None:
            self.remove(snapshot.layer)
            raise StoreError(
                f"the table of contents of snapshot {snapshot.layer} is damaged",
                code="snapshot-damaged",
                hint="build again: it was removed, and will be made anew",
            )

        def open_file(path: str) -> int:
            return os.open(f"{self.diff(snapshot)}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

        return Table(root, open_file, lambda: self.diff(snapshot))

    def table(self, layer: str) -> Content | None:
        """The table of contents of a layer that was packed without being files; None if it is missing or damaged."""
        try:
            raw = (self.directory / layer / _TABLE).read_bytes()
            data = unsealed(layer, raw)
            return msgspec.msgpack.decode(data, type=Content) if data is not None else None
        except (OSError, msgspec.MsgspecError):
            return None

    def seal_table(self, layer: str) -> None:
        """Give the table of contents of version 1 its seal."""
        path = self.directory / layer / _TABLE
        data = path.read_bytes()
        if unsealed(layer, data) is None:
            aside = path.with_name("contents.sealed")
            aside.write_bytes(sealed(layer, data))
            aside.rename(path)

    def _unpack(self, snapshot: Snapshot, path: str) -> None:
        from shiplap.layers.compression import Decompressed
        from shiplap.layers.unpack import unpack

        rows = self._index.rows("SELECT compression FROM layer_blobs WHERE snapshot=?", snapshot.layer)
        packed = next((found for row in rows if (found := self.blob(snapshot.layer, row[0])) is not None), None)
        if packed is None:
            self._known.pop(snapshot.id, None)
            raise StoreError(f"snapshot {snapshot.layer} lost its layer", code="snapshot-missing", hint="build again")
        try:
            with (
                self.draft(snapshot.parent) as draft,
                self.blobs.blamed(packed.digest),
                self.blobs.verified(packed.digest) as blob,
            ):
                with self.tree(snapshot.parent) as base, ChangeTree(draft.diff, base) as target:
                    unpack(Decompressed(blob), target)
                blob.finish()
                if self.blobs.space.limit:
                    self.blobs.space.settle(draft.directory)
                with suppress(FileNotFoundError):  # owners on record come first: files without theirs would be believed
                    os.rename(Owners.file_for(draft.diff), Owners.file_for(path))
                os.rename(draft.diff, path)
        except StoreError:
            self._known.pop(snapshot.id, None)  # its blob may be what was the matter
            raise
        self._index.write("UPDATE snapshots SET bytes=-1 WHERE id=?", snapshot.layer)

    def stack(self, id: str, layer: str, about: str) -> Snapshot:
        """Record the layer of the snapshot ``layer`` (made over nothing) on top of ``id``; no file is copied."""
        snapshot = Snapshot(os.urandom(8).hex(), id, layer, "", now())
        self.blobs.lease.make(NEW_SNAPSHOT, snapshot.id)
        self.record(snapshot, about, 0)
        return snapshot

    def directories(self, id: str) -> list[str]:
        """The layer directories of the whole chain, top first."""
        return [self.diff(snapshot) for snapshot in self.chain(id)]

    def tree(self, id: str) -> Tree:
        """The snapshot's file system (EMPTY: one without files); a context manager."""
        return Tree([self.source(snapshot) for snapshot in self.chain(id)])

    def blob(self, id: str, compression: str) -> LayerBlob | None:
        """The packed form with ``compression`` (``gzip``, ``zstd``, ``uncompressed``, or ``original``), if it is here.

        It has the size that it was recorded with; its bytes are looked at when it is copied out. Only one that may have
        suffered from a crash of the machine is read now.
        """
        row = self._index.row(
            "SELECT digest, size, media_type, boot, seal FROM layer_blobs WHERE snapshot=? AND compression=?",
            *(id, compression),
        )
        if row is None:
            return None
        found = LayerBlob(*row[:3])
        if row[4] != blob_seal(id, compression, found) or not self.blobs.has(found.digest, found.size):
            return None
        if row[3] not in ("", self._index.boot):
            try:
                self.blobs.check(found.digest)
            except StoreError:
                return None
            self._index.write("UPDATE layer_blobs SET boot=? WHERE digest=?", self._index.boot, found.digest)
        return found

    def record_blob(self, id: str, compression: str, diff_id: Digest, blob: LayerBlob) -> None:
        """Note that the layer ``id`` is packed in ``blob``, and what its diff id is."""
        with self._index.transaction() as run:
            row = self._index.row("SELECT id, parent, layer, diff_id, created FROM snapshots WHERE id=?", id)
            if row is not None:
                snapshot = msgspec.structs.replace(Snapshot(*row), diff_id=diff_id)
                run("UPDATE snapshots SET diff_id=?, seal=? WHERE id=?", diff_id, snapshot_seal(snapshot), id)
            run(
                "INSERT OR REPLACE INTO layer_blobs(snapshot, compression, digest, size, media_type, boot, seal)"
                " VALUES(?,?,?,?,?,?,?)",
                *(id, compression, blob.digest, blob.size, blob.media_type, self._index.boot),
                blob_seal(id, compression, blob),
            )
        self._known.pop(id, None)

    def remove(self, id: str) -> None:
        """Forget the snapshot, then delete its files."""
        self._known.pop(id, None)
        try:
            self.forget([id])
        except StoreError as error:
            if error.code != "disk-full":
                raise
            # The index has no room to forget: a row without files is not believed either, and its files free some.
            remove_directory(self.directory / id)
            self.forget([id])
        remove_directory(self.directory / id)

    def condemn(self, snapshot: Snapshot) -> StoreError:
        """Remove a snapshot whose files are no longer those of its layer; the error to raise."""
        self.remove(snapshot.layer)
        return StoreError(
            f"the files of snapshot {snapshot.layer} are no longer those of its layer {snapshot.diff_id}",
            code="snapshot-changed",
            hint="build again: it was removed, and will be made anew",
        )

    def forget(self, ids: list[str]) -> None:
        """Remove the rows of snapshots, and of what was known of them."""
        with self._index.transaction() as run:
            for id in ids:
                run("DELETE FROM snapshots WHERE id=?", id)
                run("DELETE FROM layer_blobs WHERE snapshot=?", id)
                run("DELETE FROM results WHERE snapshot=?", id)
        for id in ids:
            self._known.pop(id, None)


def snapshot_seal(snapshot: Snapshot) -> int:
    """The seal of a snapshot's row."""
    return seal(snapshot.id, snapshot.parent, snapshot.layer, snapshot.diff_id, snapshot.created)


def blob_seal(snapshot: str, compression: str, blob: LayerBlob) -> int:
    """The seal of the row of a packed layer."""
    return seal(snapshot, compression, blob.digest, blob.size, blob.media_type)


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
