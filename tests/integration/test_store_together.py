"""Many processes on one store: no error, no step run twice, nobody waits for ever."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import killing
from kit import SOAK, Shiplap

SECONDS = 180 if SOAK else 8
WATCHDOG = 60


def context_of(directory: Path, dockerfile: str, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def run_together(shiplap: Shiplap, commands: list[list[str | Path]]) -> list[str]:
    """Run them all at once; what each wrote to standard error. Fails if one fails, or has not ended in time."""
    running = [shiplap.start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for command in commands]
    said = []
    try:
        for process in running:
            _, errors = process.communicate(timeout=WATCHDOG)
            assert process.returncode == 0, errors.decode()
            said.append(errors.decode())
    finally:
        for process in running:
            process.kill()
    return said


def steps_run(said: list[str]) -> Counter[str]:
    """How often each step was run, not found, by name."""
    counted: Counter[str] = Counter()
    for text in said:
        for line in text.splitlines():
            fact = json.loads(line)
            if fact["type"] == "step-started" and fact["step"].startswith("sha256:") and not fact.get("cached"):
                counted[fact["name"].partition("] ")[2] or fact["name"]] += 1
    return counted


def test_sixteen_equal_builds_run_each_step_once(shiplap: Shiplap, tmp_path: Path) -> None:
    """On a store that none of them has seen before."""
    context = context_of(
        tmp_path / "c",
        "FROM busybox AS a\nRUN sleep 0.2; echo a > /a\nFROM busybox AS b\nRUN echo b > /b\nCOPY f /f\n"
        "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /f /\nRUN cat /a /b > /c\n",
        f="data",
    )
    said = run_together(shiplap, [["build", "--progress=rawjson", context]] * 16)
    counted = steps_run(said)
    assert len(counted) >= 7
    assert set(counted.values()) == {1}, counted
    killing.assert_sound(shiplap)
    killing.assert_nothing_is_left(shiplap.root)


def test_sixteen_different_builds_run_what_they_share_once(shiplap: Shiplap, tmp_path: Path) -> None:
    contexts = [
        context_of(tmp_path / str(number), f"FROM busybox\nRUN echo shared > /s\nRUN echo {number} > /n\n")
        for number in range(16)
    ]
    counted = steps_run(run_together(shiplap, [["build", "--progress=rawjson", context] for context in contexts]))
    assert counted["RUN echo shared > /s"] == 1
    assert [counted[f"RUN echo {number} > /n"] for number in range(16)] == [1] * 16
    killing.assert_sound(shiplap)


def test_locked_cache_mounts_in_any_order_do_not_wait_for_each_other_for_ever(shiplap: Shiplap, tmp_path: Path) -> None:
    mounts = [f"--mount=type=cache,sharing=locked,id={name},target=/{name}" for name in "ab"]
    contexts = []
    for number in range(8):
        first, second = mounts if number % 2 else mounts[::-1]
        text = f"FROM busybox\nRUN {first} {second} {first.replace('/a', '/x')} echo {number}; sleep 0.05\n"
        contexts.append(context_of(tmp_path / str(number), text))
    run_together(shiplap, [["build", context] for context in contexts])


def test_build_prune_and_rmi_beside_each_other(shiplap: Shiplap, tmp_path: Path) -> None:
    """Nothing that a build uses is removed under it, and none of them ends with an error."""
    contexts = [
        context_of(
            tmp_path / str(number),
            f"FROM busybox AS a\nRUN echo shared > /s\nRUN echo {number} > /n\n"
            f"FROM busybox\nCOPY --from=a /s /n /\nCOPY f /f\nRUN cat /s /n /f > /all\n",
            f=f"data {number}",
        )
        for number in range(3)
    ]
    shiplap.run("pull", "-q", "busybox")
    end = time.monotonic() + SECONDS
    failures: list[str] = []
    counts: Counter[str] = Counter()
    slowest = 0.0

    def loop(seed: int, commands: list[list[str | Path]], pause: float, allowed: tuple[str, ...] = ()) -> None:
        nonlocal slowest
        dice = random.Random(seed)
        while time.monotonic() < end and not failures:
            command = dice.choice(commands)
            began = time.monotonic()
            try:
                done = shiplap.run(*command, check=False)
            except BaseException as error:  # noqa: BLE001  whatever it is, the test has failed
                failures.append(f"{command}: {error!r}")
                return
            slowest = max(slowest, time.monotonic() - began)
            counts[str(command[0])] += 1
            if done.returncode != 0 and not any(code in done.stderr for code in allowed):
                failures.append(f"{command}: exit {done.returncode}\n{done.stderr}")
            time.sleep(dice.random() * pause)

    prunes: list[list[str | Path]] = [
        ["prune", "--force"],
        ["prune", "--force", "--all"],
        ["prune", "--force", "--keep=3m"],
        ["prune", "--force", "--filter", "type=internal"],
    ]
    workers = [
        *(
            threading.Thread(target=loop, args=(number, [["build", "-q", "-t", f"it{number}", context]], 0.1))
            for number, context in enumerate(contexts)
        ),
        threading.Thread(target=loop, args=(7, [["build", "-q", "--no-cache", "-t", "it0", contexts[0]]], 0.3)),
        threading.Thread(target=loop, args=(8, prunes, 0.2)),
        threading.Thread(target=loop, args=(9, [["rmi", f"it{n}"] for n in range(3)], 0.2, ("[no-such-image]",))),
        threading.Thread(target=loop, args=(10, [["run", "busybox", "true"], ["images"], ["du"]], 0.3)),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SECONDS + WATCHDOG)
        assert not worker.is_alive(), "a command has not come back"
    print(dict(counts), f"slowest {slowest:.2f} s")
    assert failures == []
    assert counts["build"] > 4 and counts["prune"] > 2
    killing.assert_sound(shiplap)
    shiplap.run("rmi", "busybox")
    shiplap.run("prune", "--all", "--force")
    for image in shiplap.run("images", "-q").stdout.split():
        shiplap.run("rmi", image)
    shiplap.run("prune", "--all", "--force")
    killing.assert_nothing_is_left(shiplap.root)
    kept = sum(path.stat().st_size for path in shiplap.root.rglob("*") if path.is_file() and "logs" not in path.parts)
    assert kept < 1 << 20


@pytest.mark.parametrize("flags", [["--all"], ["--filter", "inuse"], ["--max-used-space=1k"]])
def test_prune_does_not_wait_for_a_build_and_takes_nothing_from_it(
    shiplap: Shiplap, tmp_path: Path, flags: list[str]
) -> None:
    context = context_of(
        tmp_path / "c", "FROM busybox\nRUN echo one > /1\nRUN --mount=type=cache,target=/c echo up; sleep 2; cat /1\n"
    )
    shiplap.run("pull", "-q", "busybox")
    process = shiplap.start("build", "--progress=plain", context, stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if line.endswith(b" up\n"):
            break
    began = time.monotonic()
    records = [json.loads(line) for line in shiplap.run("du", "--format", "json").stdout.splitlines()]
    assert sum(not record["Reclaimable"] for record in records) >= 3
    shiplap.run("prune", "--force", *flags)
    assert time.monotonic() - began < 1.9
    rest = process.stderr.read()
    assert process.wait(20) == 0, rest
    assert ": 0 steps run" in shiplap.run("build", context).stderr
