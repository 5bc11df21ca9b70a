"""A build that is told to end leaves nothing in the store, at whatever moment, and however slow the machine is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kit import SOAK, Shiplap, wait_for

CANCELS = 150 if SOAK else 8
DOCKERFILE = """FROM busybox AS a
RUN sleep 0.1
FROM busybox AS b
RUN for i in $(seq 100); do mkdir /d$i; echo x > /d$i/f; done
FROM a
COPY --from=b / /b/
COPY f* /
RUN echo end > /end
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def context(shiplap: Shiplap, dockerfile: str) -> Path:
    path = shiplap.cwd / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(dockerfile)
    for number in range(50):
        (path / f"f{number}").write_text(str(number))
    if shiplap.user is not None:
        subprocess.run(["chown", "-R", str(shiplap.user), path], check=True)
    return path


def test_a_build_cancelled_at_a_random_moment(each: Shiplap) -> None:
    where = context(each, DOCKERFILE)
    began = time.monotonic()
    each.run("build", "-t", "it", where)
    lasts = time.monotonic() - began
    dice = random.Random(os.urandom(8) if SOAK else 3)
    ended = 0
    for _ in range(CANCELS):
        process = each.start("build", "--no-cache", "-t", "it", where, stdout=-3, stderr=-3, start_new_session=True)
        moment, number = 0.1 + dice.random() * lasts, dice.choice(SIGNALS)
        time.sleep(moment)
        process.send_signal(number)
        status = process.wait(20)
        assert status in (0, 128 + number), moment
        ended += status != 0
        assert os.listdir(each.root / "tmp") == [], f"{number.name} after {moment:.3f} s"
    assert ended


def process_with(word: bytes) -> int:
    """The process that has ``word`` among its arguments; 0 if there is none. Not a child that it forked and that has yet to
    become another program, whose number may be the lower one."""
    found: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if word in (directory / "cmdline").read_bytes():
                found[int(directory.name)] = parent_of(int(directory.name))
        except OSError:
            continue
    return next((pid for pid, parent in found.items() if parent not in found), 0)


def parent_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


@pytest.mark.parametrize("signals", [1, 2])
def test_a_step_that_cannot_be_ended_in_time_leaves_nothing(each: Shiplap, signals: int) -> None:
    """Its keeper stands still, as on a machine with too much to do, so it goes on writing while its files are removed."""
    word = f"word{os.getpid()}{signals}"
    loop = f"i=0; while :; do i=$((i+1)); mkdir /{word}$i; echo x > /{word}$i/x; done"
    where = context(each, f"FROM busybox\nRUN touch /ready; {loop}\n")
    process = each.start("build", where, stdout=-3, stderr=-3, start_new_session=True)
    wait_for(lambda: any(Path(each.root, "tmp").glob(f"*-snapshot-*/diff/{word}9")), "the step")
    step = process_with(f"mkdir /{word}".encode())
    keeper = parent_of(step)
    os.kill(keeper, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert process.wait(15) == 143
        took = time.monotonic() - began
        assert os.listdir(each.root / "tmp") == []
        assert Path(f"/proc/{step}").exists()
    finally:
        os.kill(keeper, signal.SIGCONT)
    wait_for(lambda: not Path(f"/proc/{step}").exists(), "the end of the step", 5)
    wait_for(lambda: not Path(f"/proc/{keeper}").exists(), "the end of the keeper", 5)
    assert os.listdir(each.root / "tmp") == []
    # 1.8 s of patience, or 0.25 after a second signal; the rest is the removal of what the step still writes.
    assert took < (4.0 if signals == 1 else 2.0)
    each.run("build", "-q", "-", stdin=b"FROM busybox\nRUN echo whole > /x\n")
