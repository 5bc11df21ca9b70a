"""``fsck``: is what the store holds what it says it holds? Every byte of it is read.

Builds look at what they use, when they use it (``docs/design/0003``); this looks at everything, also at what nobody has
used for long, and says of each thing that is wrong what it is and what becomes of it. What processes that were killed
have left is no damage: it is cleared up first, as each build does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shiplap.errors import ImageError, ShiplapError, StoreError
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import parse_manifest
from shiplap.store.images import Image
from shiplap.store.index import seal
from shiplap.store.leases import SNAPSHOT
from shiplap.store.recover import extras
from shiplap.store.sealed import unsealed
from shiplap.store.snapshots import EMPTY, LayerBlob, Snapshot, blob_seal, remove_directory, snapshot_seal

if TYPE_CHECKING:
    from shiplap.store.store import Store


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong. ``code`` is for scripts; ``what``: a digest, id, name or path; ``text`` says it in words.

    ``remedy``: what repair does about it. ``repaired``: it has been done.
    """

    code: str
    what: str
    text: str
    remedy: str
    repaired: bool = False


class Report(msgspec.Struct, frozen=True):
    """What was found, and how much was looked at."""

    findings: tuple[Finding, ...]
    cleared: int
    """Things that killed processes had left, and that are gone now."""
    blobs: int
    bytes: int
    """Bytes of blobs that were read."""
    snapshots: int
    compared: int
    """Snapshots whose files were compared with their layer; the others were never packed, so there is nothing to go by."""
    images: int

    @property
    def clean(self) -> bool:
        """True if nothing is wrong, or nothing is any more."""
        return all(finding.repaired for finding in self.findings)


def check(store: Store, *, repair: bool = False, cancel: Callable[[], None] = lambda: None) -> Report:
    """Look at everything; with ``repair`` drop what is broken, so that the next build makes it again.

    Beside running builds this is safe: what they use is looked at, and not removed. ``cancel`` may raise to stop.
    """
    return _Check(store, repair, cancel).run()


