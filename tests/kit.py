"""What tests are written with: shiplap as a command, programs, ports, things made once for several test processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bases
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
WORK = REPOSITORY / ".tests"
GO = ["ENV PATH=" + bases.PATH + " GOTOOLCHAIN=local GOPATH=/go", "WORKDIR /go", 'CMD ["sh"]']
SOAK = bool(os.environ.get("SHIPLAP_SOAK"))
"""``make soak``: everything instead of a sample; it takes hours."""
SHELL = ["ENV PATH=" + bases.PATH, 'CMD ["sh"]']


def program(name: str) -> str:
    """The path of a program that tests need; the test fails, and says what to install, if it is missing."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        if os.geteuid() == 0:
            pytest.fail(f"{name} is missing: sh tests/setup/packages.sh installs it")
        pytest.skip(f"{name} is not installed, and only root may install it")
    return found


@dataclass
class Shiplap:
    """The command, with a store and an environment of its own."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path = REPOSITORY
    command: tuple[str, ...] = (str(Path(sys.executable).with_name("shiplap")),)
    user: int | None = None

    def run(
        self, *arguments: str | Path, check: bool = True, stdin: bytes | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it; fails the test with its output if it fails and ``check``."""
        done = subprocess.run(
            [*self.command, *map(str, arguments)], input=stdin, capture_output=True, timeout=300, **self.setting(**env)
        )
        text = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and done.returncode != 0:
            pytest.fail(f"shiplap {' '.join(map(str, arguments))}: exit {done.returncode}\n{text.stdout}{text.stderr}")
        assert "Traceback (most recent call last)" not in text.stderr
        return text

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start it and do not wait; ``options`` are Popen's."""
        return subprocess.Popen([*self.command, *map(str, arguments)], **{**self.setting(), **options})

    def setting(self, **env: str) -> dict[str, Any]:
        """Environment, directory and user, as subprocess takes them."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root.parent),
            "LANG": "C.UTF-8",
            "PYTHONFAULTHANDLER": "1",
        }
        return {
            "env": environment | {"SHIPLAP_ROOT": str(self.root), **self.env, **env},
            "cwd": self.cwd,
            "user": self.user,
            "group": pwd.getpwuid(self.user).pw_gid if self.user is not None else None,
            "extra_groups": [] if self.user is not None else None,
        }


@contextlib.contextmanager
def once(path: Path) -> Iterator[bool]:
    """Among several test processes one makes ``path``: yields whether that is us."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not path.exists()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come up in {seconds} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
