"""Runs commands for the benchmark and measures them, in a process that stays small.

A child's largest resident memory (``ru_maxrss``) begins with its parent's at the time of exec (Linux, ``setup_new_exec``), so
a parent that has made a 1 GiB context would be measured instead of the child.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Ran:
    """``seconds`` on the wall clock; ``memory``: the command's own largest resident memory, in bytes."""

    status: int
    said: str
    seconds: float
    memory: int


class Runner:
    """The small process. A context manager."""

    def __enter__(self) -> Runner:
        self._child = subprocess.Popen(
            [sys.executable, "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        _stream(self._child.stdin).close()
        self._child.wait()

    def run(self, command: list[str], environment: dict[str, str]) -> Ran:
        asked = _stream(self._child.stdin)
        asked.write(json.dumps([command, environment]) + "\n")
        asked.flush()
        return Ran(**json.loads(_stream(self._child.stdout).readline()))


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _serve() -> None:
    for line in sys.stdin:
        command, environment = json.loads(line)
        began = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
        said = _stream(child.stdout).read()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        answer = {
            "status": child.returncode,
            "said": said,
            "seconds": seconds,
            "memory": usage.ru_maxrss * 1024,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
