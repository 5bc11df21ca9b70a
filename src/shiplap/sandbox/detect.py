"""What this machine allows, found by trying it, and the runtime to use.

Versions and settings lie: a runtime that is installed may refuse the machine's cgroups, a kernel that has overlay may
refuse it on this disk. So each candidate runs one step, a program of 130 bytes, and the answer is kept for the process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock

from shiplap.errors import SandboxError, ShiplapError, UsageError
from shiplap.sandbox import elf, seccomp
from shiplap.sandbox.native import NativeRuntime
from shiplap.sandbox.oci_runtime import OciRuntime, ways
from shiplap.sandbox.spec import ProcessSpec, Rootfs, Runtime
from shiplap.sandbox.userns import current, refusal, subordinate_ids, sysctl

PROGRAMS = ("runc", "crun")
"""BuildKit runs runc, so it comes first."""
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a runtime and newuidmap are looked for: not in the user's PATH, which a build should not depend on."""
_EXPECTED = 42
_lock = Lock()
_tried: dict[tuple[str, str, str], tuple[Runtime | None, str]] = {}


@dataclass(frozen=True, slots=True)
class FoundRuntime:
    """A runtime and whether it really ran a step here; ``reason`` says why not."""

    name: str
    path: str
    version: str
    works: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What this machine allows, for ``shiplap doctor``. Nothing here is guessed from a version."""

    root: bool
    """Uid 0 of the machine, not of a user namespace."""
    userns: bool
    userns_reason: str
    """Why not, with the line that fixes it; empty if allowed."""
    newuidmap: bool
    subordinate_ids: int
    """How many further user ids are mapped, or could be."""
    overlay: bool
    """The kernel knows the overlay file system."""
    overlay_in_userns: bool
    seccomp: bool
    """The kernel takes filters, and there is a table of calls for this machine."""
    cgroup: str
    """``v2``, ``hybrid``, ``v1`` or ``none``."""
    apparmor_restrict: bool
    """Ubuntu's restriction of user namespaces is on."""
    runtimes: tuple[FoundRuntime, ...]


def choose(isolation: str, scratch: str = "", snapshots: str = "auto") -> Runtime:
    """The runtime for ``isolation``: ``native``, ``oci``, or ``auto`` (native if it works here, else oci).

    ``scratch``: a directory on the disk the store is on; none: the temporary directory. ``snapshots``: ``overlay``, which
    has to work there, ``copy``, or ``auto``: overlay if it works.
    Raises SandboxError (no-sandbox) saying what is missing and the one line that fixes it; UsageError for another word.
    """
    if isolation not in ("auto", "native", "oci"):
        raise UsageError(f"unknown isolation {isolation!r}", code="isolation", hint="auto, native or oci")
    reasons = []
    if isolation in ("auto", "native"):
        runtime, reason = _try("native", scratch, snapshots)
        if runtime is not None:
            return runtime
        reasons.append(f"native: {reason}")
    if isolation in ("auto", "oci"):
        for program in _programs():
            runtime, reason = _try(program, scratch, snapshots)
            if runtime is not None:
                return runtime
            reasons.append(f"{os.path.basename(program)}: {reason}")
        if not _programs():
            reasons.append("oci: neither crun nor runc is installed")
    raise SandboxError("RUN cannot be isolated on this machine: " + "; ".join(reasons), code="no-sandbox", hint=_fix())


def survey(scratch: str = "") -> Survey:
    """Look at everything and try every runtime (some 0.3 s). Raises nothing."""
    ids = current()
    reason = "" if ids.initial and os.geteuid() == 0 else _userns_reason()
    filesystems = _read("/proc/filesystems").split()
    found = [FoundRuntime("native", "", "", *_outcome("native", scratch))]
    for program in _programs():
        found.append(FoundRuntime(os.path.basename(program), program, _version(program), *_outcome(program, scratch)))
    outsider = ids.initial and os.geteuid() != 0
    mapped = subordinate_ids(os.geteuid()) if outsider else sum(count for _, _, count in ids.uids) - 1
    return Survey(
        root=os.geteuid() == 0 and ids.initial,
        userns=not reason,
        userns_reason=reason,
        newuidmap=all(shutil.which(name, path=SEARCH) for name in ("newuidmap", "newgidmap")),
        subordinate_ids=mapped,
        overlay="overlay" in filesystems or Path("/sys/module/overlay").exists(),
        overlay_in_userns=_overlay_in_userns(),
        seccomp=Path("/proc/sys/kernel/seccomp").exists() and seccomp.supported(os.uname().machine),
        cgroup=cgroup_kind(),
        apparmor_restrict=sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1",
        runtimes=tuple(found),
    )


