"""Room: how much the store may take, asked for before it is taken; and what is said when the disk has no more."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shiplap.errors import StoreError

if TYPE_CHECKING:
    from shiplap.store.store import Store

_GRANT = 16 << 20
"""Bytes that are asked for at once, at most, while a file of unknown size is written."""
_POLL = 0.1
"""Seconds between two looks at how the disk fills while steps run."""


class Room:
    """The limit of one process for the store; 0 is none, and costs nothing.

    What is being written counts from the moment it is asked for: in the table ``taken``, one row a process, so that
    several builds that keep to a limit keep to it together. When it would be passed, what nobody uses goes, least
    recently used first; if that is not enough, ``take`` raises StoreError(code="store-full").
    """

    def __init__(self, store: Store) -> None:
        self.limit = 0
        self.stop: Callable[[], None] = lambda: None
        """Called when steps write more than there is room for: it is to end them. ``fault`` then says why."""
        self.fault: StoreError | None = None
        self._store = store
        self._lock = threading.Lock()
        self._taken = 0
        self._drafts: dict[str, int] = {}
        self._watching: threading.Event | None = None

    def take(self, size: int) -> None:
        """Ask for ``size`` bytes more. Give them back with ``give`` when they are counted otherwise, or gone."""
        if self.limit and size > 0:
            with self._lock:
                self._ask(size)

    def take_some(self, size: int) -> int:
        """The same for a file whose size is not known yet: asks for more than ``size`` if there is room; how much it got."""
        more = max(size, min(_GRANT, self.limit // 64))
        try:
            self.take(more)
        except StoreError:
            if more == size or self.fault is not None:
                raise
            self.take(size)
            return size
        return more

    def give(self, size: int) -> None:
        """What was asked for is not needed any more, or is counted as part of the store from now on."""
        if self.limit and size > 0:
            with self._lock:
                self._taken = max(self._taken - size, 0)
                self._note()

    def _ask(self, size: int) -> None:
        if self.fault is not None:
            raise self.fault
        from shiplap.store.prune import make_room

        self._taken += size
        try:
            make_room(self._store, self.limit, self._taken)
        except StoreError:
            self._taken -= size
            self._note()
            raise

    def _note(self) -> None:
        lease = self._store.lease.begin()
        self._store.index.write("INSERT OR REPLACE INTO taken(lease, bytes) VALUES(?,?)", lease, self._taken)

    def end(self) -> None:
        """Nothing is being written any more."""
        if self.limit and self._store.lease.active:
            with suppress(StoreError):
                self._store.index.write("DELETE FROM taken WHERE lease=?", self._store.lease.begin())

    # -- what steps write by themselves

    @contextmanager
    def watched(self, directory: Path) -> Iterator[None]:
        """While a step writes below ``directory``, look how much that is. What it holds in the end has been taken."""
        if not self.limit:
            yield
            return
        path = str(directory)
        with self._lock:
            self._drafts[path] = 0
            if self._watching is None:
                self._watching = threading.Event()
                threading.Thread(target=self._watch, args=(self._watching,), name="shiplap-room", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                taken = self._drafts.pop(path)
                if not self._drafts and self._watching is not None:
                    self._watching.set()
                    self._watching = None
            self.give(taken)

    def settle(self, directory: Path) -> int:
        """Take what is below ``directory`` now, which is about to be kept; its bytes on disk. Raises store-full."""
        from shiplap.store.snapshots import directory_bytes

        size = directory_bytes(directory)
        with self._lock:
            self._grow(str(directory), size)
        return size

    def _grow(self, path: str, size: int) -> None:
        more = size - self._drafts.get(path, 0)
        if more > 0:
            self._ask(more)
            self._drafts[path] = size

    def _watch(self, ended: threading.Event) -> None:
        from shiplap.store.snapshots import directory_bytes

        free = _free(self._store.root)
        while not ended.wait(_POLL):
            # A walk is dear, a look at the disk is not: only what takes space can have grown.
            left = _free(self._store.root)
            if left >= free:
                free = left
                continue
            free = left
            with self._lock:
                watched = list(self._drafts)
            for path in watched:
                size = directory_bytes(Path(path))
                with self._lock:
                    if path not in self._drafts:
                        continue
                    try:
                        self._grow(path, size)
                    except StoreError as error:
                        self.fault = error
                        self.stop()
                        return


class Spare:
    """A little room that is put by: on a full disk, nothing could be removed if there were none for saying so."""

    _FILES = 4
    _SIZE = 64 << 10

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self) -> None:
        """Put it by, unless it is; or, on a full disk, do without."""
        if (self._directory / str(self._FILES - 1)).exists():
            return
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for number in range(self._FILES):
                fd = os.open(self._directory / str(number), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, self._SIZE)
                finally:
                    os.close(fd)

    def release(self) -> None:
        """Give it up."""
        for number in range(self._FILES):
            with suppress(OSError):
                os.unlink(self._directory / str(number))


def full_disk(root: Path) -> str | None:
    """What to try, if the disk of the store at ``root`` is full; else None."""
    try:
        found = os.statvfs(root)
    except OSError:
        return None
    if found.f_bavail * found.f_frsize >= 1 << 20 and not (found.f_files and found.f_favail < 16):
        return None
    return f"the disk of the store is full ({root}): free some space, or run shiplap prune"


def write_fault(error: OSError, path: str | Path, need: int = 0) -> StoreError:
    """What is said of a failure to write to the store: where, how much was needed (bytes, 0: not known), what is free."""
    where = os.fsdecode(error.filename or "")
    if not where.startswith("/"):
        where = f"{where} below {path}" if where else f"{path}"  # a name in a directory that we had open
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"cannot write to the store: {error.strerror or error} ({where})", code="store-write")
    from shiplap.events.plain import size_text

    needed = f"{size_text(need)} more are needed, " if need else ""
    free = ""
    try:
        found = os.statvfs(path if os.path.exists(path) else os.path.dirname(path))
        inodes = f" and {found.f_favail} more files" if found.f_files and found.f_favail < 1000 else ""
        free = f"{needed}there is room for {size_text(found.f_bavail * found.f_frsize)}{inodes}"
    except OSError:
        free = needed.rstrip(", ")
    return StoreError(
        f"no space left to write {where}" + (f": {free}" if free else ""),
        code="disk-full",
        hint="free some space, or run shiplap prune",
    )


def _free(root: Path) -> int:
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize
