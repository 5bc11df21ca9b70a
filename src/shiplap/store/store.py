"""The store: one directory with everything shiplap keeps, for any number of processes at once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.errors import StoreError
from shiplap.store.blobs import Blobs
from shiplap.store.images import Images
from shiplap.store.index import Index, now
from shiplap.store.locks import locked
from shiplap.store.results import FileMemory, Results
from shiplap.store.snapshots import Snapshots, remove_directory

_DIRECTORIES = ("blobs/sha256", "snapshots", "tmp", "locks", "files", "mounts", "logs")
_SETTLED = 60.0
"""Seconds after which the kernel has most likely written a file out by itself (dirty_expire_centisecs is 30 s)."""


class Store:
    """Opens (and if need be makes) the store at ``root``. A context manager.

    Raises StoreError: store-unusable (not a directory, not ours, not writable), index, store-version.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = root.stat()
            if not (root / "locks").is_dir():
                for name in _DIRECTORIES:
                    (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot use {root} as the store: {error.strerror}",
                code="store-unusable",
                hint="choose another directory with --root or SHIPLAP_ROOT",
            ) from None
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise StoreError(
                f"the store {root} belongs to somebody else, or others may write to it",
                code="store-unusable",
                hint=f"chown and chmod 700 {root}, or choose another directory with --root",
            )
        self.temporary = root / "tmp"
        self.index = Index(root / "index.sqlite")
        self.blobs = Blobs(root / "blobs", self.temporary)
        self.snapshots = Snapshots(root / "snapshots", self.temporary, self.index, self.blobs)
        self.results = Results(self.index)
        self.images = Images(self.index, self.blobs)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.index.close()

    @contextmanager
    def in_use(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold while building: nothing that is used may be pruned meanwhile."""
        with locked(str(self.root / "locks" / "store"), shared=True, check=check):
            self._settle()
            yield

    @contextmanager
    def alone(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold while removing things: waits until no build runs."""
        with locked(str(self.root / "locks" / "store"), check=check):
            yield

    @contextmanager
    def once(self, key: str, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold while doing the work of ``key``, so that several processes do it once. Look again when you have it."""
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        with locked(str(self.root / "locks" / name), check=check):
            yield

    def file_memory(self, context: str) -> FileMemory:
        """Remembered digests of the files of the context directory ``context``."""
        return FileMemory(self.root / "files" / hashlib.sha256(os.fsencode(context)).hexdigest()[:32])

    def cache_mount(self, id: str) -> Path:
        """The directory of the cache mount ``id`` (any text; it never becomes a path). May not exist yet."""
        return self.root / "mounts" / hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()

    @contextmanager
    def scratch(self, what: str) -> Iterator[Path]:
        """A private temporary directory inside the store."""
        path = self.temporary / f"{what}-{os.getpid()}-{os.urandom(6).hex()}"
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            remove_directory(path)

    def sweep(self) -> int:
        """Remove what dead processes left in ``tmp`` and what a crash of the machine spoiled. Needs ``alone``.

        Returns how many things went.
        """
        removed = 0
        for path in self.temporary.iterdir():
            if path.is_dir():
                remove_directory(path)
            else:
                path.unlink(missing_ok=True)
            removed += 1
        for (spoiled,) in self.index.rows("SELECT id FROM snapshots WHERE boot NOT IN ('', ?)", self.index.boot):
            self.snapshots.remove(spoiled)
            removed += 1
        known = {row[0] for row in self.index.rows("SELECT id FROM snapshots")}
        for path in self.snapshots.directory.iterdir():
            if path.name not in known:
                remove_directory(path)
                removed += 1
        return removed

    def _settle(self) -> None:
        # Snapshots written a while ago are on disk by now, or nearly: make sure, beside the build, and then believe
        # them after a crash of the machine too. Fresh ones are not waited for: that would cost every build a sync.
        limit = now() - _SETTLED
        boot = self.index.boot
        if (
            not boot
            or self.index.row("SELECT 1 FROM snapshots WHERE boot=? AND created<? LIMIT 1", boot, limit) is None
        ):
            return

        def settle() -> None:
            try:
                os.sync()
                self.index.write("UPDATE snapshots SET boot='' WHERE boot=? AND created<?", boot, limit)
            except (StoreError, OSError):
                return  # the store was closed meanwhile; the next build tries again

        threading.Thread(target=settle, name="shiplap-settle", daemon=True).start()
