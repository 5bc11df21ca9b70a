"""What goes and what stays: filters, limits, the order, and what is in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.errors import StoreError, UsageError
from shiplap.store.index import now
from shiplap.store.prune import Wanted, evict, prune, used_bytes
from shiplap.store.records import CACHE_MOUNT, INTERNAL, STEP, Inventory, Record, Sizes, parse_filter
from shiplap.store.results import Result
from shiplap.store.snapshots import EMPTY, Snapshot
from shiplap.store.store import Store

KIB = 1024


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "s") as opened:
        yield opened


def make(store: Store, parent: str = EMPTY, *, size: int = 64 * KIB, age: float = 0, about: str = "RUN x") -> Snapshot:
    """A snapshot of that size (bytes) that was last used ``age`` seconds ago."""
    with store.snapshots.draft(parent) as draft:
        Path(draft.diff, "f").write_bytes(os.urandom(size))
        made = draft.commit(about=about)
    store.results.put(f"key {made.id}", Result(made.id, "c"), {}, about)
    store.index.write("UPDATE snapshots SET used=? WHERE id=?", now() - age, made.id)
    store.lease.end()
    store.snapshots.look_again()
    return made


def left(store: Store) -> set[str]:
    return set(os.listdir(store.snapshots.directory))


def test_everything_that_nobody_uses_goes(store: Store) -> None:
    top = make(store, make(store).id)
    removed = prune(store, Wanted())
    assert left(store) == set()
    assert removed.bytes >= 128 * KIB
    assert {record.kind for record in removed.records} == {STEP}
    assert store.results.get(f"key {top.id}") is None
    assert os.listdir(store.temporary) == []


def test_what_a_build_uses_stays_with_all_beneath_it(store: Store) -> None:
    base = make(store)
    top, other = make(store, base.id), make(store, base.id)
    with Store(store.root) as building, building.in_use():
        assert building.snapshots.get(top.id) == top
        prune(store, Wanted(everything=True))
        assert left(store) == {base.id, top.id}
        assert building.snapshots.whole(top.id)
        assert not building.snapshots.whole(other.id)


def test_a_layer_that_another_snapshot_shares_stays_as_long_as_that_does(store: Store) -> None:
    base, layer = make(store), make(store)
    stacked = store.snapshots.stack(base.id, layer.id, "COPY --link")
    store.lease.end()
    with Store(store.root) as building, building.in_use():
        assert building.snapshots.get(stacked.id) is not None
        prune(store, Wanted(everything=True))
        assert left(store) == {base.id, layer.id}
    prune(store, Wanted())
    assert left(store) == set()


def test_old_ones_go_unless_a_younger_one_stands_on_them(store: Store) -> None:
    old, beneath = make(store, age=7200), make(store, age=7200)
    young = make(store, beneath.id, age=60)
    prune(store, Wanted(older_than=3600))
    assert left(store) == {beneath.id, young.id}
    assert not store.snapshots.whole(old.id)


def test_the_least_recently_used_goes_first_and_no_more_than_must(store: Store) -> None:
    ids = [make(store, age=age, size=256 * KIB).id for age in (10, 40, 20, 30)]
    total = used_bytes(store)
    prune(store, Wanted(most=total - 300 * KIB))
    assert left(store) == {ids[0], ids[2]}
    prune(store, Wanted(most=total))
    assert left(store) == {ids[0], ids[2]}
    assert evict(store, 1) >= 256 * KIB
    assert left(store) == {ids[0]}


def test_blobs_that_nothing_leads_to_go_before_all_else(store: Store) -> None:
    made = make(store, age=10**6)
    digest = store.blobs.write(os.urandom(64 * KIB))
    store.lease.end()
    assert evict(store, 1) == 64 * KIB
    assert not store.blobs.has(digest)
    assert left(store) == {made.id}


@pytest.mark.parametrize(
    ("wanted", "total", "free", "goal"),
    [
        # The figures are those of calculateKeepBytes (BuildKit, cache/manager.go).
        (Wanted(), 100, 0, None),
        (Wanted(most=60), 100, 0, 40),
        (Wanted(most=200), 100, 0, 0),
        (Wanted(reserved=60), 100, 0, 40),
        (Wanted(most=50, reserved=60), 100, 0, 40),
        (Wanted(most=60, reserved=50), 100, 0, 40),
        (Wanted(free=30), 100, 50, 0),
        (Wanted(free=30), 100, 10, 20),
        (Wanted(free=30, most=95), 100, 10, 20),
        (Wanted(free=30, most=70), 100, 10, 30),
        (Wanted(free=90, reserved=50), 100, 10, 50),
        (Wanted(free=300), 100, 10, 100),
    ],
)
def test_limits_mean_what_they_mean_to_buildkit(wanted: Wanted, total: int, free: int, goal: int | None) -> None:
    assert wanted.goal(total, free) == goal


def test_cache_mounts_go_when_they_are_meant(store: Store) -> None:
    path = store.cache_mount("go")
    (path / "diff").mkdir(parents=True)
    (path / "diff" / "f").write_bytes(bytes(10 * KIB))
    prune(store, Wanted())
    assert path.exists()
    with Store(store.root) as building, building.in_use():
        building.cache_mount("go")
        prune(store, Wanted(everything=True))
        assert path.exists()
    prune(store, Wanted(filters=(parse_filter("type=exec.cachemount"), parse_filter("description~=^go$"))))
    assert not path.exists()


RECORD = Record("0123abcd", CACHE_MOUNT, 1, 0, 0, "RUN make all", ("p1", "p2"), mutable=True, shared=True)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("id=0123", True),
        ("id=abcd", True),
        ("id==0123", False),
        ("id!=0123abcd", False),
        ("id=.*", False),
        ("type=exec.cachemount", True),
        ("type!=exec.cachemount", False),
        ("type=regular", False),
        ("description~=make", True),
        ("description~=^make", False),
        ("parents=p1;p2", True),
        ("parents~=p2", True),
        ("mutable", True),
        ("mutable=true", True),
        ("immutable", False),
        ("inuse", False),
        ("shared", True),
        ("private", False),
    ],
)
def test_filters(text: str, takes: bool) -> None:
    assert parse_filter(text).takes(RECORD) is takes


@pytest.mark.parametrize("text", ["", "until", "type", "nope=1", "mutable=no", "description~=(", "inuse~=x", "="])
def test_filters_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(text)
    assert caught.value.code == "invalid-filter"


def test_an_inventory_adds_up(store: Store) -> None:
    make(store, make(store).id)
    store.blobs.write(b"x" * 100)
    sizes = Sizes(store)
    with store.lease.deciding() as live:
        found = Inventory(store, sizes, live)
    assert found.total == used_bytes(store)
    assert [record.kind for record in found.records].count(STEP) == 2
    (loose,) = [record for record in found.records if record.kind == INTERNAL]
    assert (loose.size, loose.in_use) == (100, True)


# -- the limit


def test_room_is_made_before_it_is_taken(store: Store) -> None:
    old = make(store, size=512 * KIB, age=100)
    with store.in_use():
        store.room.limit = used_bytes(store) + 100 * KIB
        digest = store.blobs.write(os.urandom(400 * KIB))
        assert left(store) == set()
        assert not store.snapshots.whole(old.id)
        assert store.blobs.has(digest)
        assert used_bytes(store) <= store.room.limit
        with pytest.raises(StoreError) as caught:
            store.blobs.write(os.urandom(700 * KIB))
        assert caught.value.code == "store-full"
        assert os.listdir(store.temporary) == []
        assert store.blobs.write(b"small")


def test_a_layer_over_the_limit_is_not_kept(store: Store) -> None:
    with store.in_use():
        store.room.limit = used_bytes(store) + 200 * KIB
        with pytest.raises(StoreError) as caught, store.snapshots.draft(EMPTY) as draft:
            Path(draft.diff, "f").write_bytes(bytes(300 * KIB))
            draft.commit()
        assert caught.value.code == "store-full"
        assert left(store) == set()
        with store.snapshots.draft(EMPTY) as draft:
            Path(draft.diff, "f").write_bytes(bytes(100 * KIB))
            draft.commit()
    assert len(left(store)) == 1


def test_two_that_keep_to_a_limit_keep_to_it_together(store: Store) -> None:
    with store.in_use(), Store(store.root) as other, other.in_use():
        limit = used_bytes(store) + 300 * KIB
        store.room.limit = other.room.limit = limit
        with store.blobs.writer(200 * KIB) as writer:
            writer.write(bytes(100 * KIB))
            with pytest.raises(StoreError) as caught:
                other.blobs.write(os.urandom(200 * KIB))
            assert caught.value.code == "store-full"
        assert other.blobs.write(os.urandom(200 * KIB))
    assert store.index.rows("SELECT * FROM taken") == []
