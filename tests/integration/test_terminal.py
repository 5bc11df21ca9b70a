"""What a person sees: shiplap on a real pseudo-terminal, read through a terminal emulator."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from kit import Shiplap

PARALLEL = r"""FROM busybox AS base
RUN echo base > /base
FROM base AS builder
RUN for i in $(seq 12); do echo "compiling file $i.c with a line that goes on and on until it is much too long"; sleep 0.1; done
FROM base AS web
RUN for i in $(seq 12); do printf '\033[31mnpm %d\033[0m 包裹 \033]0;evil\007\033[2J\n' $i; sleep 0.1; done; echo > /w
FROM base AS docs
RUN for i in $(seq 12); do printf '\rprogress %d%%' $i; sleep 0.1; done; echo > /d
FROM base AS lint
RUN sleep 1.4; echo lint > /l
FROM base
COPY --from=builder /base /b
COPY --from=web /w /w
COPY --from=docs /d /d
COPY --from=lint /l /l
"""
STAGES = ["builder", "web", "docs", "lint"]


class Terminal:
    """A terminal with a program on it, whose session leader the program is."""

    def __init__(self, shiplap: Shiplap, columns: int, lines: int, *arguments: str | Path, **env: str) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.pictures: list[list[str]] = []
        self._ours, theirs = os.openpty()
        self.resize(columns, lines)
        self._modes = termios.tcgetattr(theirs)
        self._theirs = theirs
        setting = shiplap.setting(TERM="xterm-256color", **env)
        self.process = subprocess.Popen(
            [*shiplap.command, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            **setting,
        )

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def read(self, seconds: float) -> bool:
        """Take in what comes within ``seconds``, picture by picture; False at the end."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._ours], [], [], left)[0]:
                if self.process.poll() is not None:
                    return False
                continue
            data = os.read(self._ours, 65536)
            self.raw += data
            self._stream.feed(data)
            self.pictures.append(self.shown())
        return True

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, "\n".join(self.shown())
            assert self.read(0.05), "\n".join(map("\n".join, self.pictures))

    def finish(self, within: float = 30) -> int:
        """Wait for the program; the terminal must be as it was. Its exit status."""
        end = time.monotonic() + within
        while self.read(0.05):
            assert time.monotonic() < end, "\n".join(self.shown())
        assert termios.tcgetattr(self._theirs) == self._modes
        assert not self.screen.cursor.hidden
        assert self.raw.count(b"\x1b[?7l") == self.raw.count(b"\x1b[?7h")
        assert b"\x1b[?1049" not in self.raw and b"Traceback" not in self.raw
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(shiplap: Shiplap) -> Iterator[Open]:
    made: list[Terminal] = []

    def open_terminal(columns: int, lines: int, *arguments: str | Path, **env: str) -> Terminal:
        made.append(Terminal(shiplap, columns, lines, *arguments, **env))
        return made[-1]

    yield open_terminal
    for each in made:
        each.close()


@pytest.fixture
def parallel(shiplap: Shiplap) -> Path:
    context = shiplap.cwd / "parallel"
    context.mkdir()
    (context / "Dockerfile").write_text(PARALLEL)
    shiplap.run("build", "-q", "--target", "base", context)
    return context


def test_stages_at_80_columns(terminal: Open, parallel: Path) -> None:
    seen = terminal(80, 24, "build", parallel)
    seen.until(lambda: all(any(f"[{stage} 1/" in line for line in seen.shown()) for stage in STAGES))
    seen.until(lambda: any("# compiling file 3.c" in line for line in seen.shown()))
    seen.until(lambda: any("# npm 3 包裹" in line for line in seen.shown()))
    assert any(line.startswith("[+] Building ") and "steps reused" in line for line in seen.shown())
    assert any(re.fullmatch(r" => => # progress \d+%", line) for picture in seen.pictures for line in picture)
    assert seen.finish() == 0
    assert all(len(picture) <= 23 for picture in seen.pictures[:-3])
    shown = seen.shown()
    header = next(index for index, line in enumerate(shown) if line.startswith("[+] Building"))
    assert shown[header].endswith(" FINISHED")
    assert shown[header + 1] == " => CACHED 2 steps"
    assert sum("RUN" in line for line in shown) == 4
    assert all(re.search(r" \d+\.\ds$", line) for line in shown if line.startswith(" => [") and "RUN" in line)
    assert re.search(r"^built base, builder, .*: \d+ steps run, 2 reused, \d+\.\d+s", "\n".join(shown), re.MULTILINE)
    assert re.search(r"^image sha256:[0-9a-f]{64}, \d", "".join(shown[-2:]))
    # No step could drive the terminal.
    assert b"evil" not in seen.raw and b"\x1b[2J" not in seen.raw and b"\x1b[31mnpm" not in seen.raw


