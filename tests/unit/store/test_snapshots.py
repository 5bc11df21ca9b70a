"""Snapshots: there completely or not at all, through kills and crashes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.errors import StoreError
from shiplap.store.snapshots import EMPTY, LayerBlob, Snapshot
from shiplap.store.store import Store
from shiplap.trees.root import find


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


def make(store: Store, parent: str = EMPTY, id: str | None = None, **files: str) -> Snapshot:
    with store.snapshots.draft(parent) as draft:
        for name, content in files.items():
            Path(draft.diff, name).write_text(content)
        return draft.commit(id=id, about="a step")


def test_a_chain_is_read_through_all_its_layers(store: Store) -> None:
    lower = make(store, a="1", b="1")
    upper = make(store, lower.id, b="2")
    assert [found.id for found in store.snapshots.chain(upper.id)] == [upper.id, lower.id]
    with store.snapshots.tree(upper.id) as tree:
        for name, content in (("a", b"1"), ("b", b"2")):
            found = find(tree, name)
            assert found is not None and found.entry is not None
            with open(found.parent.open_file(found.entry), "rb") as file:
                assert file.read() == content
    assert store.snapshots.chain(EMPTY) == []


def test_a_draft_that_is_left_vanishes(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.snapshots.draft(EMPTY) as draft:
        Path(draft.diff, "f").write_text("x")
        raise ZeroDivisionError
    assert os.listdir(store.temporary) == []
    assert os.listdir(store.snapshots.directory) == []


def test_a_snapshot_without_its_parent_is_not_whole(store: Store) -> None:
    lower = make(store)
    upper = make(store, lower.id)
    assert store.snapshots.whole(upper.id)
    store.snapshots.remove(lower.id)
    assert not store.snapshots.whole(upper.id)
    with pytest.raises(StoreError) as caught:
        store.snapshots.tree(upper.id)
    assert caught.value.code == "snapshot-missing"


def test_files_without_a_row_and_rows_without_files_are_not_believed(store: Store) -> None:
    (store.snapshots.directory / "feed" / "diff").mkdir(parents=True)
    assert store.snapshots.get("feed") is None
    lost = make(store)
    (store.snapshots.directory / lost.id / "diff").rmdir()
    assert store.snapshots.get(lost.id) is None


def test_what_died_between_rename_and_record_does_not_stand_in_the_way(store: Store) -> None:
    (store.snapshots.directory / "layer1" / "diff").mkdir(parents=True)
    (store.snapshots.directory / "layer1" / "diff" / "half").write_text("")
    made = make(store, id="layer1", f="x")
    assert os.listdir(store.snapshots.diff(made)) == ["f"]


def test_of_two_that_make_the_same_layer_the_first_wins(store: Store) -> None:
    first = make(store, id="layer1", f="first")
    assert make(store, id="layer1", f="second") == first
    assert Path(store.snapshots.diff(first), "f").read_text() == "first"
    assert os.listdir(store.temporary) == []


def test_rows_of_a_boot_that_crashed_are_not_believed_and_swept(store: Store) -> None:
    kept, spoiled = make(store), make(store)
    store.index.write("UPDATE snapshots SET boot='' WHERE id=?", kept.id)
    store.index.write("UPDATE snapshots SET boot='another boot' WHERE id=?", spoiled.id)
    assert store.snapshots.get(kept.id) == kept
    assert store.snapshots.get(spoiled.id) is None
    with Store(store.root) as again:
        store.lease.end()
        assert again.sweep() == 1
    assert os.listdir(store.snapshots.directory) == [kept.id]


def test_sweep_removes_what_nothing_names(store: Store) -> None:
    make(store)
    (store.snapshots.directory / "stray").mkdir()
    (store.temporary / "blob-1-a").write_text("")
    (store.temporary / "snapshot-1-b").mkdir()
    assert store.sweep() == 3
    assert store.sweep() == 0


def test_a_stacked_layer_shares_files_and_packed_form(store: Store) -> None:
    base, alone = make(store, a="1"), make(store, b="2")
    stacked = store.snapshots.stack(base.id, alone.id, "COPY --link")
    assert store.snapshots.directories(stacked.id) == [store.snapshots.diff(alone), store.snapshots.diff(base)]
    blob = LayerBlob(store.blobs.write(b"abc"), 3, "application/vnd.oci.image.layer.v1.tar+gzip")
    store.snapshots.record_blob(stacked.layer, "gzip", "sha256:" + "b" * 64, blob)
    assert store.snapshots.blob(alone.id, "gzip") == blob
    assert store.snapshots.blob(alone.id, "zstd") is None


def test_removing_a_snapshot_forgets_its_blobs(store: Store) -> None:
    made = make(store)
    store.snapshots.record_blob(made.id, "gzip", "sha256:" + "b" * 64, LayerBlob("sha256:" + "a" * 64, 3, "x"))
    store.snapshots.remove(made.id)
    assert store.snapshots.blob(made.id, "gzip") is None
    assert os.listdir(store.snapshots.directory) == []
