"""A build that is ended by force: du counts what it left, and the next command removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kit import Shiplap, wait_for

SIZE = 5 << 20


def forced(shiplap: Shiplap, *signals: signal.Signals) -> None:
    """A build that ends by ``signals`` while a step has written SIZE bytes and does not end."""
    context = shiplap.cwd / "context"
    context.mkdir()
    recipe = f"FROM busybox\nRUN head -c {SIZE} /dev/urandom > /written && mv /written /ready && sleep 1000\n"
    (context / "Dockerfile").write_text(recipe)
    process = shiplap.start("build", context, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: any(Path(shiplap.root, "tmp").glob("*-snapshot-*/diff/ready")), "the step")
    for number in signals:
        process.send_signal(number)
        time.sleep(0.002)
    process.wait(10)


def line(shiplap: Shiplap) -> list[str]:
    """What du says of unfinished work, in words; nothing if it says nothing."""
    return next((row.split() for row in shiplap.run("du").stdout.splitlines() if row.startswith("unfinished")), [])


@pytest.mark.parametrize("command", [["prune"], ["build", "-q", "-"]], ids=["prune", "build"])
def test_what_a_killed_build_left_is_counted_and_goes(command: list[str], shiplap: Shiplap) -> None:
    forced(shiplap, signal.SIGKILL)
    left = os.listdir(shiplap.root / "tmp")
    assert left
    kind, count, size, unit, reclaimable, _ = " ".join(line(shiplap)).replace("MB", " MB").split()
    assert (kind, count, unit) == ("unfinished", str(len(left)), "MB")
    assert SIZE / 1e6 <= float(size) < 2 * SIZE / 1e6 and reclaimable == size
    shiplap.run(*command, stdin=b"FROM busybox\nRUN echo x > /x\n")
    assert os.listdir(shiplap.root / "tmp") == []
    assert line(shiplap) == []


def test_a_build_that_was_ended_in_a_hurry_leaves_nothing_for_long(shiplap: Shiplap) -> None:
    """Whether the second signal leaves anything is a question of milliseconds; the next build leaves nothing."""
    forced(shiplap, signal.SIGINT, signal.SIGINT, signal.SIGINT)
    shiplap.run("build", "-q", "-", stdin=b"FROM busybox\nRUN echo x > /x\n")
    assert os.listdir(shiplap.root / "tmp") == []
    assert line(shiplap) == []


def test_what_a_running_build_makes_is_not_reclaimable(shiplap: Shiplap) -> None:
    context = shiplap.cwd / "running"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN head -c {SIZE} /dev/urandom > /ready && sleep 1000\n")
    process = shiplap.start("build", context, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready = "*-snapshot-*/diff/ready"
        wait_for(lambda: any(p.stat().st_size == SIZE for p in Path(shiplap.root, "tmp").glob(ready)), "the step")
        words = line(shiplap)
        shiplap.run("prune")
        assert any(Path(shiplap.root, "tmp").glob(ready))
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert words[0] == "unfinished" and words[-1] in ("0B", "0")
