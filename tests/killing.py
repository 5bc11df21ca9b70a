"""Killing shiplap at chosen points, and looking at what is left. The counting is done by ``crash/points.c``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kit import REPOSITORY, WORK, Shiplap, once, program, wait_for

COUNT, FREEZE, PARENT = 0, 1, 2
EPOCH = "1700000000"
_FORMAT = "5q64s"
DOCKERFILE = """FROM busybox AS a
RUN mkdir /o && echo one > /o/a && touch -d @0 /o/a /o /
FROM busybox AS b
COPY f /o/f
RUN --mount=type=cache,target=/c cp /o/f /o/b && echo x >> /c/x && touch -d @0 /o/b /o / /c
FROM scratch
COPY --from=a /o/a /a
COPY --from=b /o/b /b
COPY f g /d/
"""
"""Three stages whose image has the same digest each time, if SOURCE_DATE_EPOCH says when."""


def library() -> Path:
    """The shared library that counts, compiled once."""
    path = WORK / "points.so"
    source = REPOSITORY / "tests/crash/points.c"
    with once(WORK / "points"):
        if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
            compiler = program("gcc")
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", path, source, "-ldl"], check=True)
    return path


def reference_context(directory: Path) -> Path:
    """The build context of DOCKERFILE; its files do not change from one time to the next."""
    directory.mkdir(parents=True)
    (directory / "Dockerfile").write_text(DOCKERFILE)
    for name, data in (("f", b"data" * 5000), ("g", b"more")):
        (directory / name).write_bytes(data)
        os.utime(directory / name, (1_600_000_000, 1_600_000_000))
    return directory


@dataclass
class Outcome:
    """What became of a run: how many points it came to, where it was stopped, what steps had ended by then."""

    points: int
    where: str
    finished: int
    fired: bool


@dataclass
class Killer:
    """Runs shiplap under the counter. ``shiplap`` has its store and environment."""

    shiplap: Shiplap
    directory: Path
    _number: int = field(default=0)

    def run(self, *arguments: str | Path, mode: int = COUNT, stop_at: int = 0) -> Outcome:
        """Run it, and kill it when it comes to the point ``stop_at``: all its processes, or (PARENT) the first one."""
        self._number += 1
        control = self.directory / f"points-{self._number}"
        control.write_bytes(struct.pack(_FORMAT, 0, stop_at, mode, 0, 0, b""))
        process = self.shiplap.start(
            *arguments,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.shiplap.setting()["env"] | {"LD_PRELOAD": str(library()), "SHIPLAP_POINTS": str(control)},
        )
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        said = b""
        # A whole run takes long on a machine that has much to do; one that comes to no further point hangs.
        seen, end = -1, 0.0
        while process.poll() is None:
            if (now := self._state(control)[0]) != seen:
                seen, end = now, time.monotonic() + 60
            if time.monotonic() > end:
                break
            said += process.stderr.read() or b""
            if mode == FREEZE and self._state(control)[3]:
                kill_all(process.pid)
            time.sleep(0.002)
        if process.poll() is None:
            where = standing(process.pid)
            process.send_signal(signal.SIGABRT)  # faulthandler tells where each thread stands
            time.sleep(0.5)
            said += process.stderr.read() or b""
            kill_all(process.pid)
            pytest.fail(f"{arguments} hung at point {self._state(control)}\n{where}\n{said.decode(errors='replace')}")
        said += process.stderr.read() or b""
        process.stderr.close()
        count, _, _, fired, _, where = self._state(control)
        control.unlink()
        if not fired and process.returncode != 0:
            pytest.fail(f"{arguments}: exit {process.returncode}\n{said.decode(errors='replace')}")
        ended = said.count(b'"type":"step-finished"') - said.count(b'"cached":true')
        return Outcome(count, where.rstrip(b"\0").decode(), ended, bool(fired))

    @staticmethod
    def _state(control: Path) -> tuple[int, int, int, int, int, bytes]:
        count, stop_at, mode, fired, first, where = struct.unpack(_FORMAT, control.read_bytes())
        return count, stop_at, mode, fired, first, where


def standing(pid: int) -> str:
    """What a process and all that came of it are doing: command line, state and system call of each thread."""
    found, lines = [pid], []
    for one in found:
        for task in _listed(f"/proc/{one}/task"):
            with suppress(OSError):
                directory = Path(f"/proc/{one}/task/{task}")
                found += map(int, (directory / "children").read_text().split())
                state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
                told = [(directory / name).read_text().strip() for name in ("wchan", "syscall")]
                words = (directory / "cmdline").read_bytes()[:100]
                lines.append(f"{one}/{task} {state} {' '.join(told)} {words!r}")
    return "\n".join(lines)


def kill_all(pid: int) -> None:
    """Kill a process and all that came of it: stopped first, so that none starts another meanwhile."""
    found = [pid]
    for one in found:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGSTOP)
        for task in _listed(f"/proc/{one}/task"):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    for one in found:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def assert_nothing_runs(root: Path, seconds: float = 2) -> None:
    """No process has the store mounted, open as a directory or on its command line; after at most ``seconds``."""
    wait_for(lambda: not users(root), f"the end of {users(root)}", seconds)


def users(root: Path) -> list[str]:
    """Processes that have to do with the store."""
    needle = str(root).encode()
    found = []
    for name in _listed("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError):
            for part in ("cmdline", "environ", "mountinfo"):
                if needle in Path(f"/proc/{name}/{part}").read_bytes():
                    found.append(f"{name} ({part}): {Path(f'/proc/{name}/cmdline').read_bytes()[:200]!r}")
                    break
    return found


def assert_sound(shiplap: Shiplap) -> None:
    """``fsck`` finds nothing."""
    done = shiplap.run("fsck", "--format", "json", check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["findings"] == [], done.stdout + done.stderr


def assert_nothing_is_left(root: Path) -> None:
    """No temporary file, no lease, no lock of a piece of work."""
    assert os.listdir(root / "tmp") == []
    assert os.listdir(root / "leases") == []
    assert set(os.listdir(root / "locks")) <= {"gate", "index", "index.new", "settle", "store"}


def digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def clear(root: Path) -> None:
    """Remove a store."""
    shutil.rmtree(root, ignore_errors=True)


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
