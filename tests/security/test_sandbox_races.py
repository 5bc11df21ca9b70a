"""Races: another step, or another build, swaps what a mount is about to use. A process does nothing but swap, meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shiplap.errors import SandboxError
from shiplap.sandbox import linux, rooted
from shiplap.sandbox.native import NativeRuntime
from shiplap.sandbox.spec import ProcessSpec, Rootfs, StepMount

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="not root"),
    pytest.mark.skipif(not shutil.which("busybox"), reason="busybox-static is not installed"),
]
_EXCHANGE = 2
ROUNDS = 10_000
STEPS = 80


@contextlib.contextmanager
def swapping(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """A process that exchanges each pair of names as fast as it can (renameat2(2), RENAME_EXCHANGE)."""
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        names = [(os.fsencode(one), os.fsencode(other)) for one, other in pairs]
        try:
            while os.getppid() != 1:
                for one, other in names:
                    libc.renameat2(-100, one, -100, other, _EXCHANGE)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Place:
    """A directory with a tree that a step may use, and one of the machine's that it may not."""

    def __init__(self, path: Path) -> None:
        self.tree, self.victim = path / "tree", path / "victim"
        (self.tree / "sel").mkdir(parents=True)
        (self.tree / "sel/mine").write_text("mine")
        (self.tree / "link").symlink_to(self.victim)
        self.victim.mkdir()
        (self.victim / "secret").write_text("secret")
        self.path = path
        self._number = 0
        self.base = path / "base"
        (self.base / "bin").mkdir(parents=True)
        shutil.copy(str(shutil.which("busybox")), self.base / "bin/sh")

    def run(self, runtime: NativeRuntime, script: str, *mounts: StepMount, cwd: str = "/") -> str:
        """What the step printed; "refused" if it could not start."""
        self._number += 1
        upper, work = (self.path / f"{name}{self._number}" for name in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        said = bytearray()
        spec = ProcessSpec(
            ("/bin/sh", "-c", script),
            ("PATH=/bin",),
            cwd,
            Rootfs((str(self.base),), str(upper), str(work)),
            mounts=mounts,
        )
        try:
            runtime.run(spec, lambda _, data: said.extend(data), threading.Event())
        except SandboxError:
            return "refused"
        finally:
            shutil.rmtree(upper)
            shutil.rmtree(work)
        return said.decode()

    def untouched(self) -> bool:
        """Whether the machine's tree is as it was made."""
        return os.listdir(self.victim) == ["secret"] and (self.victim / "secret").read_text() == "secret"


@pytest.fixture(scope="module")
def runtime() -> Iterator[NativeRuntime]:
    made = NativeRuntime()
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def outcomes(rounds: int, once: Callable[[], str]) -> set[str]:
    return {once() for _ in range(rounds)}


@pytest.mark.parametrize("old_kernel", [False, True], ids=["openat2", "by hand"])
def test_resolution(place: Place, old_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2024-11218: ten thousand resolutions of a path of which a part is swapped; every one ends inside."""
    if old_kernel:
        monkeypatch.setattr(linux, "_NR_OPENAT2", 4000)
    (place.tree / "victim").mkdir()  # what /victim means inside
    (place.tree / "up").symlink_to("../../../../../../../.." + str(place.victim))
    root = os.open(place.tree, os.O_PATH | os.O_DIRECTORY)
    inside = {os.stat(place.tree / "sel").st_ino}
    seen = set()
    try:
        with swapping((place.tree / "sel", place.tree / "link"), (place.tree / "link", place.tree / "up")):
            for _ in range(ROUNDS):
                try:
                    fd = rooted.open_in(root, "sel")
                except OSError:
                    seen.add(0)
                    continue
                seen.add(os.fstat(fd).st_ino)
                os.close(fd)
    finally:
        os.close(root)
    assert seen <= inside | {0} and seen & inside
    assert place.untouched()


def test_making_places(place: Place) -> None:
    """What is missing on the way to a mount is made inside, whatever becomes of the directories on the way."""
    root = os.open(place.tree, os.O_PATH | os.O_DIRECTORY)
    try:
        with swapping((place.tree / "sel", place.tree / "link")):
            for number in range(2000):
                with contextlib.suppress(OSError):
                    made = rooted.reach(root, f"sel/d{number % 7}/e", "dir")
                    made.close()
                    rooted.unmake(root, made.made)
    finally:
        os.close(root)
    assert place.untouched()


@pytest.mark.parametrize("readonly", [True, False], ids=["read-only", "writable"])
def test_source_of_a_bind(place: Place, runtime: NativeRuntime, readonly: bool) -> None:
    """CVE-2024-11218, CVE-2024-23651: a shared cache mount whose directory ``source`` names is swapped."""
    mount = StepMount("bind", "/x", source=str(place.tree), subpath="sel", readonly=readonly)
    with swapping((place.tree / "sel", place.tree / "link")):
        seen = outcomes(STEPS, lambda: place.run(runtime, "cd /x; echo *; : > /x/new", mount))
    assert not any("secret" in each for each in seen), seen
    assert place.untouched()


def test_source_of_a_view(place: Place, runtime: NativeRuntime) -> None:
    mount = StepMount("overlay", "/x", lowers=(str(place.tree),), subpath="sel", readonly=False)
    with swapping((place.tree / "sel", place.tree / "link")):
        seen = outcomes(STEPS, lambda: place.run(runtime, "cd /x; echo *; : > /x/new", mount))
    assert not any("secret" in each for each in seen), seen
    assert place.untouched()


def test_target_inside_a_shared_mount(place: Place, runtime: NativeRuntime) -> None:
    """CVE-2021-30465: the target of one mount lies in another that is shared, where somebody swaps it."""
    shared = StepMount("bind", "/s", source=str(place.tree), readonly=False)
    with swapping((place.tree / "sel", place.tree / "link")):
        for number in range(STEPS):
            inner = StepMount("tmpfs", f"/s/sel/t{number}")
            place.run(runtime, f": > /s/sel/t{number}/file", shared, inner)
    assert place.untouched()
    assert "tmpfs" not in [
        line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines() if str(place.path) in line
    ]


def test_working_directory_in_a_shared_mount(place: Place, runtime: NativeRuntime) -> None:
    shared = StepMount("bind", "/s", source=str(place.tree), readonly=False)
    with swapping((place.tree / "sel", place.tree / "link")):
        seen = outcomes(STEPS, lambda: place.run(runtime, "echo *; : > made", shared, cwd="/s/sel"))
    assert not any("secret" in each for each in seen), seen
    assert place.untouched()


def test_stub_is_swapped_before_it_is_removed(place: Place, runtime: NativeRuntime) -> None:
    """CVE-2024-23652 as a race: what is removed after the step is the inode that was made, or nothing."""
    (place.victim / "t").mkdir()
    shared = StepMount("bind", "/s", source=str(place.tree), readonly=False)
    inner = StepMount("tmpfs", "/s/sel/t")
    with swapping((place.tree / "sel", place.tree / "link")):
        for _ in range(STEPS):
            place.run(runtime, "true", shared, inner)
    assert sorted(os.listdir(place.victim)) == ["secret", "t"]


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="64 bit")
def test_working_directory_by_descriptor(place: Place, runtime: NativeRuntime) -> None:
    """CVE-2024-21626: no descriptor of the builder's is open where the working directory is entered."""
    for number in (*range(20), 31, 63, 64, 100):
        said = place.run(runtime, "echo *; cd ../../../..; echo *", cwd=f"/proc/self/fd/{number}")
        assert "victim" not in said and "secret" not in said, (number, said)
    assert place.untouched()
