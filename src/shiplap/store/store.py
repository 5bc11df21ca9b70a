"""The store: one directory with everything shiplap keeps, for any number of processes at once."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shiplap.errors import StoreError
from shiplap.store.blobs import Blobs, fault
from shiplap.store.images import Images
from shiplap.store.index import Index, now
from shiplap.store.leases import MOUNT, Lease
from shiplap.store.locks import locked
from shiplap.store.results import FileMemory, Results
from shiplap.store.room import Room, Spare
from shiplap.store.snapshots import Snapshots, remove_directory

_DIRECTORIES = ("blobs/sha256", "snapshots", "tmp", "locks", "leases", "files", "mounts", "logs", "names")
_SETTLED = 60.0
"""Seconds after which the kernel has most likely written a file out by itself (dirty_expire_centisecs is 30 s)."""
_OVERDUE = 600.0
"""Seconds after which that is made sure of: so often at most does a build's end wait for the disk."""
_open: list[Store] = []
"""The stores that this process has open."""


def abandon() -> None:
    """``Store.abandon`` for all stores that are open in this process."""
    for store in _open.copy():
        store.abandon()


class Store:
    """Opens (and if need be makes) the store at ``root``. A context manager.

    Raises StoreError: store-unusable (not a directory, not ours, not writable), index, index-damaged, store-version.
    """

    def __init__(self, root: Path, *, freeing: bool = False) -> None:
        """``freeing``: to make room. Then it opens on a full disk too: what was put by for that is given up."""
        self.root = root
        self._spare = Spare(root / "spare")
        if freeing:
            self._spare.release()
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = root.stat()
            if not (root / _DIRECTORIES[-1]).is_dir():
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
        self.lease = Lease(root)
        self.room = Room(self)
        try:
            self.index = Index(root / "index.sqlite", root / "locks" / "index")
        except OSError as error:
            raise fault(error, root / "index.sqlite") from None
        self.blobs = Blobs(root / "blobs", self.temporary, self.lease, self.room)
        self.snapshots = Snapshots(root / "snapshots", root / "locks", self.index, self.blobs)
        self.results = Results(self.index)
        self.images = Images(root / "names", self.blobs)
        self._users = 0
        if self.index.older:
            from shiplap.store.migrate import migrate

            migrate(self)
        if self.index.replaced or (self.index.fresh and os.listdir(self.snapshots.directory)):
            self.sweep()  # no snapshot is recorded any more

    def __enter__(self) -> Store:
        _open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.lease.abandon()  # a thread that nobody waits for any more (a silent server) begins nothing after us
        self._end()
        _open.remove(self)
        self.index.close()
        self._spare.keep()

    @contextmanager
    def in_use(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold while building: what is looked up or made from now on is not pruned meanwhile.

        First clears up after processes that were killed.
        """
        check()
        try:
            self.lease.begin()
        except OSError as error:
            raise fault(error, self.root / "leases") from None
        self._users += 1
        try:
            self.recover()
            self._settle()
            yield
        finally:
            self._users -= 1
            if not self._users:
                self.room.end()
                self._end()
                self.snapshots.look_again()

    @contextmanager
    def once(self, key: str, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold while doing the work of ``key``, so that several processes do it once. Look again when you have it."""
        with locked(str(self.lock_of(key)), remove=True, check=check):
            yield

    def lock_of(self, key: str) -> Path:
        """The lock file of ``once(key)``."""
        return self.root / "locks" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def file_memory(self, context: str) -> FileMemory:
        """Remembered digests of the files of the context directory ``context``."""
        return FileMemory(
            self.root / "files" / hashlib.sha256(os.fsencode(context)).hexdigest()[:32], lambda: self.aside("memory")
        )

    def cache_mount(self, id: str) -> Path:
        """The directory of the cache mount ``id`` (any text; it never becomes a path). May not exist yet."""
        name = hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()
        path = self.root / "mounts" / name
        self.lease.hold(MOUNT, name)
        try:
            os.utime(path)  # when it was last of use
        except FileNotFoundError:
            self.results.put_digest(f"mount {name}", id.replace("\0", " "))
        return path

    def aside(self, what: str) -> Path:
        """A new name for something temporary of this process."""
        return self.temporary / f"{self.lease.begin()}-{what}-{os.urandom(6).hex()}"

    @contextmanager
    def scratch(self, what: str) -> Iterator[Path]:
        """A private temporary directory inside the store."""
        path = self.aside(what)
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            raise fault(error, path) from None
        try:
            yield path
        finally:
            remove_directory(path)

    def _end(self) -> None:
        # All is removed by whoever made it, but where an interrupt came between the making and the ``with`` that removes it.
        for name in self._left():
            with suppress(StoreError):
                remove_directory(self.temporary / name)
        self.lease.end()

    def _left(self) -> list[str]:
        own = self.lease.name
        with suppress(FileNotFoundError):  # the store itself has been removed
            return [name for name in os.listdir(self.temporary) if name.startswith(f"{own}-")] if own else []
        return []

    def abandon(self) -> None:
        """Remove the temporary files of this process, whose threads may still be busy with them: it is about to end.

        Goes on until none is left. Takes no lock, and raises nothing: a signal handler calls it.
        """
        self.lease.abandon()
        while left := self._left():
            for name in left:
                with suppress(StoreError, OSError):
                    remove_directory(self.temporary / name)

    def recover(self) -> int:
        """Clear up after processes that were killed; how many things went."""
        dead = self.lease.dead()
        if not dead:
            return 0
        from shiplap.store.recover import clear_up

        return clear_up(self, dead)

    def sweep(self) -> int:
        """Remove what dead processes left and what a crash of the machine spoiled; how many things went."""
        from shiplap.store.recover import sweep

        return self.recover() + sweep(self)

    def _settle(self) -> None:
        # Snapshots written a while ago are on disk by now, or nearly: make sure, beside the build, and then believe
        # them after a crash of the machine too. Fresh ones are not waited for: that would cost every build a sync.
        # Nor does every build of a busy hour have to wait for those of a minute ago.
        limit, overdue = now() - _SETTLED, now() - _OVERDUE
        boot = self.index.boot
        if (
            not boot
            or self.index.row("SELECT 1 FROM snapshots WHERE boot=? AND created<? LIMIT 1", boot, overdue) is None
        ):
            return

        def settle() -> None:
            # One of several builds at a time: each sync(2) waits for all that is written, by the others too, and until it
            # returns a process cannot end. (syncfs(2) of the same disk took no less time.)
            with (
                suppress(StoreError, OSError),  # the store was closed meanwhile; the next build tries again
                locked(str(self.root / "locks" / "settle"), wait=False) as ours,
            ):
                if not ours:
                    return
                packed = self.index.rows("SELECT snapshot, compression FROM layer_blobs WHERE boot=?", boot)
                os.sync()
                with self.index.transaction() as run:
                    run("UPDATE snapshots SET boot='' WHERE boot=? AND created<?", boot, limit)
                    for snapshot, compression in packed:
                        run("UPDATE layer_blobs SET boot='' WHERE snapshot=? AND compression=?", snapshot, compression)

        threading.Thread(target=settle, name="shiplap-settle", daemon=True).start()
