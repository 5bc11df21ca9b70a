"""What is long written is made sure of beside a build, and then believed after a crash of the machine: once for all builds."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from shiplap.store.snapshots import EMPTY
from shiplap.store.store import Store


def boots(store: Store) -> dict[str, str]:
    return dict(store.index.rows("SELECT id, boot FROM snapshots"))


def test_of_several_builds_one_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    synced: list[int] = []

    def sync() -> None:
        synced.append(1)
        begun.set()
        assert go.wait(10)

    monkeypatch.setattr(os, "sync", sync)
    with Store(tmp_path / "store") as one, Store(tmp_path / "store") as other:
        for name in ("old", "new"):
            with one.snapshots.draft(EMPTY) as draft:
                draft.commit(id=name)
        one.index.write("UPDATE snapshots SET created=created-3600 WHERE id='old'")
        with one.in_use():
            assert begun.wait(10)
            before = threading.active_count()
            with other.in_use():
                deadline = time.monotonic() + 10
                while threading.active_count() > before and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert threading.active_count() == before, "the other build waits for the disk too"
                assert synced == [1]
                assert boots(one) == {"old": one.index.boot, "new": one.index.boot}  # nothing is sure yet
            go.set()
            deadline = time.monotonic() + 10
            while boots(one)["old"] and time.monotonic() < deadline:
                time.sleep(0.01)
            assert boots(one) == {"old": "", "new": one.index.boot}


def test_no_build_waits_for_what_was_written_a_minute_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    monkeypatch.setattr(os, "sync", synced.set)
    with Store(tmp_path / "store") as store:
        for name in ("hour", "minutes", "now"):
            with store.snapshots.draft(EMPTY) as draft:
                draft.commit(id=name)
        store.index.write("UPDATE snapshots SET created=created-120 WHERE id!='now'")
        with store.in_use():
            assert not synced.wait(0.3)
        store.index.write("UPDATE snapshots SET created=created-3600 WHERE id='hour'")
        with store.in_use():
            assert synced.wait(10)
            deadline = time.monotonic() + 10
            while boots(store)["hour"] and time.monotonic() < deadline:
                time.sleep(0.01)
            assert boots(store) == {"hour": "", "minutes": "", "now": store.index.boot}, "one wait for all of them"