def test_stages_side_by_side_at_200_columns(terminal: Open, parallel: Path) -> None:
    seen = terminal(200, 50, "build", parallel)

    def heads() -> list[str]:
        return next(([w for w in line.split() if "─" not in w] for line in seen.shown() if "───" in line), [])

    seen.until(lambda: sorted(heads()) == sorted(STAGES))
    seen.until(lambda: any("# npm 4 包裹" in line and "# compiling file" in line for line in seen.shown()))
    seen.read(0.2)
    assert seen.finish() == 0
    assert not any("───" in line for line in seen.shown())


def test_a_narrower_or_lower_terminal_is_filled_and_not_exceeded(terminal: Open, parallel: Path) -> None:
    seen = terminal(150, 40, "build", parallel)
    seen.until(lambda: any("# npm 2" in line for line in seen.shown()))
    seen.resize(60, 8)
    seen.pictures.clear()
    # No certain step's output: the terminal may be too low for it.
    seen.until(lambda: seen.shown()[:1] != [] and seen.shown()[0].startswith("[+] Building") and len(seen.shown()) <= 7)
    assert max(map(len, seen.shown())) <= 60
    seen.read(0.3)
    assert seen.shown()[0].startswith("[+] Building")
    assert len(seen.shown()) <= 7
    assert seen.finish() == 0


def test_a_cached_build_says_only_what_came_of_it(terminal: Open, parallel: Path, shiplap: Shiplap) -> None:
    shiplap.run("build", "-q", "-t", "it", parallel)
    seen = terminal(80, 24, "build", "-t", "it", parallel)
    assert seen.finish() == 0
    assert [line.split()[0] for line in seen.shown()][:2] == ["built", "image"]
    assert " 0 steps run, " in seen.shown()[0]
    assert b"\x1b[" not in seen.raw


def test_a_failing_step(terminal: Open, shiplap: Shiplap) -> None:
    context = shiplap.cwd / "failing"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM busybox AS other\nRUN sleep 30\nFROM busybox\n"
        "RUN for i in $(seq 40); do echo line $i; done; sleep 0.5; \\\n    printf '\\033[31moops\\n' >&2; exit 3\n"
        "COPY --from=other /x /x\n"
    )
    seen = terminal(80, 60, "build", context)
    assert seen.finish() == 1
    text = "\n".join(seen.shown())
    assert " ERROR\n" in text
    assert " => ERROR [stage-1 2/3] RUN" in text and " => CANCELED [other 2/2] RUN sleep 30" in text
    assert "exitcode:3[step-failed]" in re.sub(r"\s", "", text)  # wherever the line is broken
    assert "  --> Dockerfile:4\n  4 | RUN for i" in text
    assert "    line 40\n    oops\n" in text and "\n    line 10\n" not in text
    hint = re.search(r"^  try: shiplap (logs [0-9a-f]{6} --step \d+) shows all of its output$", text, re.MULTILINE)
    assert hint is not None
    log = shiplap.run(*hint.group(1).split()).stdout
    assert log == "".join(f"line {n}\n" for n in range(1, 41)) + "\x1b[31moops\n"


