"""A trial that went well is kept from one process to the next, while nothing has changed that decides it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from shiplap.errors import SandboxError
from shiplap.sandbox import circumstances, detect
from shiplap.sandbox.launch import Helper
from shiplap.sandbox.native import NativeRuntime
from shiplap.sandbox.spec import ProcessSpec, Rootfs


class Words(dict[str, str]):
    """A Memory."""

    def digest(self, key: str) -> str | None:
        return self.get(key)

    def put_digest(self, key: str, value: str) -> None:
        self[key] = value


class Tries:
    """Counts trials and answers them."""

    def __init__(self, overlay: bool = True) -> None:
        self.number = 0
        self.overlay = overlay

    def __call__(self, what: str, scratch: str, snapshots: str) -> detect.Trial:
        self.number += 1
        runtime = NativeRuntime()
        runtime.overlay = self.overlay
        return detect.Trial(runtime)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Tries:
    made = Tries()
    monkeypatch.setattr(detect, "_first_that_runs", made)
    monkeypatch.setattr(detect, "_tried", {})
    return made


def another_process() -> None:
    detect._tried.clear()


@pytest.mark.parametrize("overlay", [True, False])
def test_it_is_tried_once(tries: Tries, tmp_path: Path, overlay: bool) -> None:
    tries.overlay = overlay
    memory = Words()
    for _ in range(3):
        runtime = detect.choose("auto", str(tmp_path), memory=memory)
        assert (runtime.name, runtime.overlay) == ("native", overlay)
        another_process()
    assert tries.number == 1
    detect.choose("auto", str(tmp_path))
    assert tries.number == 2, "without a memory it is tried"
    another_process()
    detect.choose("auto", str(tmp_path), "copy", memory)
    assert tries.number == 3, "asked for other snapshots"


def test_other_circumstances(tries: Tries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Words()
    monkeypatch.setattr(circumstances, "_FILES", (*circumstances._FILES, str(tmp_path / "knob")))
    for _ in range(2):
        detect.choose("auto", str(tmp_path), memory=memory)
        another_process()
    assert tries.number == 1
    (tmp_path / "knob").write_text("1\n")
    detect.choose("auto", str(tmp_path), memory=memory)
    assert tries.number == 2


def test_what_a_process_may_is_part_of_it(tmp_path: Path) -> None:
    before = circumstances.fingerprint(str(tmp_path))
    assert circumstances.fingerprint(str(tmp_path)) == before
    code = f"from shiplap.sandbox.circumstances import fingerprint; print(fingerprint({str(tmp_path)!r}))"
    for less in ([], ["setpriv", "--no-new-privs"], ["setpriv", "--bounding-set=-sys_boot"]):
        told = subprocess.run([*less, sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert (told.strip() == before) == (not less), less


def test_a_step_that_cannot_be_isolated_has_it_tried_again(
    tries: Tries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Words()
    detect.choose("auto", str(tmp_path), memory=memory)
    another_process()
    runtime = detect.choose("auto", str(tmp_path), memory=memory)

    def refused(*_: object) -> None:
        raise SandboxError("mount: not permitted", code="no-mount")

    monkeypatch.setattr(Helper, "step", refused)
    spec = ProcessSpec(("true",), (), "/", Rootfs((), str(tmp_path), str(tmp_path)), network="none")
    with pytest.raises(SandboxError):
        runtime.run(spec, lambda *_: None, Event())
    assert tries.number == 1
    detect.choose("auto", str(tmp_path), memory=memory)
    assert tries.number == 2
