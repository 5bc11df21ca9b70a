"""Specification to config.json: what runc and crun are asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shiplap.sandbox.oci_config import config
from shiplap.sandbox.spec import Identity, ProcessSpec, Rootfs, StepMount
from shiplap.sandbox.userns import IdMap
from shiplap.sandbox.wire import request

ROOT = IdMap(((0, 0, 0xFFFFFFFF),), ((0, 0, 0xFFFFFFFF),))
USER = IdMap(((0, 1000, 1), (1, 100000, 65536)), ((0, 1000, 1), (1, 100000, 65536)))
SINGLE = IdMap(((0, 1000, 1),), ((0, 1000, 1),), single=True)
HELD = (1 << 41) - 1


def made(ids: IdMap = ROOT, cgroups: bool = True, unified: bool = False, held: int = HELD, **changes: Any) -> Any:
    rootfs = Rootfs(("/store/l",), "/store/u", "/store/w")
    spec = ProcessSpec(**{"args": ("true", "x y"), "env": ("A=b",), "cwd": "/w", "rootfs": rootfs, **changes})
    asked = request(spec, ids)
    document = config(asked, ids, machine="x86_64", cgroups=cgroups, unified=unified, held=held)
    return json.loads(json.dumps(document))


def mount(document: Any, destination: str) -> Any:
    return next((entry for entry in document["mounts"] if entry["destination"] == destination), None)


def test_process() -> None:
    process = made(identity=Identity(5, 6, (7, 8)), ulimits={"nofile": (10, 20)})["process"]
    assert process["args"] == ["true", "x y"] and process["env"] == ["A=b"] and process["cwd"] == "/w"
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [7, 8]}
    assert process["noNewPrivileges"] is False and process["terminal"] is False
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]


def test_fourteen_capabilities_and_none_inherited() -> None:
    sets = made()["process"]["capabilities"]
    assert len(sets["bounding"]) == 14 and sets["bounding"] == sets["permitted"] == sets["effective"]
    assert sets["inheritable"] == sets["ambient"] == []


def test_without_a_device_cgroup_root_may_not_make_devices() -> None:
    assert "CAP_MKNOD" not in made(cgroups=False)["process"]["capabilities"]["bounding"]
    assert "CAP_MKNOD" in made(ids=USER, cgroups=False)["process"]["capabilities"]["bounding"]


def test_capabilities_not_held_are_not_asked_for() -> None:
    assert "CAP_AUDIT_WRITE" not in made(held=HELD & ~(1 << 29))["process"]["capabilities"]["bounding"]


def test_devices_are_denied_by_cgroup() -> None:
    assert made()["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert "resources" not in made(cgroups=False)["linux"]


def test_mounts_in_order() -> None:
    document = made()
    order = [entry["destination"] for entry in document["mounts"]]
    assert order == ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"]
    assert "ro" in mount(document, "/sys")["options"]
    assert "gid=5" in mount(document, "/dev/pts")["options"]
    assert f"size={64 << 20}" in mount(document, "/dev/shm")["options"]
    assert mount(document, "/run") is None and mount(document, "/etc/hosts") is None


def test_shm_size() -> None:
    assert "size=4096" in mount(made(shm_size=4096), "/dev/shm")["options"]


def test_in_a_user_namespace_sys_is_bound_and_its_cgroups_covered() -> None:
    document = made(ids=USER, cgroups=False)
    assert mount(document, "/sys")["type"] == "bind" and mount(document, "/sys")["options"][0] == "rbind"
    assert mount(document, "/sys/fs/cgroup")["type"] == "tmpfs"
    own = made(ids=USER, cgroups=False, network="none")
    assert mount(own, "/sys")["type"] == "sysfs", "its own network namespace lets it mount sysfs"
    assert all(entry["type"] != "user" for entry in document["linux"]["namespaces"]), "already entered"


def test_group_tty_only_where_it_exists() -> None:
    assert "gid=5" not in mount(made(ids=SINGLE, cgroups=False), "/dev/pts")["options"]


def test_namespaces() -> None:
    def kinds(document: Any) -> list[str]:
        return [entry["type"] for entry in document["linux"]["namespaces"]]

    assert kinds(made()) == ["pid", "ipc", "uts", "mount"]
    assert kinds(made(network="none", unified=True)) == ["pid", "ipc", "uts", "mount", "network", "cgroup"]


def test_masks_and_filter() -> None:
    linux = made()["linux"]
    assert "/proc/kcore" in linux["maskedPaths"] and "/sys/devices/virtual/powercap" in linux["maskedPaths"]
    assert linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    assert linux["seccomp"]["defaultErrnoRet"] == 1


def test_insecure() -> None:
    document = made(insecure=True)
    sets = document["process"]["capabilities"]
    assert len(sets["bounding"]) == 41 and sets["ambient"] == sets["inheritable"] == sets["bounding"]
    assert document["linux"]["maskedPaths"] == document["linux"]["readonlyPaths"] == []
    assert "seccomp" not in document["linux"]
    assert "rw" in mount(document, "/sys")["options"]
    assert document["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


@pytest.mark.parametrize("text", ["secret-value", "192.0.2.7"])
def test_no_secret_and_no_file_of_the_step_is_in_it(text: str) -> None:
    secret = StepMount("secret", "/run/secrets/s", data=b"secret-value")
    assert text not in json.dumps(made(mounts=(secret,), dns="nameserver 192.0.2.7"))
