"""How foreign programs run here: found by running one, told by what is registered and installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shiplap.errors import SandboxError
from shiplap.oci.platform import native_platform
from shiplap.sandbox import binfmt, detect, elf, emulation
from shiplap.sandbox.detect import Trial
from shiplap.sandbox.emulation import Way
from shiplap.sandbox.oci_runtime import OciRuntime
from shiplap.sandbox.oci_runtime import Way as OciWay
from shiplap.sandbox.spec import Emulator

ENTRY = (
    "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\n"
    "magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
)
"""As the kernel shows what Debian registers."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "_known", {})


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Emulator | None]]:
    """What was tried; nothing works."""
    calls: list[tuple[str, Emulator | None]] = []

    def probe(runtime: Any, scratch: str = "", architecture: str = "", emulator: Emulator | None = None) -> Trial:
        calls.append((architecture, emulator))
        return Trial(code="probe", reason="exec format error")

    monkeypatch.setattr(detect, "probe", probe)
    monkeypatch.setattr(emulation, "host_emulator", lambda architecture: "")
    return calls


@pytest.mark.parametrize("architecture", elf.PROCESSORS)
def test_probe_counts_its_arguments(architecture: str, tmp_path: Path) -> None:
    qemu = shutil.which(f"qemu-{elf.PROCESSORS[architecture].qemu}-static")
    if qemu is None:
        pytest.skip("qemu-user-static is not installed")
    path = tmp_path / "probe"
    for status in (42, 0, 255):
        path.write_bytes(elf.exiting(architecture, status))
        path.chmod(0o755)
        codes = [subprocess.run([qemu, path, *words], check=False).returncode for words in ([], ["a"], ["a", "b"])]
        assert codes == [(status + more) % 256 for more in range(3)]
    assert path.read_bytes()[:20] == elf.PROCESSORS[architecture].identity()


def test_what_is_static(tmp_path: Path) -> None:
    assert elf.static(elf.exiting("arm", 0)) and elf.static(elf.exiting("s390x", 0))
    with open(os.path.realpath("/proc/self/exe"), "rb") as file:
        python = file.read(4096)
    assert elf.static(python) == (b"/ld-" not in python)
    assert not elf.static(b"#!/bin/sh\n") and not elf.static(b"") and not elf.static(b"\x7fELF" + bytes(60))


def test_found_only_if_static(tmp_path: Path) -> None:
    file = tmp_path / "qemu-pdp11"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    assert emulation.find("pdp11", str(tmp_path)) == ""
    file.write_bytes(elf.exiting("amd64", 0))
    assert emulation.find("pdp11", f"relative:{tmp_path}") == str(file)
    better = tmp_path / "qemu-pdp11-static"
    shutil.copy(file, better)
    assert emulation.find("pdp11", str(tmp_path)) == str(better)
    better.chmod(0o644)
    assert emulation.find("pdp11", str(tmp_path)) == str(file)


def test_what_the_machine_has_registered(tmp_path: Path) -> None:
    assert emulation.host_emulator("arm64", str(tmp_path / "none")) == ""
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "python3.11").write_text(
        "enabled\ninterpreter /usr/bin/python3.11\nflags: \noffset 0\nmagic a70d0d0a\n"
    )
    (tmp_path / "qemu-aarch64").write_text(ENTRY)
    assert emulation.host_emulator("arm64", str(tmp_path)) == "/usr/libexec/qemu-binfmt/aarch64-binfmt-P"
    assert emulation.host_emulator("riscv64", str(tmp_path)) == ""
    (tmp_path / "qemu-aarch64").write_text(ENTRY.replace("enabled", "disabled"))
    assert emulation.host_emulator("arm64", str(tmp_path)) == ""


def test_rule_takes_both_kinds_of_executables_of_any_system() -> None:
    for processor in elf.PROCESSORS.values():
        mask, identity = processor.mask(), bytearray(processor.identity())
        assert len(mask) == len(identity) == 20
        shared = bytearray(identity)
        shared[17 if processor.big else 16] = 3  # ET_DYN
        shared[7] = 3  # ELFOSABI_GNU
        assert bytes(a & m for a, m in zip(shared, mask)) == bytes(a & m for a, m in zip(identity, mask))
        others = [other for other in elf.PROCESSORS.values() if other is not processor]
        assert all(
            bytes(a & m for a, m in zip(other.identity(), mask)) != bytes(a & m for a, m in zip(identity, mask))
            for other in others
        )


