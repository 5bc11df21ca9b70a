"""What decides whether a step can be isolated here, as one digest: while it is the same, what was tried need not be again.

Not of a user namespace's number (each command of an ordinary user makes its own), but of what it maps and of what it may.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_FILES = (
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/user/max_mnt_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    "/proc/self/setgroups",
    "/proc/self/attr/current",
)
_FIELDS = ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "Seccomp_filters", "CapPrm", "CapEff", "CapBnd")
"""Of /proc/self/status."""
_MOUNTS = ("/proc", "/sys", "/dev")
"""Below these a container's runtime covers things; a new proc or sysfs is refused where that is so (mount_too_revealing)."""


def fingerprint(scratch: str) -> str:
    """A digest of the kernel, of who this process is and may, of what covers /proc and /sys, of ``scratch``, of this code."""
    ours = Path(__file__).with_name("step.py").stat()
    told = [f"{ours.st_mtime_ns} {ours.st_size}", str(os.stat(scratch or ".").st_dev)]
    told += [_read(name) for name in _FILES]
    for line in _read("/proc/self/status").splitlines():
        if line.partition(":")[0] in _FIELDS:
            told.append(line)
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        place = fields[4]
        if place == "/" or place.startswith(_MOUNTS):
            told.append(" ".join(fields[3:6]))
    return hashlib.sha256("\0".join(told).encode()).hexdigest()


def _read(name: str) -> str:
    try:
        return Path(name).read_bytes().decode(errors="replace")
    except OSError:
        return ""