@pytest.fixture
def slow(registry: str) -> Iterator[str]:
    """The registry behind a line of 1 MB/s: its host:port."""
    host, port = registry.split(":")
    server = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(16384):
                target.sendall(data)
                time.sleep(len(data) / 1e6)
        except OSError:
            pass
        for end in (source, target):
            end.close()

    def accept() -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            far = socket.create_connection((host, int(port)))
            for pair in ((client, far), (far, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_a_pull_shows_bytes_and_speed(terminal: Open, mirror: Path, slow: str, shiplap: Shiplap) -> None:
    seen = terminal(100, 24, "pull", f"{slow}/library/busybox:latest")
    pattern = r" => => sha256:[0-9a-f]{12}\s+\[=* *\] +[\d.]+[kM]?B / 1\.\d+MB  [\d.]+[kM]B/s"
    seen.until(lambda: any(re.fullmatch(pattern, line) for line in seen.shown()))
    assert seen.shown()[0].startswith("[+] Pulling ")
    assert seen.finish() == 0
    assert any(re.search(r"1 transfer +1\.\d+MB / 1\.\d+MB", line) for line in seen.shown())
    assert seen.shown()[-1].startswith("sha256:")


def test_the_base_of_a_build_shows_bytes_too(terminal: Open, mirror: Path, slow: str, shiplap: Shiplap) -> None:
    (shiplap.cwd / "c").mkdir()
    (shiplap.cwd / "c/Dockerfile").write_text(f"FROM {slow}/library/busybox\nRUN true\n")
    seen = terminal(100, 24, "build", shiplap.cwd / "c")
    seen.until(lambda: any(re.search(r"MB  [\d.]+[kM]B/s$", line) for line in seen.shown()))
    assert seen.finish() == 0


def test_downloads_tell_their_bytes(mirror: Path, slow: str, shiplap: Shiplap) -> None:
    (shiplap.cwd / "Dockerfile").write_text(f"FROM scratch\nADD http://{slow}/v2/ /x\n")
    facts = [json.loads(line) for line in shiplap.run("build", "--progress=rawjson", shiplap.cwd).stderr.splitlines()]
    progress = [fact for fact in facts if fact["type"] == "progress"]
    started = [fact["step"] for fact in facts if fact["type"] == "step-started"]
    assert progress and all(fact["step"] in started for fact in progress)
    assert progress[-1]["done"] and progress[-1]["current"] == 2


@pytest.mark.parametrize(("keys", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)], ids=["^C", "^\\"])
def test_the_terminal_is_left_in_order(keys: bytes, number: int, terminal: Open, parallel: Path) -> None:
    seen = terminal(80, 24, "build", parallel)
    seen.until(lambda: any("# npm 2" in line for line in seen.shown()))
    os.write(seen._ours, keys)
    began = time.monotonic()
    status = seen.finish()
    assert time.monotonic() - began < 2
    if number == signal.SIGINT:
        assert status == 130
        assert seen.shown()[-1] == "ERROR: canceled by SIGINT [interrupted]"
        assert any(" => CANCELED [web 1/1] RUN" in line for line in seen.shown())
    else:
        assert status == -signal.SIGQUIT


def test_a_killed_build_leaves_a_terminal_that_works(terminal: Open, parallel: Path) -> None:
    seen = terminal(80, 24, "build", parallel)
    seen.until(lambda: any("# npm 2" in line for line in seen.shown()))
    seen.process.kill()
    assert seen.finish() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("env", "live", "colour"), [({"TERM": "dumb"}, False, False), ({"NO_COLOR": "1"}, True, False), ({}, True, True)]
)
def test_what_the_environment_asks_for(
    env: dict[str, str], live: bool, colour: bool, shiplap: Shiplap, parallel: Path
) -> None:
    seen = Terminal(shiplap, 80, 24, "build", parallel) if not env else _with(shiplap, env, parallel)
    try:
        assert seen.finish() == 0
        assert (b"[+] Building" in seen.raw) == live
        assert (re.search(rb"\x1b\[[0-9;]+m", seen.raw) is not None) == colour
        if not live:
            assert b"\x1b" not in seen.raw and b"#1 " in seen.raw
    finally:
        seen.close()


def _with(shiplap: Shiplap, env: dict[str, str], context: Path) -> Terminal:
    if "TERM" in env:
        # What stands in the environment of the fixture goes before what the terminal says of itself.
        shiplap = Shiplap(shiplap.root, {**shiplap.env}, shiplap.cwd, ("env", "TERM=dumb", *shiplap.command))
        return Terminal(shiplap, 80, 24, "build", context)
    return Terminal(shiplap, 80, 24, "build", context, **env)


def test_a_password_prompt_gives_the_echo_back(terminal: Open) -> None:
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        seen = terminal(80, 24, "login", "-u", "me", "127.0.0.1:1")
        seen.until(lambda seen=seen: "Password:" in "".join(seen.shown()))
        seen.process.send_signal(number)
        assert seen.finish() == status


def test_ctrl_z_and_fg(terminal: Open, parallel: Path, shiplap: Shiplap) -> None:
    # A shell with job control on the terminal.
    shell = Shiplap(shiplap.root, shiplap.env, shiplap.cwd, ("bash", "--norc", "-i"))
    seen = Terminal(shell, 80, 40, PS1="$ ")
    try:
        seen.until(lambda: seen.shown() != [])
        os.write(seen._ours, f"{shiplap.command[0]} build {parallel}\n".encode())
        seen.until(lambda: any("# npm 2" in line for line in seen.shown()))
        os.write(seen._ours, b"\x1a")
        seen.until(lambda: any("Stopped" in line for line in seen.shown()))
        above = seen.shown()[: next(n for n, line in enumerate(seen.shown()) if "Stopped" in line)]
        seen.read(0.3)
        os.write(seen._ours, b"fg\n")
        seen.until(lambda: any("FINISHED" in line for line in seen.shown()))
        os.write(seen._ours, b"exit\n")
        seen.finish()
        lines = [
            line.rstrip() for row in [*seen.screen.history.top] for line in ["".join(row[x].data for x in range(80))]
        ]
        assert "\n".join(above[1:]) in "\n".join([line for line in lines + seen.shown() if line])
    finally:
        seen.close()
