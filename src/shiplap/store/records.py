"""What the store holds, record by record, in the terms of ``docker buildx du``: what du shows and prune goes by."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shiplap.errors import StoreError, UsageError
from shiplap.oci.digest import Digest, is_digest
from shiplap.store.leases import BLOB, MOUNT, SNAPSHOT
from shiplap.store.recover import blobs_of
from shiplap.store.snapshots import directory_bytes

if TYPE_CHECKING:
    from shiplap.store.store import Store

STEP, GIT, LOCAL, CACHE_MOUNT, INTERNAL, IMAGE = (
    "regular",
    "source.git.checkout",
    "source.local",
    "exec.cachemount",
    "internal",
    "image",
)
"""Kinds of records, the first four named as BuildKit names them. ``internal`` is a blob that nothing leads to any more,
``image`` an image that was built without a name."""


REPEAT = "answer to a build that was asked again"


class Record(msgspec.Struct):
    """One thing that may be removed. ``used``, ``created``: seconds since 1970; ``size``: bytes on disk.

    ``shared``: part of it stays when it goes, for an image with a name needs it. ``blobs`` are those it leads to.
    """

    id: str
    kind: str
    size: int
    created: float
    used: float
    about: str = ""
    parents: tuple[str, ...] = ()
    mutable: bool = False
    in_use: bool = False
    shared: bool = False
    files: int = 0
    """Bytes of its directory alone."""
    blobs: tuple[Digest, ...] = ()


class Inventory:
    """All records, and what leads to each blob. ``live``: what running processes hold (``Lease.deciding``)."""

    def __init__(self, store: Store, sizes: Sizes, live: set[tuple[str, str]]) -> None:
        self.store = store
        self.blobs: dict[Digest, int] = sizes.blobs
        self.needed: Counter[Digest] = Counter()
        """How many records and names lead to a blob."""
        self.pinned = {name for kind, name in live if kind == BLOB}
        self.named: set[Digest] = set()
        self.records: list[Record] = []
        self._live = live
        self._sizes = sizes
        self._images()
        self._snapshots()
        self._directories()
        self._rest()

    @property
    def total(self) -> int:
        """Bytes of all that is kept."""
        return self._sizes.total

    def _images(self) -> None:
        unnamed = []
        for image in self.store.images.all():
            closure = blobs_of(self.store, image.digest)
            self.needed.update(closure)
            if is_digest(image.name):
                unnamed.append((image, closure))
            else:
                self.named |= closure
        for image, closure in unnamed:
            record = self._record(image.digest, IMAGE, 0, image.created, image.created, blobs=tuple(closure))
            record.about = "image without a name"
            record.in_use = image.digest in self.pinned
            self.records.append(record)

    def _snapshots(self) -> None:
        index = self.store.index
        packed: dict[str, set[Digest]] = {}
        for snapshot, digest in index.rows("SELECT snapshot, digest FROM layer_blobs"):
            packed.setdefault(snapshot, set()).add(digest)
        rows = index.rows("SELECT id, parent, layer, created, used, about FROM snapshots")
        beneath = {row[0]: tuple({row[1], row[2]} - {"", row[0]}) for row in rows}
        held = self._with_beneath({name for kind, name in self._live if kind == SNAPSHOT}, beneath)
        for id, _, layer, created, used, about in rows:
            blobs = tuple(packed.get(id, ()))
            self.needed.update(blobs)
            kind = GIT if about.startswith("git ") else STEP
            files = self._sizes.snapshots.get(id, 0) if layer == id else 0
            record = self._record(id, kind, files, created, used, about=about, parents=beneath[id], blobs=blobs)
            record.in_use = id in held
            self.records.append(record)

    @staticmethod
    def _with_beneath(ids: set[str], beneath: dict[str, tuple[str, ...]]) -> set[str]:
        found: set[str] = set()
        pending = list(ids)
        while pending:
            id = pending.pop()
            if id not in found:
                found.add(id)
                pending.extend(beneath.get(id, ()))
        return found

    def _directories(self) -> None:
        held = {name for kind, name in self._live if kind == MOUNT}
        for name, (size, used) in self._sizes.mounts.items():
            id = name.partition(".")[0]
            about = self.store.results.digest(f"mount {id}") or "cache mount"
            self.records.append(
                self._record(name, CACHE_MOUNT, size, used, used, about=about, mutable=True, in_use=id in held)
            )
        for kind, about, sizes in (
            (GIT, "copy of a git repository", self._sizes.repositories),
            (LOCAL, "digests of a build context's files", self._sizes.memories),
            (LOCAL, REPEAT, self._sizes.repeats),
        ):
            for name, (size, used) in sizes.items():
                self.records.append(self._record(name, kind, size, used, used, about=about, mutable=True))

    def _rest(self) -> None:
        for digest, size in self.blobs.items():
            if not self.needed[digest]:
                moment = self._sizes.written.get(digest, 0.0)
                record = self._record(digest, INTERNAL, 0, moment, moment, about="blob that nothing leads to")
                record.size = size
                record.in_use = digest in self.pinned
                self.records.append(record)

    def _record(
        self,
        id: str,
        kind: str,
        files: int,
        created: float,
        used: float,
        *,
        about: str = "",
        parents: tuple[str, ...] = (),
        blobs: tuple[Digest, ...] = (),
        mutable: bool = False,
        in_use: bool = False,
    ) -> Record:
        size = files + sum(self.blobs.get(digest, 0) for digest in blobs)
        shared = any(digest in self.named for digest in blobs)
        return Record(id, kind, size, created, used, about, parents, mutable, in_use, shared, files, blobs)


class Sizes:
    """How much everything takes: measured without the gate, for it may take a while."""

    def __init__(self, store: Store) -> None:
        self.blobs: dict[Digest, int] = {}
        self.written: dict[Digest, float] = {}
        for digest, size in store.blobs.all():
            self.blobs[digest] = size
            try:
                self.written[digest] = store.blobs.path(digest).stat().st_mtime
            except FileNotFoundError:
                pass
        self.snapshots = snapshot_sizes(store)
        self.mounts = _directories(store.root / "mounts")
        self.repositories = _directories(store.root / "git")
        self.memories = _files(store.root / "files")
        self.repeats = _files(store.root / "repeats")
        self.logs = directory_bytes(store.root / "logs")
        self.unfinished = {name: _bytes(store.temporary / name) for name in os.listdir(store.temporary)}
        """What builds are making, or what those left that were killed; in no record and no total, for it goes by itself."""
        self.total = (
            sum(self.blobs.values())
            + sum(self.snapshots.values())
            + sum(
                size
                for found in (self.mounts, self.repositories, self.memories, self.repeats)
                for size, _ in found.values()
            )
            + self.logs
            + index_bytes(store)
        )


def snapshot_sizes(store: Store) -> dict[str, int]:
    """Bytes on disk of each snapshot's own directory; those not measured yet are measured now, and remembered."""
    sizes: dict[str, int] = {}
    measured: dict[str, int] = {}
    for id, size in store.index.rows("SELECT id, bytes FROM snapshots WHERE layer=id"):
        if size < 0:
            size = measured[id] = directory_bytes(store.snapshots.directory / id)
        sizes[id] = size
    if measured:
        # On a full disk it is measured again next time.
        with suppress(StoreError), store.index.transaction() as run:
            for id, size in measured.items():
                run("UPDATE snapshots SET bytes=? WHERE id=? AND bytes<0", size, id)
    return sizes


