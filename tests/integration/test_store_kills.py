"""Killed at any point: the store is sound, the next build is right, nothing is left.

A spread sample of the points; ``make soak`` takes every one, and kills at random times as well.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import killing
from killing import EPOCH, FREEZE, PARENT, Killer
from kit import SOAK, WORK, Shiplap

SAMPLE = {FREEZE: 10, PARENT: 6}
RANDOM = 300 if SOAK else 6


@pytest.fixture
def killer(tmp_path: Path, mirror: Path) -> Killer:
    """shiplap, with a context whose image has the same digest each time."""
    killing.reference_context(tmp_path / "context")
    env = {"CONTAINERS_REGISTRIES_CONF": str(mirror), "SOURCE_DATE_EPOCH": EPOCH}
    return Killer(Shiplap(tmp_path / "store", env, tmp_path), tmp_path)


def build(directory: Path, output: str = "o.tar") -> list[str]:
    outputs = ["-o", "type=image", "-o", f"type=oci,dest={directory / output}"]
    return ["build", "--progress=rawjson", "-t", "it", *outputs, str(directory / "context")]


def chosen(points: int, mode: int, share: int, shares: int) -> list[int]:
    """Which points to try: in the soak all, else some of each part of the run; each worker has its share."""
    if SOAK:
        return list(range(1 + share, points + 1, shares))
    dice = random.Random(mode)
    count = SAMPLE[mode]
    every = [1 + int((number + dice.random()) * points / count) for number in range(count)]
    return every[share::shares]


def assert_recovers(killer: Killer, wanted: str, finished: int, outcome: str = "") -> None:
    """After a kill: nothing runs, the store is sound, the same build is right and takes what was finished."""
    shiplap, directory = killer.shiplap, killer.directory
    killing.assert_nothing_runs(shiplap.root)
    killing.assert_sound(shiplap)
    done = shiplap.run(*build(directory))
    assert killing.digest_of_file(directory / "o.tar") == wanted, outcome
    if finished > 2:  # nobody keeps that an image was looked up, and the last one may not have been recorded
        assert '"cached":true' in done.stderr or '"steps_reused":0' not in done.stderr
    killing.assert_nothing_is_left(shiplap.root)
    assert [name for name in os.listdir(directory) if name.startswith(".")] == []
    killing.assert_sound(shiplap)


class Attempts:
    """Tries that may fail: in the soak all are made, and what fails is written to .tests/soak.log; else it is raised."""

    def __init__(self) -> None:
        self.made = 0
        self.failures: list[str] = []

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        self.made += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            if not SOAK:
                error.add_note(what)
                raise
            self.failures.append(f"{what}\n{error}")
            with (WORK / "soak.log").open("a") as log:
                log.write(f"{self.failures[-1]}\n\n")

    def told(self, what: str) -> None:
        with (WORK / "soak.log").open("a") as log:
            log.write(f"{what}: {self.made} tried, {len(self.failures)} failed\n")
        assert not self.failures, "\n\n".join(self.failures)


@pytest.mark.parametrize("share", [0, 1])
@pytest.mark.parametrize("mode", [FREEZE, PARENT], ids=["all", "parent"])
def test_a_build_killed_at_any_point(killer: Killer, mode: int, share: int) -> None:
    points = killer.run(*build(killer.directory)).points
    wanted = killing.digest_of_file(killer.directory / "o.tar")
    assert points > 500
    attempts = Attempts()
    for point in chosen(points, mode, share, 2):
        killing.clear(killer.shiplap.root)
        (killer.directory / "o.tar").unlink(missing_ok=True)
        with attempts.attempt(f"killed at point {point} of {points}"):
            outcome = killer.run(*build(killer.directory), mode=mode, stop_at=point)
            assert_recovers(killer, wanted, outcome.finished, str(outcome))
    attempts.told(f"kills of {'all' if mode == FREEZE else 'the first'}")


@pytest.mark.parametrize(
    "command",
    [
        ["prune", "--all", "--force"],
        ["prune", "--force", "--keep", "1"],
        ["prune", "--force", "--max-used-space", "3m"],
        ["rmi", "it"],
    ],
    ids=["all", "keep", "max-used-space", "rmi"],
)
@pytest.mark.parametrize("share", [0, 1])
def test_what_removes_things_killed_at_any_point(killer: Killer, command: list[str], share: int) -> None:
    killer.run(*build(killer.directory))
    wanted = killing.digest_of_file(killer.directory / "o.tar")
    points = killer.run(*command).points
    every = range(1 + share, points + 1, 2)
    tried = every if SOAK else random.Random(str(command)).sample(every, 2)
    attempts = Attempts()
    killer.shiplap.run(*build(killer.directory))
    prepared = killer.directory / "prepared"
    shutil.copytree(killer.shiplap.root, prepared, symlinks=True)
    for point in tried:
        killing.clear(killer.shiplap.root)
        shutil.copytree(prepared, killer.shiplap.root, symlinks=True)  # a tenth of the time of building it again
        with attempts.attempt(f"killed at point {point} of {points}"):
            killer.run(*command, mode=FREEZE, stop_at=point)
            assert_recovers(killer, wanted, 0)
    attempts.told(f"kills of {command}")


def test_four_builds_at_once_killed_at_random(killer: Killer) -> None:
    shiplap, directory = killer.shiplap, killer.directory
    began = time.monotonic()
    shiplap.run(*build(directory))
    lasts = time.monotonic() - began
    wanted = killing.digest_of_file(directory / "o.tar")
    dice = random.Random(os.urandom(8) if SOAK else 7)
    kills = 0
    attempts = Attempts()
    while kills < RANDOM:
        if dice.random() < 0.3:
            killing.clear(shiplap.root)
        running = [shiplap.start(*build(directory, f"{number}.tar"), stdout=-3, stderr=-3) for number in range(4)]
        moments = sorted(((dice.random() * 2 * lasts, process) for process in running), key=lambda pair: pair[0])
        began = time.monotonic()
        for moment, process in moments:
            time.sleep(max(began + moment - time.monotonic(), 0))
            if process.poll() is None:
                killing.kill_all(process.pid) if dice.random() < 0.5 else process.kill()
                kills += 1
        for process in running:
            process.wait(20)
        for left in directory.glob("*.tar"):
            left.unlink()
        with attempts.attempt(f"after kill {kills}"):
            assert_recovers(killer, wanted, 0)
    attempts.told(f"{kills} kills at random")
