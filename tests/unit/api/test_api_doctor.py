"""Machines of every kind, made up, and what the doctor says of them; then this one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec import structs

from shiplap.api.doctor import Disk, Finding, Report, diagnose, known_holes, look_at_disk
from shiplap.cli.doctor import lines
from shiplap.sandbox.emulation import Way
from shiplap.sandbox.survey import FoundRuntime, Machine, Trials, look

MACHINE = Machine(
    root=False,
    user="joe",
    kernel="6.12.1",
    architecture="x86_64",
    userns="",
    userns_fix="",
    newuidmap=True,
    newuidmap_privileged=True,
    subordinate_ids=65536,
    cgroup="v2",
    delegated=True,
    outlets=("pasta", "slirp4netns"),
    tun="",
    install="sudo apt-get install {}",
)
NATIVE = FoundRuntime("native", "", True)
TRIALS = Trials(
    ids=65537,
    single=False,
    owners=True,
    runtimes=(NATIVE,),
    overlay="",
    overlay_fix="",
    copies=False,
    outlet="pasta",
    outlet_reason="",
    ways=(Way("amd64", "native"), Way("arm64", "emulator", "/usr/bin/qemu-aarch64-static")),
)
DISK = Disk(path="/s", kind="ext4", options=("rw", "relatime"), free=50 << 30, files=10**7)


def report(machine: Machine = MACHINE, trials: Trials | None = TRIALS, disk: Disk = DISK) -> Report:
    return diagnose(machine, trials, disk)


def finding(of: Report, name: str, level: str) -> Finding:
    (found,) = (found for found in of.findings if (found.name, found.level) == (name, level))
    return found


def test_all_is_well() -> None:
    found = report()
    assert (found.run, found.way, found.isolation, found.snapshots, found.network) == (
        *(True, "A", "native", "overlay", "pasta"),
    )
    assert {each.level for each in found.findings} == {"ok"}
    assert lines(found)[0].endswith("(way A): isolated by native, with overlays and a network through pasta.")


def test_root() -> None:
    machine = structs.replace(MACHINE, root=True, user="root", subordinate_ids=0)
    assert report(machine).way == "root"


@pytest.mark.parametrize(
    ("changes", "why", "fix"),
    [
        ({"newuidmap": False}, "newuidmap is not installed", "sudo apt-get install uidmap"),
        ({"newuidmap": False, "install": "sudo dnf install {}"}, "not installed", "sudo dnf install shadow-utils"),
        ({"newuidmap_privileged": False}, "not setuid", "sudo chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap"),
        (
            {"subordinate_ids": 0},
            "has no range for joe",
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 joe",
        ),
        ({}, "newuidmap refused", ""),
    ],
)
def test_one_id(changes: dict[str, object], why: str, fix: str) -> None:
    single = structs.replace(TRIALS, single=True, ids=1)
    found = report(structs.replace(MACHINE, **changes), single)
    assert found.run and found.way == "B"
    note = finding(found, "user", "note")
    assert why in note.text and note.fix == fix
    old = report(structs.replace(MACHINE, **changes), structs.replace(single, owners=False))
    assert "chown fails" in finding(old, "user", "warning").text


def test_few_ids() -> None:
    note = finding(report(trials=structs.replace(TRIALS, ids=1001)), "user", "note")
    assert "1001 ids" in note.text and note.fix.startswith("sudo usermod")


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("(user.max_user_namespaces = 0)", "sudo sysctl -w user.max_user_namespaces=15000"),
        ("(kernel.unprivileged_userns_clone = 0)", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "(kernel.apparmor_restrict_unprivileged_userns = 1)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_no_user_namespace(reason: str, fix: str) -> None:
    machine = structs.replace(MACHINE, userns=f"this machine forbids user namespaces {reason}", userns_fix=fix)
    found = report(machine, None)
    assert (found.run, found.way) == (False, "D")
    error = finding(found, "user", "error")
    assert reason in error.text and error.fix == fix
    text = lines(found)
    assert text[0] == "RUN does not work here. Dockerfiles without RUN do."
    assert text[2].startswith("error") and text[3].strip() == f"try: {fix}"


def test_masked_proc() -> None:
    """In a container whose /proc is masked nothing runs, and each runtime says why."""
    broken = FoundRuntime(
        "native", "", False, "no-proc", "the kernel refuses a new /proc", "run the outer container with x"
    )
    found = report(trials=structs.replace(TRIALS, runtimes=(broken,)))
    assert not found.run and found.isolation == ""
    assert finding(found, "isolation", "error").fix == "run the outer container with x"
    assert found.snapshots == found.network == ""


def test_only_an_old_runtime_works() -> None:
    broken = FoundRuntime("native", "", False, "no-seccomp", "no table of calls for riscv64")
    runc = FoundRuntime("runc", "1.1.5+ds1", True)
    found = report(trials=structs.replace(TRIALS, runtimes=(broken, runc)))
    assert found.run and found.isolation == "runc"
    assert "no table" in finding(found, "isolation", "note").text
    warning = finding(found, "isolation", "warning")
    assert "CVE-2024-21626" in warning.text and warning.fix == "upgrade runc"


@pytest.mark.parametrize(
    ("name", "version", "holes"),
    [
        ("runc", "1.1.5+ds1", 3),
        ("runc", "1.1.12", 2),
        ("runc", "1.1.15", 2),
        ("runc", "1.2.8", 1),
        ("runc", "1.3.0", 2),
        ("runc", "1.3.5", 1),
        ("runc", "1.3.6", 0),
        ("runc", "1.4.0", 1),
        ("runc", "1.4.3", 0),
        ("runc", "1.5.0", 0),
        ("crun", "1.8.1", 1),
        ("crun", "1.29.1", 1),
        ("crun", "1.30", 0),
        ("crun", "", 0),
        ("native", "", 0),
    ],
)
def test_known_holes(name: str, version: str, holes: int) -> None:
    assert len(known_holes(name, version)) == holes


def test_no_overlay() -> None:
    refused = structs.replace(TRIALS, copies=True, overlay="the kernel refuses", overlay_fix="use ext4")
    note = finding(report(trials=refused), "snapshots", "note")
    assert "the kernel refuses: each step works on a copy" in note.text and note.fix == "use ext4"
    old = structs.replace(MACHINE, kernel="5.10.0-30-amd64")
    assert finding(report(old, refused), "snapshots", "note").fix == "upgrade to Linux 5.11 or later, or build as root"
    assert report(trials=refused).snapshots == "copy"


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"outlets": ()}, "sudo apt-get install passt"),
        ({"outlets": (), "install": ""}, "install pasta (package passt) or slirp4netns"),
        ({"tun": "permission denied"}, "sudo chmod 666 /dev/net/tun (udev does so where it runs)"),
        ({"tun": "no such file or directory"}, "sudo modprobe tun"),
        ({}, ""),
    ],
)
def test_no_network_of_its_own(changes: dict[str, object], fix: str) -> None:
    trials = structs.replace(TRIALS, outlet="", outlet_reason="because")
    found = report(structs.replace(MACHINE, **changes), trials)
    note = finding(found, "network", "note")
    assert "(because)" in note.text and note.fix == fix and found.network == "host"


def test_disks() -> None:
    def disk(**changes: object) -> Report:
        return report(disk=Disk(**{**{name: getattr(DISK, name) for name in DISK.__struct_fields__}, **changes}))

    assert "1.0 GiB free" in finding(disk(free=1 << 30), "disk", "warning").text
    assert "1000 more files" in finding(disk(files=1000), "disk", "warning").text
    assert finding(disk(files=-1), "store", "ok")
    assert "nosuid and noexec" in finding(disk(options=("rw", "nosuid", "noexec")), "store", "warning").text
    broken = report(trials=None, disk=Disk(path="/s", kind="", options=(), free=0, files=-1, problem="read-only"))
    assert finding(broken, "store", "error").text == "/s: read-only" and not broken.run


def test_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = look_at_disk(str(tmp_path / "file/store"))
    assert "not a directory" in found.problem and found.kind
    made = look_at_disk(str(tmp_path / "a/b"))
    assert made.problem == "" and made.free > 0 and (tmp_path / "a/b").is_dir()


def test_this_machine() -> None:
    found = look()
    assert found.root == (os.geteuid() == 0)
    assert found.kernel == os.uname().release
    assert found.userns == "" or found.userns_fix


def test_in_an_empty_root(tmp_path: Path) -> None:
    """Files that are not there are answers, too."""
    found = look(f"{tmp_path}/")
    assert (found.cgroup, found.delegated) == ("none", False)
    assert found.tun == "no such file or directory"


def test_platforms() -> None:
    def said(*ways: Way) -> list[tuple[str, str, str]]:
        found = report(trials=structs.replace(TRIALS, ways=ways)).findings
        return [(each.level, each.text, each.fix) for each in found if each.name == "platforms"]

    amd64, i386 = Way("amd64", "native"), Way("386", "native")
    missing = Way("arm64", reason="no static qemu-aarch64 is installed", fix="sudo apt-get install qemu-user-static")
    alone = "RUN works for no other platform: no static qemu-aarch64 is installed"
    assert said(amd64, i386, Way("riscv64", reason="none"), missing) == [
        ("note", alone, "sudo apt-get install qemu-user-static"),
        ("ok", "RUN works for linux/amd64, linux/386 by the processor itself", ""),
    ]
    assert said(amd64, Way("arm64", "host"), Way("s390x", "emulator", "/q"), Way("mips64", reason="none")) == [
        ("ok", "RUN works for linux/amd64 by the processor itself", ""),
        ("ok", "RUN works for linux/arm64 by emulators that this machine has registered", ""),
        ("ok", "RUN works for linux/s390x by a qemu of the step's own", ""),
    ]
    assert said() == []


def test_json_is_the_report(tmp_path: Path) -> None:
    from kit import Shiplap

    done = Shiplap(tmp_path / "store").run("doctor", "--format", "json", check=False)
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["run"] else 1)
    assert set(found) == {"run", "way", "isolation", "snapshots", "network", "findings"}
