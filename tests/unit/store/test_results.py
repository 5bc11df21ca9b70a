"""Results and remembered digests."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import msgspec
import pytest

from shiplap.store.results import FileMemory, Result
from shiplap.store.store import Store
from shiplap.trees.entry import Entry, entry_of

OLD = time.time_ns() - 60 * 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_text("x")
    return path


def entry(path: Path, **changed: int) -> Entry:
    # ctime cannot be set on a file: an old one is written into the entry.
    return msgspec.structs.replace(entry_of(path.name, os.lstat(path)), **{"mtime": OLD, "ctime": OLD, **changed})


def test_results_are_found_again_by_another_process(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as one:
        one.results.put("key", Result("snapshot", "canonical"), {"operation": "o", "content:1": "c"}, "RUN x")
        assert one.results.get("other") is None
    with Store(tmp_path / "s") as two:
        assert two.results.get("key") == Result("snapshot", "canonical")
        (row,) = two.index.rows("SELECT parts, about FROM results")
    assert (json.loads(row[0]), row[1]) == ({"operation": "o", "content:1": "c"}, "RUN x")


def test_a_later_result_takes_the_place_of_an_earlier(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        for snapshot in ("one", "two"):
            store.results.put("key", Result(snapshot, "c"), {}, "")
        assert store.results.get("key") == Result("two", "c")


def test_digests_of_snapshots_are_remembered(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        assert store.results.digest("k") is None
        store.results.put_digest("k", "v")
        assert store.results.digest("k") == "v"


def test_a_file_that_did_not_change_is_remembered(tmp_path: Path, file: Path) -> None:
    memory = FileMemory(tmp_path / "memory")
    memory.remember("f", entry(file), b"digest")
    memory.save()
    assert FileMemory(tmp_path / "memory").recall("f", entry(file)) == b"digest"


@pytest.mark.parametrize("field", ["inode", "size", "mtime", "ctime"])
def test_any_change_is_noticed(tmp_path: Path, file: Path, field: str) -> None:
    memory = FileMemory(tmp_path / "memory")
    memory.remember("f", entry(file), b"digest")
    memory.save()
    changed = entry(file, **{field: getattr(entry(file), field) + 1})
    assert FileMemory(tmp_path / "memory").recall("f", changed) is None


@pytest.mark.parametrize("field", ["mtime", "ctime"])
def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path, file: Path, field: str) -> None:
    memory = FileMemory(tmp_path / "memory")
    memory.remember("f", entry(file, **{field: time.time_ns()}), b"digest")
    memory.save()
    assert not (tmp_path / "memory").exists()


def test_files_that_this_build_did_not_ask_for_are_kept(tmp_path: Path, file: Path) -> None:
    for name in ("a", "b"):
        memory = FileMemory(tmp_path / "memory")
        memory.recall(name, entry(file))
        memory.remember(name, entry(file), name.encode())
        memory.save()
    last = FileMemory(tmp_path / "memory")
    assert [last.recall(name, entry(file)) for name in ("a", "b")] == [b"a", b"b"]


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80garbage", msgspec.msgpack.encode({"f": [1, 2]})])
def test_a_memory_that_cannot_be_read_costs_only_time(tmp_path: Path, file: Path, content: bytes) -> None:
    (tmp_path / "memory").write_bytes(content)
    assert FileMemory(tmp_path / "memory").recall("f", entry(file)) is None


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path: Path, file: Path) -> None:
    memory = FileMemory(tmp_path / "missing" / "memory")
    memory.remember("f", entry(file), b"digest")
    memory.save()
    assert os.listdir(tmp_path) == ["f"]
