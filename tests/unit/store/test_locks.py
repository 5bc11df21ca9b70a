"""Locks between processes, and the store that several use at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shiplap.errors import Interrupted, StoreError
from shiplap.store.locks import hold_lock, locked
from shiplap.store.store import Store

HOLD = """
import sys, time
from shiplap.store.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_holds_it_at_a_time(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locked(path) as held:
        assert held
        with locked(path, wait=False) as again:
            assert not again
    with locked(path, wait=False) as free:
        assert free


def test_many_share_it_and_keep_others_out(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locked(path, shared=True), locked(path, shared=True, wait=False) as two, locked(path, wait=False) as alone:
        assert (two, alone) == (True, False)


def test_it_dies_with_its_process(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with locked(path, wait=False) as taken:
            assert not taken
        holder.kill()
        holder.wait()
        with locked(path, wait=False) as free:
            assert free


def test_who_waits_can_give_up(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Interrupted("build canceled")

    before = set(os.listdir("/proc/self/fd"))
    with locked(path), pytest.raises(Interrupted), locked(path, check=check):
        pytest.fail("it was taken twice")
    assert asked == 3
    assert set(os.listdir("/proc/self/fd")) == before


def test_who_waits_for_a_lock_whose_file_goes_does_not_get_it_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    inside = most = 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with locked(path, remove=True):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
    assert os.listdir(tmp_path) == []


def test_a_lock_that_is_not_there_is_not_made_by_who_only_looks(tmp_path: Path) -> None:
    assert hold_lock(str(tmp_path / "lock"), wait=False, create=False) is None
    assert os.listdir(tmp_path) == []


def test_once_is_once_for_a_key_and_free_for_others(tmp_path: Path) -> None:
    order = []
    with Store(tmp_path / "s") as store:

        def second() -> None:
            with store.once("key"):
                order.append("second")

        with store.once("key"), store.once("another key"):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join(0.1)
            order.append("first")
        thread.join()
    assert order == ["first", "second"]


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.index.rows("PRAGMA user_version=99")
        store.index.rows(f"PRAGMA application_id={0x73680000 | 99}")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "s")
    assert caught.value.code == "store-version"


def test_a_store_that_others_may_write_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "s"):
        pass
    (tmp_path / "s").chmod(0o777)
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "s")
    assert caught.value.code == "store-unusable"


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "s")
    assert caught.value.code == "store-unusable"
    assert "--root" in (caught.value.hint or "")


def test_a_transaction_takes_hold_whole_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        with pytest.raises(ZeroDivisionError), store.index.transaction() as run:
            run("INSERT INTO digests(key, value, used) VALUES('a', 'b', 0)")
            raise ZeroDivisionError
        assert store.results.digest("a") is None
        assert store.index.write("INSERT INTO digests(key, value, used) VALUES('a', 'b', 0)") == 1
