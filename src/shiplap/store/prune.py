"""Removing what nobody uses: all of it, what a filter names, or only as much as has to go, least recently used first.

It needs no pause of the builds beside it: what is removed is chosen and forgotten under the gate (``leases.py``), in one
transaction, and moved out of its place; deleting the files, which takes long, comes after.
"""

from __future__ import annotations

import heapq
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shiplap.errors import StoreError
from shiplap.store.leases import NAMED_SNAPSHOT, NEW_BLOB
from shiplap.store.locks import hold_lock
from shiplap.store.records import (
    CACHE_MOUNT,
    GIT,
    IMAGE,
    INTERNAL,
    LOCAL,
    REPEAT,
    STEP,
    Filter,
    Inventory,
    Record,
    Sizes,
    index_bytes,
    snapshot_sizes,
)
from shiplap.store.recover import move_away, remove_quietly
from shiplap.store.snapshots import directory_bytes

if TYPE_CHECKING:
    from shiplap.store.store import Store

_DEFAULT = (STEP, GIT, INTERNAL)
"""What goes without ``everything``: not what is dear to make again (cache mounts), nor what somebody may know by digest."""


class Wanted(msgspec.Struct, frozen=True):
    """What to remove. Sizes are bytes, 0 = not given; with one of them only as much goes as must.

    ``older_than``: seconds since last use. ``reserved``: this much may always stay. ``most``: no more than this stays.
    ``free``: so much shall be free on the disk. They mean what ``docker buildx prune`` means by them.
    """

    everything: bool = False
    older_than: float = 0.0
    filters: tuple[Filter, ...] = ()
    reserved: int = 0
    most: int = 0
    free: int = 0

    @property
    def bounded(self) -> bool:
        return bool(self.reserved or self.most or self.free)

    def goal(self, total: int, free: int) -> int | None:
        """How many bytes have to go when ``total`` are kept and ``free`` are left on the disk; None: all that may."""
        if not self.bounded:
            return None
        keep = self.most
        lacking = self.free - free
        if lacking > 0:
            keep = total - lacking if not keep else min(keep, total - lacking)
        elif self.free and not keep:
            keep = total
        return max(total - max(keep, self.reserved, 0), 0)

    def matches(self, record: Record, moment: float | None = None) -> bool:
        """Whether the filters let it through, the one for age among them."""
        if self.older_than and record.used > (time.time() if moment is None else moment) - self.older_than:
            return False
        return all(found.takes(record) for found in self.filters)

    def may_take(self, record: Record, moment: float) -> bool:
        """Whether the record may go, as far as it alone is concerned."""
        if record.in_use:
            return False
        asked = any(found.field == "type" for found in self.filters)
        if record.kind not in _DEFAULT and not (self.everything or self.bounded or asked):
            return False
        return self.matches(record, moment)


class Removed(msgspec.Struct, frozen=True):
    """What went, and the bytes that this freed."""

    records: tuple[Record, ...] = ()
    bytes: int = 0


def prune(store: Store, wanted: Wanted) -> Removed:
    """Remove what ``wanted`` says, but nothing that a running process uses; what dead ones left goes too."""
    before = directory_bytes(store.temporary)
    store.sweep()
    left = max(before - directory_bytes(store.temporary), 0)
    found = os.statvfs(store.root)
    removed = _remove(store, wanted, found.f_bavail * found.f_frsize, None)
    return msgspec.structs.replace(removed, bytes=removed.bytes + left)


def evict(store: Store, size: int) -> int:
    """Make at least ``size`` bytes free if that can be done, least recently used first; how many it became."""
    return _remove(store, Wanted(everything=True, most=1), 0, size).bytes


def _remove(store: Store, wanted: Wanted, free: int, goal: int | None) -> Removed:
    sizes = Sizes(store)
    with store.lease.deciding() as live:
        inventory = Inventory(store, sizes, live)
        if goal is None:
            goal = wanted.goal(inventory.total, free)
        plan = _Plan(inventory, wanted, goal)
        moved = plan.carry_out()
        if goal is None and not wanted.filters:
            _forget_old(store, wanted.older_than)
    for path in moved:
        remove_quietly(path)
    return Removed(tuple(plan.victims), plan.freed)