def cgroup_kind(root: str = "/sys/fs/cgroup") -> str:
    """``v2``, ``hybrid`` (both hierarchies), ``v1`` or ``none``."""
    if os.path.exists(f"{root}/cgroup.controllers"):
        return "v2"
    if os.path.exists(f"{root}/unified/cgroup.procs"):
        return "hybrid"
    return "v1" if os.path.isdir(f"{root}/memory") or os.path.isdir(f"{root}/devices") else "none"


def _programs() -> list[str]:
    return [path for name in PROGRAMS if (path := shutil.which(name, path=SEARCH))]


def _outcome(what: str, scratch: str) -> tuple[bool, str]:
    runtime, reason = _try(what, scratch)
    return runtime is not None, reason


def _try(what: str, scratch: str, snapshots: str = "auto") -> tuple[Runtime | None, str]:
    """The runtime ``what`` ("native" or a program's path) if it ran a step, else the reason. Kept for the process."""
    with _lock:
        if (what, scratch, snapshots) not in _tried:
            _tried[what, scratch, snapshots] = _first_that_runs(what, scratch, snapshots)
        return _tried[what, scratch, snapshots]


def _first_that_runs(what: str, scratch: str, snapshots: str) -> tuple[Runtime | None, str]:
    reasons = []
    rootless = not current().initial or os.geteuid() != 0
    if what == "native":
        runtimes: list[NativeRuntime | OciRuntime] = [NativeRuntime()]
    else:
        runtimes = [OciRuntime(what, way) for way in ways(what, rootless)]
    for runtime in runtimes:
        reason = ""
        for overlay in {"auto": (True, False), "overlay": (True,), "copy": (False,)}[snapshots]:
            runtime.overlay = overlay
            reason = probe(runtime, scratch)
            if not reason:
                return runtime, ""
        runtime.close()
        reasons.append(reason)
    return None, reasons[-1]


def probe(runtime: Runtime, scratch: str = "") -> str:
    """Run one tiny step; why it did not work, or empty if it did. Leaves nothing in ``scratch``."""
    said: list[bytes] = []
    try:
        program = elf.exiting(os.uname().machine, _EXPECTED)
    except KeyError:
        return f"no probe for {os.uname().machine}"
    try:
        with tempfile.TemporaryDirectory(prefix="shiplap-probe-", dir=scratch or None) as directory:
            lower, upper, work = (os.path.join(directory, name) for name in ("lower", "upper", "work"))
            for path in (lower, upper, work):
                os.mkdir(path, 0o755)
            file = Path(lower if runtime.overlay else upper, "probe")
            file.write_bytes(program)
            file.chmod(0o755)
            rootfs = Rootfs((lower,) if runtime.overlay else (), upper, work)
            spec = ProcessSpec(("/probe",), ("PATH=/",), "/", rootfs)
            status = runtime.run(spec, lambda _, data: said.append(data), Event())
    except ShiplapError as error:
        return error.message + (f" ({error.hint})" if error.hint else "")
    except OSError as error:
        return f"{error.filename or scratch}: {error.strerror}"
    if status.code != _EXPECTED:
        return b"".join(said).decode(errors="replace").strip()[-300:] or f"the probe ended with {status.code}"
    return ""


def _fix() -> str:
    if os.geteuid() != 0:
        reason = _userns_reason()
        if reason:
            return reason.partition(": try ")[2] or reason
        return "call shiplap.sandbox.userns.enter_user_namespace() before the first thread starts"
    return "run as root on the machine itself, or in a container started with --privileged"


@lru_cache(maxsize=1)
def _userns_reason() -> str:
    """Why a user namespace is refused here; empty if it is not. Tried in a process of its own."""
    number = _attempt("userns")
    if number == 0:
        return ""
    error = refusal(OSError(number, os.strerror(number)))
    return f"{error.message}: try {error.hint}"


def _overlay_in_userns() -> bool:
    """Whether root of a new user namespace can mount an overlay, on the temporary directory."""
    if not current().initial:
        return _outcome("native", "")[0]
    with tempfile.TemporaryDirectory(prefix="shiplap-probe-") as directory:
        for name in "luw":
            os.mkdir(os.path.join(directory, name))
        return _attempt("overlay", directory) == 0


def _attempt(*words: str) -> int:
    call = [sys.executable, "-I", "-S", str(Path(__file__).with_name("helper.py")), *words]
    return subprocess.run(call, capture_output=True, check=False, env={}).returncode


def _version(program: str) -> str:
    ended = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, env={})
    return (ended.stdout.splitlines() or [""])[0].partition("version ")[2]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
