"""Ctrl-C, kill, hang-up, a reader that leaves, closed descriptors: how real processes end, and what they leave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit import Shiplap, wait_for

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def context(shiplap: Shiplap, seconds: str) -> Path:
    path = shiplap.cwd / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(
        f"FROM busybox AS a\nRUN echo begun; sleep {seconds}\n"
        f"FROM busybox AS b\nRUN sleep {seconds}\nFROM a\nCOPY --from=b /bin/sh /x\n"
    )
    if shiplap.user is not None:
        subprocess.run(["chown", "-R", str(shiplap.user), path], check=True)
    return path


def processes(word: str) -> list[str]:
    """Command lines of processes that have ``word`` among their arguments."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if word in words:
            found.append(" ".join(words))
    return found


def begin(shiplap: Shiplap, *arguments: str | Path, seconds: str) -> subprocess.Popen[bytes]:
    process = shiplap.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: len(processes(seconds)) >= 2 or process.poll() is not None, "the steps")
    return process


def ended(process: subprocess.Popen[bytes], within: float) -> str:
    """What it said in the end; fails if that took longer than ``within`` seconds."""
    began = time.monotonic()
    _, told = process.communicate(timeout=20)
    assert time.monotonic() - began < within
    text = told.decode()
    assert "Traceback" not in text
    return text


def nothing_is_left(shiplap: Shiplap, seconds: str) -> None:
    wait_for(lambda: processes(seconds) == [], "the end of all processes", 2)
    assert os.listdir(shiplap.root / "tmp") == []
    assert str(shiplap.root) not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_one_signal_ends_a_build_in_good_order(each: Shiplap, number: signal.Signals) -> None:
    seconds = f"9{os.getpid()}"
    directory = context(each, seconds)
    process = begin(each, "build", directory, seconds=seconds)
    process.send_signal(number)
    said = ended(process, 2.0)
    assert process.returncode == STATUS[number]
    assert said.splitlines()[-1] == f"ERROR: canceled by {number.name} [interrupted]"
    nothing_is_left(each, seconds)
    assert each.run("logs", "--list").stdout.split("\n")[1].split()[4] == "canceled"
    # The store is whole: the same store builds at once.
    each.run("build", "-q", "-", stdin=b"FROM busybox\nRUN echo whole > /x\n")


def heeds(process: subprocess.Popen[bytes]) -> bool:
    """Whether shiplap itself has begun: Python catches SIGINT, but not SIGTERM."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_a_signal_at_any_moment(each: Shiplap) -> None:
    """From the moment shiplap has begun until the build is over: one status, no traceback, nothing left."""
    seconds = "0.1"
    directory = context(each, seconds)
    each.run("build", "-q", directory)
    ends = set()
    for round, number in enumerate([*STATUS] * 12):
        process = each.start(
            "build", "--no-cache", directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        while not heeds(process):
            assert process.poll() is None
        time.sleep(round * 0.012)
        process.send_signal(number)
        said = ended(process, 2.5)
        ends.add(process.returncode == 0)
        if process.returncode:
            assert (process.returncode, said.splitlines()[-1]) == (
                STATUS[number],
                f"ERROR: canceled by {number.name} [interrupted]",
            ), f"after {round * 12} ms: {said}"
        assert os.listdir(each.root / "tmp") == [], f"after {round * 12} ms"
    assert False in ends


def test_a_second_signal_ends_it_in_a_moment(each: Shiplap) -> None:
    seconds = f"8{os.getpid()}"
    process = begin(each, "build", context(each, seconds), seconds=seconds)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    # One signal has 1.8 s to end gracefully; two take none of it. On a busy machine the rest was seen to take 0.52 s.
    assert ended(process, 1.5).splitlines()[-1] == "ERROR: canceled by SIGINT [interrupted]"
    assert process.returncode == 130
    nothing_is_left(each, seconds)


def test_a_hangup_that_nohup_ignores_stays_ignored(shiplap: Shiplap) -> None:
    process = shiplap.start(
        "build",
        "-q",
        "-",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdin is not None
    process.stdin.write(b"FROM busybox\nRUN sleep 1\n")
    process.stdin.close()
    time.sleep(0.7)
    process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 0
    assert process.stdout is not None and process.stdout.read().startswith(b"sha256:")
    process.stdout.close()


def test_run_ends_with_its_container(shiplap: Shiplap) -> None:
    shiplap.run("pull", "-q", "busybox")
    seconds = f"7{os.getpid()}"
    process = shiplap.start("run", "busybox", "sleep", seconds, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(lambda: len(processes(seconds)) >= 2, "the container")
    process.send_signal(signal.SIGTERM)
    assert ended(process, 2.0) == "ERROR: canceled by SIGTERM [interrupted]\n"
    assert process.returncode == 143
    nothing_is_left(shiplap, seconds)


@pytest.fixture
def silent() -> Iterator[str]:
    """A registry that takes connections and never answers: its host:port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for connection in held:
            connection.close()


COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "pull": lambda host: ["pull", f"{host}/a:1"],
    "push": lambda host: ["push", f"{host}/a:1"],
    "login": lambda host: ["login", "-u", "me", "-p", "secret", host],
    "build, its base": lambda host: ["build", "--build-arg", f"BASE={host}/b:1", "context"],
    "build, its push": lambda host: ["build", "--push", "-t", f"{host}/a:1", "context"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_silent_registry_cannot_hold_us(command: str, number: signal.Signals, shiplap: Shiplap, silent: str) -> None:
    (shiplap.cwd / "context").mkdir()
    (shiplap.cwd / "context/Dockerfile").write_text("ARG BASE=busybox\nFROM $BASE\nRUN echo x > /x\n")
    shiplap.run("build", "-q", "-t", f"{silent}/a:1", "context")
    process = shiplap.start(*COMMANDS[command](silent), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(number)
    said = ended(process, 2.0)
    assert process.returncode == STATUS[number]
    assert said.splitlines()[-1] == f"ERROR: canceled by {number.name} [interrupted]"
    assert os.listdir(shiplap.root / "tmp") == []


# -- readers that leave, and descriptors that are not there


def shell(shiplap: Shiplap, line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which ``$S`` is shiplap."""
    setting = shiplap.setting(S=shiplap.command[0])
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, **setting)


def test_a_reader_that_leaves_ends_a_build_quietly(shiplap: Shiplap) -> None:
    seconds = f"6{os.getpid()}"
    directory = context(shiplap, seconds)
    # The first line is read; the step's output then finds nobody.
    (directory / "Dockerfile").write_text(f"FROM busybox\nRUN while sleep 0.05; do echo {seconds}; done\n")
    began = time.monotonic()
    done = shell(shiplap, '$S build context 2>&1 | head -n 1; echo "${PIPESTATUS[0]}"')
    assert time.monotonic() - began < 10
    assert done.stdout.splitlines()[-1] == "141"
    assert done.stderr == ""
    nothing_is_left(shiplap, seconds)


def test_a_reader_that_leaves_ends_a_table_quietly(shiplap: Shiplap) -> None:
    done = shell(shiplap, 'yes | $S version 2>&1 >/dev/full; echo $?; $S images | true; echo "${PIPESTATUS[0]}"')
    assert done.stdout.splitlines()[-1] in ("0", "141")
    assert done.stderr == ""


def test_a_full_disk_behind_standard_output_is_an_error(shiplap: Shiplap) -> None:
    done = shell(shiplap, "$S images > /dev/full")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "ERROR: [Errno 28] No space left on device [system]")


def test_a_build_needs_no_standard_error(shiplap: Shiplap) -> None:
    for redirection in ("2>&-", "2>/dev/full", ">&- 2>&- <&-"):
        done = shell(shiplap, f"mkdir -p c; echo 'FROM busybox' > c/Dockerfile; $S build -t it c {redirection}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), redirection


def test_what_needs_standard_input_says_so(shiplap: Shiplap) -> None:
    for line in ("$S build - <&-", "$S login --password-stdin -u me x <&-"):
        done = shell(shiplap, line)
        assert done.returncode == 2
        assert "standard input is closed [no-stdin]" in done.stderr


def test_an_archive_cannot_go_to_a_closed_standard_output(shiplap: Shiplap) -> None:
    done = shell(shiplap, "mkdir c; echo 'FROM busybox' > c/Dockerfile; $S build -o type=oci,dest=- c >&-")
    assert done.returncode == 1
    assert "standard output is closed [cannot-write]" in done.stderr


# -- the library

LIBRARY = """
import shiplap, signal, sys, threading, time, os
where, seconds, mode = sys.argv[1:]
before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
caught = []
def build():
    try:
        shiplap.build(where)
    except BaseException as error:
        caught.append(type(error).__name__)
if mode == "thread":
    thread = threading.Thread(target=build)
    thread.start()
    time.sleep(1)
    print({n: signal.getsignal(n) for n in before} == before, flush=True)
    os._exit(0)
build()
print(caught, os.listdir(os.environ["SHIPLAP_ROOT"] + "/tmp"), threading.active_count())
"""


def test_the_library_installs_no_handlers_and_passes_ctrl_c_on(shiplap: Shiplap) -> None:
    seconds = f"5{os.getpid()}"
    directory = context(shiplap, seconds)
    words = [sys.executable, "-c", LIBRARY, str(directory), seconds]
    other = shiplap.setting(SHIPLAP_ROOT=f"{shiplap.root}-other")
    thread = subprocess.run([*words, "thread"], capture_output=True, text=True, timeout=20, **other)
    assert (thread.stdout, thread.stderr) == ("True\n", "")
    wait_for(lambda: len(processes(seconds)) == 0, "the end of the steps")
    main = subprocess.Popen([*words, "main"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **shiplap.setting())
    wait_for(lambda: len(processes(seconds)) >= 3, "the steps")
    main.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, told = main.communicate(timeout=20)
    assert time.monotonic() - began < 2
    assert out.decode() == "['KeyboardInterrupt'] [] 1\n", told.decode()
    assert processes(seconds) == []