class _Plan:
    """What goes, chosen leaf by leaf: a snapshot only after all that stand on it."""

    def __init__(self, inventory: Inventory, wanted: Wanted, goal: int | None) -> None:
        self._inventory = inventory
        self._needed = inventory.needed.copy()
        self.victims: list[Record] = []
        self.blobs: list[str] = []
        self.freed = 0
        if goal == 0:
            return
        moment = time.time()
        records = {(record.kind in (STEP, GIT), record.id): record for record in inventory.records}
        above: dict[tuple[bool, str], int] = {}
        for record in inventory.records:
            for parent in record.parents:
                above[True, parent] = above.get((True, parent), 0) + 1
        free = [
            (self._rank(record), key)
            for key, record in records.items()
            if not above.get(key) and wanted.may_take(record, moment)
        ]
        heapq.heapify(free)
        while free and (goal is None or self.freed < goal):
            _, key = heapq.heappop(free)
            record = records[key]
            self._take(record)
            for parent in record.parents:
                beneath = True, parent
                above[beneath] -= 1
                if not above[beneath] and beneath in records and wanted.may_take(records[beneath], moment):
                    heapq.heappush(free, (self._rank(records[beneath]), beneath))

    @staticmethod
    def _rank(record: Record) -> float:
        return 0.0 if record.kind == INTERNAL else record.used

    def _take(self, record: Record) -> None:
        self.victims.append(record)
        self.freed += record.files
        if record.kind == INTERNAL:
            self.blobs.append(record.id)
            self.freed += record.size
        for digest in record.blobs:
            self._needed[digest] -= 1
            if not self._needed[digest] and digest not in self._inventory.pinned:
                self.blobs.append(digest)
                self.freed += self._inventory.blobs.get(digest, 0)

    def carry_out(self) -> list[Path]:
        """Forget the victims and move their files away; where these are now."""
        store = self._inventory.store
        snapshots = [record.id for record in self.victims if record.kind in (STEP, GIT) and not record.mutable]
        places = [store.snapshots.directory / id for id in snapshots]
        places += [store.blobs.path(digest) for digest in self.blobs]
        with suppress(OSError):  # a full disk
            # If we are killed between forgetting and removing, what has no row is cleared up like what never got one.
            store.lease.note(NAMED_SNAPSHOT, *snapshots)
            store.lease.note(NEW_BLOB, *self.blobs)
        try:
            self._forget(snapshots)
        except StoreError as error:
            if error.code != "disk-full":
                raise
            # No room to forget: a row without files is not believed either, and to remove the files makes room.
            for path in [path for place in places for path in move_away(store, place)]:
                remove_quietly(path)
            self._forget(snapshots)
        moved = [path for place in places for path in move_away(store, place)]
        for record in self.victims:
            moved += self._move_other(record)
        return moved

    def _forget(self, snapshots: list[str]) -> None:
        store = self._inventory.store
        if not snapshots:
            return
        store.snapshots.forget(snapshots)
        with store.index.transaction() as run:
            for id in snapshots:
                # Remembered content digests are kept under "<snapshot> <what was chosen>".
                run("DELETE FROM digests WHERE key>=? AND key<?", f"{id} ", f"{id}!")

    def _move_other(self, record: Record) -> list[Path]:
        store = self._inventory.store
        if record.kind == IMAGE:
            store.images.remove(record.id)
        elif record.kind == CACHE_MOUNT:
            return move_away(store, store.root / "mounts" / record.id)
        elif record.kind == LOCAL:
            return move_away(store, store.root / ("repeats" if record.about == REPEAT else "files") / record.id)
        elif record.kind == GIT and record.mutable:
            # No lease names it: who works on it holds its lock.
            lock = hold_lock(str(store.lock_of(f"git {record.id}")), wait=False)
            if lock is not None:
                try:
                    return move_away(store, store.root / "git" / record.id)
                finally:
                    lock.release(remove=True)
        return []


def _forget_old(store: Store, older_than: float) -> None:
    limit = time.time() - older_than
    with store.index.transaction() as run:
        run("DELETE FROM digests WHERE used<=? AND key NOT LIKE 'mount %'", limit)
        run("DELETE FROM results WHERE used<=? AND snapshot NOT IN (SELECT id FROM snapshots)", limit)
    for name in os.listdir(store.root / "mounts"):
        if name.endswith(".lock"):
            lock = hold_lock(str(store.root / "mounts" / name), wait=False, create=False)
            if lock is not None:
                lock.release(remove=True)


def make_room(store: Store, limit: int, taken: int) -> None:
    """See that the store with ``taken`` bytes more (all that this process is writing) stays within ``limit``.

    Raises StoreError(code="store-full") if it cannot. See ``room.Room``.
    """
    lease = store.lease.begin()
    store.index.write("INSERT OR REPLACE INTO taken(lease, bytes) VALUES(?,?)", lease, taken)
    over = _over(store, limit)
    if over > 0:
        evict(store, over)
        over = _over(store, limit)
    if over > 0:
        raise _full(store, limit, taken, over)


def _over(store: Store, limit: int) -> int:
    return used_bytes(store) + int((store.index.row("SELECT COALESCE(SUM(bytes), 0) FROM taken") or (0,))[0]) - limit


def used_bytes(store: Store) -> int:
    """Bytes of all that is kept."""
    return (
        sum(size for _, size in store.blobs.all())
        + sum(snapshot_sizes(store).values())
        + sum(directory_bytes(store.root / name) for name in ("mounts", "git", "files", "repeats", "logs"))
        + index_bytes(store)
    )


def _full(store: Store, limit: int, taken: int, over: int) -> StoreError:
    from shiplap.events.plain import size_text

    sizes = Sizes(store)
    with store.lease.deciding() as live:
        inventory = Inventory(store, sizes, live)
    named = sum(inventory.blobs.get(digest, 0) for digest in inventory.named)
    return StoreError(
        f"the store may not grow over {size_text(limit)}: {size_text(over)} more are needed than can be freed"
        f" ({size_text(named)} are images with names, {size_text(taken)} are being written,"
        f" the rest running builds use; {store.root})",
        code="store-full",
        hint="raise --max-used-space, or forget images with shiplap rmi",
    )