class _Check:
    def __init__(self, store: Store, repair: bool, cancel: Callable[[], None]) -> None:
        self._store = store
        self._repair = repair
        self._cancel = cancel
        self._findings: list[Finding] = []
        self._read = self._bytes = self._compared = self._snapshots = self._images = 0
        self._bad: set[Digest] = set()
        """Blobs that are damaged; removed already, if we repair."""
        self._lost: set[str] = set()
        """Snapshots that are broken."""

    def run(self) -> Report:
        store = self._store
        cleared = store.recover()
        store.blobs.keep_damaged = not self._repair
        with store.in_use(self._cancel):
            cleared += self._clear_spoiled()
            if self._index():
                self._blobs()
                self._rows()
                self._files()
                self._contents()
            self._names()
            self._memories()
            self._strays()
        return Report(
            tuple(self._findings), cleared, self._read, self._bytes, self._snapshots, self._compared, self._images
        )

    def _find(self, code: str, what: str, text: str, remedy: str, mend: Callable[[], object] | None) -> None:
        """Note a finding and, if we repair and it can be done, mend it."""
        repaired = False
        if self._repair and mend is not None:
            try:
                mend()
                repaired = True
            except (OSError, StoreError) as error:
                remedy = f"{remedy}, but that failed: {error}"
        self._findings.append(Finding(code, what, text, remedy, repaired))

    # -- the index

    def _clear_spoiled(self) -> int:
        """What a crash of the machine may have spoiled is not believed by anybody: no damage, but no use either."""
        index = self._store.index
        rows = index.rows("SELECT id FROM snapshots WHERE boot NOT IN ('', ?)", index.boot)
        for (id,) in rows:
            self._store.snapshots.remove(id)
        return len(rows)

    def _index(self) -> bool:
        if self._store.index.replaced:
            found = "the index was damaged: it has been begun anew"
            self._findings.append(Finding("index-damaged", "index.sqlite", found, "cached steps are made again", True))
        wrong = self._store.index.check()
        if wrong:
            self._find(
                "index-damaged",
                "index.sqlite",
                f"the index is damaged: {'; '.join(wrong)[:500]}",
                "the next command begins it anew; cached steps are lost, images are not",
                self._store.index.condemn,
            )
        return not wrong

    # -- blobs

    def _blobs(self) -> None:
        store = self._store
        for path in self._blob_files():
            self._cancel()
            digest = f"{path.parent.name}:{path.name}"
            try:
                known = path.is_file() and not path.is_symlink() and store.blobs.path(digest) == path
            except ImageError:
                known = False
            if not known:
                self._find(
                    "blob-stray",
                    str(path.relative_to(store.root)),
                    f"{path.relative_to(store.root)} is no blob: it bears no digest as its name, or is no file",
                    "remove it",
                    partial(remove_directory, path),
                )
                continue
            self._read += 1
            self._one_blob(digest, path)

    def _blob_files(self) -> Iterator[Path]:
        for algorithm in sorted((self._store.root / "blobs").iterdir()):
            if algorithm.is_dir():
                yield from sorted(algorithm.iterdir())
            else:
                yield algorithm

    def _one_blob(self, digest: Digest, path: Path) -> None:
        import hashlib

        algorithm, _, expected = digest.partition(":")
        hasher = hashlib.new(algorithm)
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    self._cancel()
                    hasher.update(chunk)
                    self._bytes += len(chunk)
            status = path.stat()
        except FileNotFoundError:
            return  # pruned meanwhile
        except OSError as error:
            self._bad.add(digest)
            self._find(
                "blob-unreadable", digest, f"blob {digest} cannot be read: {error.strerror}", "remove it", path.unlink
            )
            return
        if hasher.hexdigest() != expected:
            self._bad.add(digest)
            self._find(
                "blob-corrupt",
                digest,
                f"blob {digest} is damaged: its {status.st_size} bytes have the digest {algorithm}:{hasher.hexdigest()}",
                "remove it: the next build or pull makes or fetches it again",
                partial(path.unlink, missing_ok=True),
            )
        elif status.st_uid != os.geteuid() or status.st_mode & 0o022:
            self._find(
                "blob-not-ours",
                digest,
                f"blob {digest} belongs to user {status.st_uid} and has the mode {stat.S_IMODE(status.st_mode):04o}:"
                " somebody else could change it",
                "take it over",
                partial(_take_over, path),
            )

    def _there(self, digest: Digest, size: int) -> bool:
        return digest not in self._bad and self._store.blobs.has(digest, size)

    # -- rows

    def _rows(self) -> None:
        index = self._store.index
        for key, *fields, sealed in index.rows("SELECT key, snapshot, canonical, seal FROM results"):
            if sealed != seal(key, *fields):
                self._row("results", key, partial(index.write, "DELETE FROM results WHERE key=?", key))
        for key, value, sealed in index.rows("SELECT key, value, seal FROM digests"):
            if sealed != seal(key, value):
                self._row("digests", key, partial(index.write, "DELETE FROM digests WHERE key=?", key))
        for id, compression, *rest, sealed in index.rows(
            "SELECT snapshot, compression, digest, size, media_type, seal FROM layer_blobs"
        ):
            blob = LayerBlob(*rest)

            drop = partial(self._forget_packed, id, compression)
            if sealed != blob_seal(id, compression, blob):
                self._row("layer_blobs", f"{id} {compression}", drop)
            elif not self._there(blob.digest, blob.size):
                if blob.digest not in self._bad:
                    self._find(
                        "blob-missing",
                        blob.digest,
                        f"the packed layer {blob.digest} of snapshot {id} is missing, or not of {blob.size} bytes",
                        "forget it: the layer is packed or fetched again when it is needed",
                        drop,
                    )
                elif self._repair:
                    drop()

    def _row(self, table: str, key: str, mend: Callable[[], object]) -> None:
        self._find(
            "row-damaged",
            f"{table} {key}"[:200],
            f"a row of the index's table {table} is damaged: {key[:120]}",
            "remove it: what it led to is made again",
            mend,
        )

    def _forget_packed(self, id: str, compression: str) -> None:
        """A snapshot that consisted of this packed layer alone, or stands for an image's layer, is nothing without it."""
        store = self._store
        store.index.write("DELETE FROM layer_blobs WHERE snapshot=? AND compression=?", id, compression)
        store.snapshots.look_again()
        if compression == "original" or store.snapshots.get(id) is None:
            store.snapshots.remove(id)
            self._lost.add(id)

    # -- snapshots

    def _files(self) -> None:
        store = self._store
        rows = store.index.rows("SELECT id, parent, layer, diff_id, created, seal FROM snapshots")
        self._snapshots = len(rows)
        ids = {row[0] for row in rows}
        for id, *fields, sealed in rows:
            snapshot = Snapshot(id, *fields)
            if id in self._lost:
                continue
            if sealed != snapshot_seal(snapshot):
                self._lost.add(id)
                self._row("snapshots", id, partial(store.snapshots.remove, id))
                continue
            directory = store.snapshots.directory / snapshot.layer
            files = (directory / "diff").is_dir()
            wrong = ""
            if not files and store.snapshots.table(snapshot.layer) is None:
                wrong = "its files are missing, or its table of contents is damaged"
            elif not files and store.snapshots.get(id) is None:
                wrong = "its packed layer, which is all there is of it, is missing or damaged"
            elif snapshot.layer not in ids:
                wrong = f"the snapshot {snapshot.layer} whose layer it shares is not recorded"
            elif snapshot.parent != EMPTY and snapshot.parent not in ids:
                wrong = f"the snapshot {snapshot.parent} beneath it is not recorded"
            if wrong and not store.lease.others_hold(SNAPSHOT, id):  # else it may be in the making
                self._lost.add(id)
                self._find(
                    "snapshot-broken",
                    id,
                    f"snapshot {id} is broken: {wrong}",
                    "remove it: its step runs again when it is needed",
                    partial(store.snapshots.remove, id),
                )
        if self._repair:
            self._remove_above(rows)
        with store.lease.deciding() as live:
            stray = extras(store, live)
        for name in stray:
            self._find(
                "snapshot-stray",
                f"snapshots/{name}",
                f"snapshots/{name} is not recorded: nothing uses it",
                "remove it",
                partial(remove_directory, store.snapshots.directory / name),
            )

    def _remove_above(self, rows: list[tuple[object, ...]]) -> None:
        """What stands on a snapshot that was removed goes too, without being a finding of its own."""
        lost = set(self._lost)
        while True:
            more = {str(row[0]) for row in rows if row[0] not in lost and (row[1] in lost or row[2] in lost)}
            if not more:
                return
            for id in more:
                self._store.snapshots.remove(id)
            lost |= more
            self._lost |= more

    # -- the files of snapshots, as far as something says what they should be

    def _contents(self) -> None:
        from shiplap.store.compare import differs

        index = self._store.index
        packed = index.rows("SELECT snapshot, digest FROM layer_blobs")
        without = self._lost | {snapshot for snapshot, digest in packed if digest in self._bad}
        for (id,) in index.rows("SELECT id FROM snapshots WHERE layer=id AND diff_id<>''"):
            self._cancel()
            snapshot = self._store.snapshots.get(id) if id not in without else None
            if snapshot is None or not (self._store.snapshots.directory / id / "diff").is_dir():
                continue
            try:
                wrong = differs(self._store, snapshot, self._cancel)
            except (ImageError, StoreError) as error:
                wrong = error.message
            if wrong is None:
                continue
            self._compared += 1
            if wrong:
                self._lost.add(id)
                self._find(
                    "snapshot-changed",
                    id,
                    f"the files of snapshot {id} are not those of its layer {snapshot.diff_id}: {wrong}",
                    "remove it: it is unpacked, or its step runs, again when it is needed",
                    partial(self._store.snapshots.remove, id),
                )
        if self._repair:
            self._remove_above(self._store.index.rows("SELECT id, parent, layer FROM snapshots"))

    # -- names and the rest

    def _names(self) -> None:
        store = self._store
        for name in sorted(os.listdir(store.images.directory)):
            path = store.images.directory / name
            image = store.images.read(path)
            if image is None or store.images.path(image.name) != path:
                self._find(
                    "name-damaged",
                    f"names/{name}",
                    f"names/{name} is damaged: which image it named cannot be known",
                    "remove it, and keep the images that have no other name under their digests",
                    partial(self._rename_lost, path),
                )
                continue
            self._images += 1
            missing = self._lacking(image.digest, image.whole)
            if missing:
                self._find(
                    "image-incomplete",
                    image.name,
                    f"the image {image.name} lacks {', '.join(missing)}",
                    "remember that it has to be fetched or built again"
                    if image.whole
                    else "forget its name: build or pull it again",
                    partial(self._lower, image, missing),
                )

    def _lower(self, image: Image, missing: list[str]) -> None:
        if any(what.startswith("layer") for what in missing) and len(self._lacking(image.digest, False)) == 0:
            self._store.images.keep(msgspec.structs.replace(image, whole=False))
        else:
            self._store.images.remove(image.name)

    def _lacking(self, digest: Digest, whole: bool) -> list[str]:
        """What of the manifest or index ``digest`` is not here; its layers matter only if it came here ``whole``."""
        from shiplap.oci.manifest import Index as ImageIndex

        store = self._store
        if not self._there(digest, -1):
            return [f"its manifest {digest}"]
        try:
            manifest = parse_manifest(store.blobs.read(digest), digest=digest)
        except ShiplapError as error:
            return [f"a manifest that can be read ({error.message})"]
        if isinstance(manifest, ImageIndex):
            here = [entry for entry in manifest.manifests if self._there(entry.digest, entry.size)]
            if not here:
                return ["a manifest of any platform"]
            return [what for entry in here for what in self._lacking(entry.digest, whole)]
        config = manifest.config
        found = [] if self._there(config.digest, config.size) else [f"its config {config.digest}"]
        if whole:
            found += [f"layer {one.digest}" for one in manifest.layers if not self._there(one.digest, one.size)]
        return found

    def _rename_lost(self, path: Path) -> None:
        store = self._store
        path.unlink()
        known = {digest for image in store.images.all() for digest in store.images.blobs_of(image.digest)}
        for digest, size in list(store.blobs.all()):
            if digest in known or size > 4 << 20 or store.blobs.path(digest).read_bytes()[:1] != b"{":
                continue
            try:
                manifest = parse_manifest(store.blobs.read(digest), digest=digest)
                whole = not self._lacking(digest, True)
            except ShiplapError:
                continue
            store.images.put(digest, digest, manifest.media_type, size, whole=whole)

    def _memories(self) -> None:
        for directory, what in (
            ("files", "remembered digests of a build context's files"),
            ("repeats", "the answer to a build that was asked again"),
        ):
            for path in sorted((self._store.root / directory).glob("*")):
                try:
                    sound = unsealed(path.name, path.read_bytes()) is not None
                except FileNotFoundError:
                    continue  # pruned meanwhile
                except OSError:
                    sound = False
                if not sound:
                    self._find(
                        "memory-damaged",
                        f"{directory}/{path.name}",
                        f"{directory}/{path.name}, {what}, is damaged",
                        "remove it: what it says is found out again",
                        partial(remove_directory, path),
                    )

    def _strays(self) -> None:
        """Temporary files that no living process has. Those of dead ones were cleared up with their leases."""
        store = self._store
        with store.lease.deciding():
            alive = store.lease.living()
            left = [name for name in os.listdir(store.temporary) if name.partition("-")[0] not in alive]
        for name in left:
            self._find(
                "temporary-stray",
                f"tmp/{name}",
                f"tmp/{name} was left by nobody known",
                "remove it",
                partial(remove_directory, store.temporary / name),
            )


def _take_over(path: Path) -> None:
    os.chown(path, os.geteuid(), os.getegid())
    path.chmod(0o600)
