"""Specification to what the helper is sent; files given to a step; small programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shiplap.errors import SandboxError, UsageError
from shiplap.oci.platform import native_platform
from shiplap.sandbox import detect, elf, helper
from shiplap.sandbox.messages import read_message, write_message
from shiplap.sandbox.oci_runtime import ways
from shiplap.sandbox.refused import NotExecutable
from shiplap.sandbox.spec import ProcessSpec, Rootfs, StepMount
from shiplap.sandbox.step import find_program
from shiplap.sandbox.userns import IdMap
from shiplap.sandbox.wire import hosts, request, resolvers

IDS = IdMap(((0, 0, 0xFFFFFFFF),), ((0, 0, 0xFFFFFFFF),))


def asked(**changes: Any) -> dict[str, Any]:
    rootfs = Rootfs((), "/u", "/w")
    return request(ProcessSpec(**{"args": ("true",), "env": (), "cwd": "/", "rootfs": rootfs, **changes}), IDS)


def test_mounts_are_sorted_by_depth_and_else_keep_their_order() -> None:
    targets = ["/a/b/c", "/z", "/a/../y", "/a/b", "//x/", "relative"]
    mounts = tuple(StepMount("tmpfs", target) for target in targets)
    assert [m["target"] for m in asked(mounts=mounts)["mounts"]] == [
        "/z",
        "/a/../y",
        "//x/",
        "relative",
        "/a/b",
        "/a/b/c",
    ]


@pytest.mark.parametrize(("given", "clean"), [("", "/"), ("/", "/"), ("a//b/", "/a/b"), ("/../x/./y", "/x/y")])
def test_working_directory_is_absolute(given: str, clean: str) -> None:
    assert asked(cwd=given)["cwd"] == clean


def test_a_name_without_a_value_is_dropped() -> None:
    """Else a runtime may fill in the host's (CVE-2026-57231)."""
    assert asked(env=("HOME", "A=1", "AWS_SECRET_ACCESS_KEY"))["env"] == ["A=1"]


@pytest.mark.parametrize("bad", [{"args": ()}, {"args": ("a\0",)}, {"env": ("A=\0",)}, {"cwd": "/\0"}])
def test_bad_commands(bad: dict[str, Any]) -> None:
    with pytest.raises(SandboxError) as caught:
        asked(**bad)
    assert caught.value.code == "bad-command"


def test_hosts_is_buildkits() -> None:
    assert hosts("h", ("a=1.2.3.4", "b=::2")) == (
        "127.0.0.1\tlocalhost h\n::1\tlocalhost ip6-localhost ip6-loopback\n1.2.3.4\ta\n::2\tb\n"
    )


def test_resolvers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    text = "search example.org\nnameserver 127.0.0.53\noptions edns0\n"
    file.write_text(text)
    assert resolvers("host", file) == text
    assert resolvers("none", file) == "search example.org\noptions edns0\n"
    file.write_text("search example.org")
    assert resolvers("host", file).startswith("search example.org\nnameserver 8.8.8.8\n")
    assert "nameserver" in resolvers("host", tmp_path / "missing")
    assert resolvers("none", tmp_path / "missing") == ""


def test_messages_cross_a_pipe_whole() -> None:
    read, write = os.pipe()
    value = {"a": [1, (2, "é\udcff")], "b": b"\0" * 3000, "c": None}
    write_message(write, value)
    os.close(write)
    assert read_message(read) == value
    with pytest.raises(EOFError):
        read_message(read)
    os.close(read)


def test_find_program(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for directory in (first, second):
        directory.mkdir()
    (first / "tool").mkdir()
    (second / "tool").write_text("")
    with pytest.raises(NotExecutable, match=r'^exec: "tool": executable file not found in \$PATH$'):
        find_program("tool", f"{first}:{second}")
    (second / "tool").chmod(0o755)
    assert find_program("tool", f"{first}::{second}") == f"{second}/tool"
    assert find_program(f"{second}/tool", "") == f"{second}/tool"
    with pytest.raises(NotExecutable, match=r'^exec: "/no": stat /no: no such file or directory$'):
        find_program("/no", "/bin")
    with pytest.raises(NotExecutable, match="permission denied"):
        find_program(str(first), "/bin")
    with pytest.raises(NotExecutable, match="not found"):
        find_program("", "/bin")


def test_probe_program_runs(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(elf.exiting(native_platform().architecture, 42))
    path.chmod(0o755)
    assert subprocess.run([path], check=False).returncode == 42
    with pytest.raises(KeyError):
        elf.exiting("pdp11", 0)


def test_helper_loads_nothing_slow() -> None:
    """Its start is part of every build's first step."""
    code = (
        "import sys; h={'__name__':'h','__file__':sys.argv[1]}; exec(open(sys.argv[1]).read(), h);"
        "h['_adopt_package']();"
        "from shiplap.sandbox import keeper, network, seccomp, supervisor; print(*sys.modules)"
    )
    call = [sys.executable, "-I", "-S", "-c", code, str(helper.__file__)]
    loaded = subprocess.run(call, capture_output=True, text=True, check=True, env={}).stdout.split()
    slow = {"typing", "re", "enum", "json", "dataclasses", "subprocess", "socket", "shiplap.errors", "inspect"}
    assert slow & {*loaded} == set()
    assert "shiplap.sandbox.step" in loaded


def test_unknown_isolation() -> None:
    with pytest.raises(UsageError):
        detect.choose("magic")


def test_nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "trial", lambda what, *_: detect.Trial(reason=f"{what} is broken"))
    monkeypatch.setattr(detect, "programs", lambda: ["/usr/bin/crun"])
    with pytest.raises(SandboxError) as caught:
        detect.choose("auto")
    assert caught.value.code == "no-sandbox"
    assert "native: native is broken; crun: /usr/bin/crun is broken" in caught.value.message
    assert caught.value.hint
    monkeypatch.setattr(detect, "programs", list)
    with pytest.raises(SandboxError, match="neither crun nor runc"):
        detect.choose("oci")


def test_cgroup_kinds(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert detect.cgroup_kind(root) == "none"
    (tmp_path / "memory").mkdir()
    assert detect.cgroup_kind(root) == "v1"
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.procs").touch()
    assert detect.cgroup_kind(root) == "hybrid"
    (tmp_path / "cgroup.controllers").touch()
    assert detect.cgroup_kind(root) == "v2"


def test_ways_to_call_a_runtime() -> None:
    assert [way.cgroups for way in ways("/usr/bin/runc", rootless=False)] == [True]
    assert ways("/usr/bin/runc", rootless=True)[0].arguments == ("--rootless", "true")
    assert ways("/usr/bin/crun", rootless=False)[0].cgroups
    assert all(not way.cgroups for way in ways("/usr/bin/crun", rootless=True))