def test_levels_of_x86_64(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    second = "fpu cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
    for flags, expected in (
        ("fpu", ()),
        (second, ("v2",)),
        (f"{second} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave", ("v2", "v3")),
        (f"{second} avx512f avx512bw avx512cd avx512dq avx512vl", ("v2",)),
    ):
        info.write_text(f"processor : 0\nflags\t\t: {flags}\n")
        emulation.levels.cache_clear()
        assert emulation.levels(str(info)) == expected
    emulation.levels.cache_clear()
    assert emulation.levels(str(tmp_path / "none")) == ()
    emulation.levels.cache_clear()


def test_own_platform_needs_no_trial(tried: list[Any]) -> None:
    runtime: Any = object()
    native = native_platform()
    assert emulation.require(str(native), runtime) is None
    assert emulation.require("windows/amd64", runtime) is None
    assert tried == []


def test_nothing_installed(tried: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "find", lambda name, path="": "")
    for tool, fix in (
        ("apt-get", "sudo apt-get install qemu-user-static"),
        ("dnf", "sudo dnf install qemu-user-static-s390x"),
        ("apk", "sudo apk add qemu-s390x"),
        ("", "install qemu-user-static, or put a static qemu-s390x on PATH"),
    ):
        monkeypatch.setattr(emulation, "_known", {})
        monkeypatch.setattr(
            shutil, "which", lambda name, path="", tool=tool: f"/usr/bin/{name}" if name == tool else None
        )
        with pytest.raises(SandboxError, match=r"RUN cannot run programs for linux/s390x on this machine") as caught:
            emulation.require("linux/s390x", object())  # type: ignore[arg-type]
        assert (caught.value.code, caught.value.hint) == ("no-emulator", fix)
        assert "no emulator is registered on the machine, and no static qemu-s390x is installed" in caught.value.message
    with pytest.raises(SandboxError, match="a processor that shiplap knows no emulator for"):
        monkeypatch.undo()
        emulation.require("linux/sparc64", object())  # type: ignore[arg-type]
    assert not emulation.likely("linux/sparc64")


def test_an_old_qemu_is_called_without_argv0(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = object()
    monkeypatch.setattr(emulation, "host_emulator", lambda architecture: "")
    monkeypatch.setattr(emulation, "find", lambda name, path="": f"/opt/qemu-{name}")

    def probe(_: Any, scratch: str = "", architecture: str = "", emulator: Emulator | None = None) -> Trial:
        works = emulator is not None and "P" not in emulator.flags
        return Trial(runtime) if works else Trial(code="probe", reason="the probe ended with 43")

    monkeypatch.setattr(detect, "probe", probe)
    found = emulation.way("s390x", runtime)
    assert found.emulator is not None
    assert (found.how, found.program, found.emulator.flags) == ("emulator", "/opt/qemu-s390x", "OCF")


def test_an_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator is there, and the kernel cannot give it to a step alone."""
    monkeypatch.setattr(emulation, "host_emulator", lambda architecture: "")
    monkeypatch.setattr(emulation, "find", lambda name, path="": f"/opt/qemu-{name}")
    monkeypatch.setattr(shutil, "which", lambda name, path="": f"/usr/bin/{name}" if name == "apt-get" else None)
    reason = (
        "Linux 6.1.0 gives a user namespace no binfmt_misc of its own, as 6.7 and later do (operation not permitted)"
    )

    def probe(_: Any, scratch: str = "", architecture: str = "", emulator: Emulator | None = None) -> Trial:
        return Trial(code="no-binfmt", reason=reason) if emulator else Trial(code="probe", reason="exec format error")

    monkeypatch.setattr(detect, "probe", probe)
    with pytest.raises(SandboxError) as caught:
        emulation.require("linux/s390x", object())  # type: ignore[arg-type]
    assert reason in caught.value.message
    fix = "register it for the whole machine: sudo apt-get install qemu-user-static binfmt-support"
    assert caught.value.hint == fix
    release = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*release[:2], "6.6.9-arm64", *release[3:])))
    assert not emulation.likely("linux/s390x")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*release[:2], "6.7", *release[3:])))
    assert emulation.likely("linux/s390x")


def test_registered_beats_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = object()
    monkeypatch.setattr(detect, "probe", lambda *_: Trial(runtime))
    monkeypatch.setattr(emulation, "host_emulator", lambda architecture: "/usr/bin/registered")
    assert emulation.way("s390x", runtime) == Way("s390x", "host", "/usr/bin/registered")
    monkeypatch.setattr(emulation, "host_emulator", lambda architecture: "")
    assert emulation.way("mips64", runtime) == Way("mips64", "host")  # in a container one cannot see it


def test_runtimes_are_called_otherwise_for_an_emulated_step() -> None:
    """In the step's user namespace no control group can be made, whoever calls."""
    assert OciRuntime("/usr/sbin/runc").inner == OciWay(("--rootless", "true"), False)
    assert not OciRuntime("/usr/bin/crun").inner.cgroups
    rootless = OciWay(("--cgroup-manager=disabled",), False, "/somewhere")
    assert OciRuntime("/usr/bin/crun", rootless).inner == rootless


def test_a_user_namespace_of_ones_own_does_not_look_like_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """runc and crun take one span over all ids for the machine's, and then make devices instead of binding them."""
    written: list[bytes] = []
    monkeypatch.setattr(binfmt.os, "open", lambda path, flags: os.memfd_create("map"))
    monkeypatch.setattr(binfmt.os, "write", lambda fd, data: written.append(data))
    binfmt._map_to_itself("uid", 1)
    binfmt._map_to_itself("gid", 1)
    for kind, data in zip(("uid", "gid"), written, strict=True):
        spans = [[int(word) for word in line.split()] for line in data.splitlines()]
        assert all(inside == outside for inside, outside, _ in spans)
        assert len(spans) > 1 or spans[0][2] == 1
        with open(f"/proc/self/{kind}_map") as table:
            assert sum(span[2] for span in spans) == sum(int(line.split()[2]) for line in table)