def index_bytes(store: Store) -> int:
    """Bytes of the index and its log."""
    total = 0
    for suffix in ("", "-wal", "-shm"):
        try:
            total += os.stat(f"{store.root}/index.sqlite{suffix}").st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def _bytes(path: Path) -> int:
    try:
        return directory_bytes(path) + path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _directories(parent: Path) -> dict[str, tuple[int, float]]:
    if not parent.is_dir():
        return {}
    return {
        path.name: (directory_bytes(path), path.stat().st_mtime)
        for path in parent.iterdir()
        if path.is_dir() and not path.is_symlink()
    }


def _files(parent: Path) -> dict[str, tuple[int, float]]:
    if not parent.is_dir():
        return {}
    return {path.name: (path.stat().st_blocks * 512, path.stat().st_mtime) for path in parent.iterdir()}


# -- filters, as docker buildx prune and du have them


class Filter(msgspec.Struct, frozen=True):
    """One condition: ``field`` is, is not (``!=``), matches (``~=``) ``value``, or (empty ``how``) holds."""

    field: str
    how: str
    value: str

    def takes(self, record: Record) -> bool:
        if not self.how:
            return _FLAGS[self.field](record)
        found = _TEXTS[self.field](record)
        if self.how == "==":
            return found == self.value
        return (found != self.value) if self.how == "!=" else re.search(self.value, found) is not None


_FLAGS: dict[str, Callable[[Record], bool]] = {
    "inuse": lambda record: record.in_use,
    "mutable": lambda record: record.mutable,
    "immutable": lambda record: not record.mutable,
    "shared": lambda record: record.shared,
    "private": lambda record: not record.shared,
}
_TEXTS: dict[str, Callable[[Record], str]] = {
    "id": lambda record: record.id,
    "type": lambda record: record.kind,
    "description": lambda record: record.about,
    "parents": lambda record: ";".join(record.parents),
}


def parse_filter(text: str) -> Filter:
    """Read ``--filter``: ``id=BEGINNING``, ``type=KIND``, ``description~=WORDS``, ``parents=ID``, ``inuse``, ``shared``,
    ``private``, ``mutable``, ``immutable``; ``!=`` and ``~=`` as well as ``=``. Raises UsageError(code="invalid-filter").
    """
    match = re.fullmatch(r"([a-z]+)(?:(!=|~=|==|=)(.*))?", text.strip(), re.DOTALL)
    field, how, value = match.groups() if match is not None else ("", "", "")
    if how and field in _FLAGS and how in ("=", "==") and value.lower() in ("1", "true"):
        how = None
    known = _TEXTS if how else _FLAGS
    if field not in known:
        raise UsageError(
            f"cannot read the filter {text[:200]!r}",
            code="invalid-filter",
            hint="until=24h, type=exec.cachemount, id=…, description~=…, parents=…, inuse, shared, private, mutable, immutable",
        )
    if how == "=" and field == "id":
        how, value = "~=", re.escape(value)  # as buildx has it: part of an id is enough
    elif how == "=":
        how = "=="
    if how == "~=":
        try:
            re.compile(value)
        except re.error as error:
            raise UsageError(
                f"the filter {text[:200]!r} is no regular expression: {error}", code="invalid-filter"
            ) from None
    return Filter(field, how or "", value or "")
