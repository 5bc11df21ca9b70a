"""Clearing up after processes that were killed, and after a crash of the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shiplap.errors import ImageError, StoreError
from shiplap.oci.digest import Digest
from shiplap.store.leases import BLOB, NAMED_SNAPSHOT, NEW_BLOB, NEW_SNAPSHOT, SNAPSHOT, Dead
from shiplap.store.locks import hold_lock
from shiplap.store.snapshots import remove_directory

if TYPE_CHECKING:
    from shiplap.store.store import Store

_LOCKS = ("gate", "index", "index.new", "settle", "store")
"""Lock files that stay; each other one is for one piece of work, and goes with it."""


def clear_up(store: Store, dead: list[Dead]) -> int:
    """Remove what the ``dead`` were making and did not finish, and their temporary files. How many things went.

    What they finished stays, for the next build to take. Anything that cannot be removed now (a process that they
    started may be writing to it still) is left, with the lease, for the next.
    """
    removed = 0
    with store.lease.deciding() as live:
        gone = [moved for one in dead for moved in _unfinished(store, one, live)]
    for path in gone:
        removed += remove_quietly(path)
    left = os.listdir(store.temporary)
    for one in dead:
        mine = [store.temporary / name for name in left if name.startswith(f"{one.id}-")]
        removed += sum(map(remove_quietly, mine))
        store.index.write("DELETE FROM taken WHERE lease=?", one.id)
        one.settle(done=not any(path.exists() for path in mine))
    _remove_locks(store)
    return removed


def _unfinished(store: Store, one: Dead, live: set[tuple[str, str]]) -> list[Path]:
    gone = []
    for kind in (NEW_SNAPSHOT, NAMED_SNAPSHOT):
        for id in one.made(kind):
            if (SNAPSHOT, id) in live or (_recorded(store, id) and (kind == NAMED_SNAPSHOT or _referred_to(store, id))):
                continue
            store.snapshots.forget([id])
            gone += move_away(store, store.snapshots.directory / id)
    made = [digest for digest in one.made(NEW_BLOB) if (BLOB, digest) not in live]
    if made:
        needed = needed_blobs(store)
        for digest in made:
            if digest not in needed:
                gone += move_away(store, store.blobs.path(digest))
    return gone


def _recorded(store: Store, id: str) -> bool:
    return store.index.row("SELECT 1 FROM snapshots WHERE id=?", id) is not None


def _referred_to(store: Store, id: str) -> bool:
    """Whether a result, or another snapshot, leads to it."""
    found = store.index.row(
        "SELECT EXISTS(SELECT 1 FROM results WHERE snapshot=?)"
        " OR EXISTS(SELECT 1 FROM snapshots WHERE (parent=? OR layer=?) AND id<>?)",
        *(id, id, id, id),
    )
    return found is not None and bool(found[0])


def needed_blobs(store: Store) -> set[Digest]:
    """Every blob that a name or a recorded layer leads to."""
    needed = {str(row[0]) for row in store.index.rows("SELECT digest FROM layer_blobs")}
    for image in store.images.all():
        needed |= blobs_of(store, image.digest)
    return needed


def blobs_of(store: Store, digest: Digest) -> set[Digest]:
    """The blobs of a manifest or index, as far as they can be known: of a damaged one, only itself."""
    try:
        return store.images.blobs_of(digest)
    except (StoreError, ImageError):
        return {digest}


def move_away(store: Store, path: Path) -> list[Path]:
    """Take ``path`` out of its place, to be removed at leisure: where it is now, if it was there."""
    aside = store.aside("gone")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return []
    except OSError:
        return [path]
    return [aside]


def remove_quietly(path: Path) -> int:
    """Remove a file or directory; 1 if it is gone now."""
    try:
        remove_directory(path)
    except StoreError:
        return 0
    return 1


def sweep(store: Store) -> int:
    """Remove all that no living process and no row names: temporary files, directories, locks; and the rows that a crash
    of the machine has spoiled. How many things went.
    """
    removed = 0
    with store.lease.deciding() as live:
        alive = store.lease.living()
        index = store.index
        spoiled = [row[0] for row in index.rows("SELECT id FROM snapshots WHERE boot NOT IN ('', ?)", index.boot)]
        store.snapshots.forget(spoiled)  # nobody believes them; who makes one anew has a row of this boot
        gone = [path for name in extras(store, live) for path in move_away(store, store.snapshots.directory / name)]
        left = [store.temporary / name for name in os.listdir(store.temporary)]
        left = [path for path in left if path.name.partition("-")[0] not in alive]
    for path in (*gone, *left):
        removed += remove_quietly(path)
    _remove_locks(store)
    return removed


def _remove_locks(store: Store) -> None:
    for name in os.listdir(store.root / "locks"):
        if name not in _LOCKS:
            held = hold_lock(str(store.root / "locks" / name), wait=False, create=False)
            if held is not None:
                held.release(remove=True)


def extras(store: Store, live: set[tuple[str, str]]) -> list[str]:
    """Names in ``snapshots/`` that no row and no living process knows."""
    known = {row[0] for row in store.index.rows("SELECT id FROM snapshots")}
    return [
        name for name in os.listdir(store.snapshots.directory) if name not in known and (SNAPSHOT, name) not in live
    ]
