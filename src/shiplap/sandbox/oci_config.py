"""A step as an OCI runtime configuration (runtime-spec 1.1), equal to what BuildKit gives to runc.

The step's own mounts are not in it: the helper has made them in the root already, by descriptor, and the runtime binds
that root recursively. Only what lies below a directory the runtime mounts itself (/dev, /sys) is listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shiplap.sandbox import profile
from shiplap.sandbox.step import SCRATCH
from shiplap.sandbox.userns import IdMap

_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
"""Every capability by number (linux/capability.h), less the prefix."""
_INERT = ["nosuid", "noexec", "nodev"]
COVERED = ("/dev", "/sys")
"""What the runtime mounts over; a step's mount at or below one of these goes into the configuration."""


def config(
    request: Mapping[str, Any],
    ids: IdMap,
    *,
    machine: str,
    cgroups: bool,
    unified: bool,
    held: int,
    inner: bool = False,
) -> dict[str, Any]:
    """The configuration for the step ``request`` (wire.request).

    ``cgroups``: the runtime can make one, so devices are denied by it; else CAP_MKNOD goes, if there is no user namespace to
    make device nodes useless. ``unified``: cgroup v2. ``held``: mask of the capabilities this process has. ``inner``: the
    runtime is called in a user namespace of the step's, with the ids of this one.
    """
    insecure = request["insecure"]
    initial = ids.initial and not inner
    granted = [f"CAP_{name}" for number, name in enumerate(_ALL.split()) if held >> number & 1]
    if not insecure:
        granted = [name for number, name in profile.CAPABILITIES if held >> number & 1]
        if not cgroups and initial:
            granted = [name for name in granted if name != "CAP_MKNOD"]
    ambient = granted if insecure else []
    alone = request["network"] == "none"  # an isolated network is joined by who calls the runtime
    namespaces = ["pid", "ipc", "uts", "mount", *(["network"] if alone else []), *(["cgroup"] if unified else [])]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": request["uid"], "gid": request["gid"], "additionalGids": request["groups"]},
            "args": request["args"],
            "env": request["env"],
            "cwd": request["cwd"],
            "capabilities": {
                "bounding": granted,
                "permitted": granted,
                "effective": granted,
                "inheritable": ambient,
                "ambient": ambient,
            },
            "noNewPrivileges": False,
            "rlimits": [
                {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
                for name, (soft, hard) in sorted(request["ulimits"].items())
            ],
        },
        "root": {"path": request["upper"], "readonly": False},
        "hostname": request["hostname"],
        "mounts": _mounts(request, ids, initial, own_network=request["network"] != "host", cgroups=cgroups),
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "maskedPaths": [] if insecure else list(profile.MASKED),
            "readonlyPaths": [] if insecure else list(profile.READONLY),
            **({} if insecure else {"seccomp": profile.oci_profile(machine)}),
            **({"resources": {"devices": [{"allow": insecure, "access": "rwm"}]}} if cgroups else {}),
        },
    }


def _mounts(
    request: Mapping[str, Any], ids: IdMap, initial: bool, *, own_network: bool, cgroups: bool
) -> list[dict[str, Any]]:
    write = "rw" if request["insecure"] else "ro"
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *(["gid=5"] if ids.has_gid(5) else [])]
    mounts = [
        _mount("/proc", "proc", _INERT),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", [*_INERT, "mode=1777", f"size={request['shm_size']}"], "shm"),
        _mount("/dev/mqueue", "mqueue", _INERT),
    ]
    if initial or own_network:
        mounts.append(_mount("/sys", "sysfs", [*_INERT, write]))
    else:  # a user namespace may mount sysfs only for a network namespace it owns
        mounts.append(_mount("/sys", "bind", ["rbind", *_INERT, write], "/sys"))
    if cgroups:
        mounts.append(_mount("/sys/fs/cgroup", "cgroup", [*_INERT, write]))
    elif not initial:  # the machine's own tree came along with /sys: cover it
        mounts.append(_mount("/sys/fs/cgroup", "tmpfs", [*_INERT, "ro", "mode=755"]))
    for mount in request["mounts"]:
        if mount["staged"]:
            source = f"{request['work']}/{SCRATCH}{mount['target']}"
            mounts.append(_mount(mount["destination"], "bind", ["rbind"], source))
    return mounts


def _mount(destination: str, kind: str, options: list[str], source: str = "") -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source or kind, "options": options}
