"""The helper that a command starts before it knows its steps: the first sandbox takes it, and nobody else's is taken."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from shiplap.sandbox import spawn
from shiplap.sandbox.launch import Helper


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    while spawn.begun() is not None:
        pass


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("network", [False, True])
def test_the_first_helper_takes_it(network: bool) -> None:
    spawn.begin(network)
    (begun,) = spawn._ahead
    assert (begun.network is not None) == network
    first, second = Helper(), Helper()
    try:
        told = first.outlet()
        assert bool(told.program) == (told.descriptor >= 0)
        assert first._process is begun and begun.network is None
        assert second.outlet().program == told.program
        assert second._process is not begun
    finally:
        first.close()
        second.close()
    assert not running(begun.pid)


def test_one_with_other_words_does_not() -> None:
    spawn.begin(network=False)
    helper = Helper(("old-kernel",))
    helper.outlet()
    assert len(spawn._ahead) == 1
    helper.close()


@pytest.mark.parametrize("network", [False, True])
def test_one_that_was_killed_is_replaced(network: bool) -> None:
    plain = Helper()
    expected = plain.outlet()
    plain.close()
    spawn.begin(network)
    (begun,) = spawn._ahead
    os.kill(begun.pid, signal.SIGKILL)
    time.sleep(0.1)
    helper = Helper()
    outlet = helper.outlet()
    assert helper._process is not begun
    assert (outlet.program, outlet.reason) == (expected.program, expected.reason)
    helper.close()


def test_another_process_starts_its_own() -> None:
    spawn.begin(network=False)
    child = os.fork()
    if child == 0:
        os._exit(0 if spawn.begun() is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    begun = spawn.begun()
    assert begun is not None
    begun.close()


def test_nobody_needs_to_take_it() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        spawn.begin(network=True)
        os.write(write, b"%d" % spawn._ahead[0].pid)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    pid = int(os.read(read, 20))
    os.close(read)
    end = time.monotonic() + 10
    while running(pid):
        assert time.monotonic() < end, "the helper outlives its builder"
        time.sleep(0.01)


def test_a_fault_is_told_by_whoever_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    spawn.begin(network=True)
    assert spawn.begun() is None
