"""The runtime to use here, found by trying.

Versions and settings lie: a runtime that is installed may refuse the machine's cgroups, a kernel that has overlay may
refuse it on this disk. So each candidate runs one step, a program of some 130 bytes, and the answer is kept for the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Protocol

import msgspec

from shiplap.errors import SandboxError, ShiplapError, UsageError
from shiplap.oci.platform import native_platform
from shiplap.sandbox.circumstances import fingerprint
from shiplap.sandbox.native import NativeRuntime
from shiplap.sandbox.spec import Emulator, ExitStatus, Output, ProcessSpec, Rootfs, Runtime
from shiplap.sandbox.userns import current, refusal

if TYPE_CHECKING:
    from shiplap.sandbox.oci_runtime import OciRuntime

PROGRAMS = ("runc", "crun")
"""BuildKit runs runc, so it comes first."""
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a runtime and newuidmap are looked for: not in the user's PATH, which a build should not depend on."""
_EXPECTED = 42
_WAYS = {"auto": (True, False), "overlay": (True,), "copy": (False,)}


class Trial(msgspec.Struct, frozen=True):
    """What came of one step: the ``runtime`` that ran it, or the ``code`` and ``reason`` why not, and what ``fix`` helps."""

    runtime: Runtime | None = None
    code: str = ""
    reason: str = ""
    fix: str = ""


class Memory(Protocol):
    """Keeps words from one process to the next."""

    def digest(self, key: str) -> str | None:
        """The word kept under ``key``."""

    def put_digest(self, key: str, value: str) -> None:
        """Keep a word."""


_lock = Lock()
_tried: dict[tuple[str, str, str], Trial] = {}


def choose(isolation: str, scratch: str = "", snapshots: str = "auto", memory: Memory | None = None) -> Runtime:
    """The runtime for ``isolation``: ``native``, ``oci``, or ``auto`` (native if it works here, else oci).

    ``scratch``: a directory on the disk the store is on; none: the temporary directory. ``snapshots``: ``overlay``, which
    has to work there, ``copy``, or ``auto``: overlay if it works. ``memory``: that ``native`` works is kept there, and not
    tried again (25 ms) while nothing has changed that decides it, until a step cannot be isolated all the same.
    Raises SandboxError (no-sandbox) saying what is missing and the one line that fixes it; UsageError for another word.
    """
    if isolation not in ("auto", "native", "oci"):
        raise UsageError(f"unknown isolation {isolation!r}", code="isolation", hint="auto, native or oci")
    reasons, fixes = [], []
    for what in _candidates(isolation):
        tried = trial(what, scratch, snapshots, memory)
        if tried.runtime is not None:
            return tried.runtime
        reasons.append(f"{os.path.basename(what)}: {tried.reason}")
        fixes += [tried.fix] if tried.fix else []
    if isolation != "native" and not programs():
        reasons.append("oci: neither crun nor runc is installed")
    said = "RUN cannot be isolated on this machine: " + "; ".join(reasons)
    raise SandboxError(said, code="no-sandbox", hint=_fix(fixes))


def _candidates(isolation: str) -> Iterator[str]:
    if isolation != "oci":
        yield "native"
    if isolation != "native":
        yield from programs()


def programs() -> list[str]:
    """Paths of the OCI runtimes that are installed, best first."""
    import shutil

    return [path for name in PROGRAMS if (path := shutil.which(name, path=SEARCH))]


def version(program: str) -> str:
    """What an OCI runtime calls its version; empty if it does not say."""
    import subprocess

    ended = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, env={})
    return (ended.stdout.splitlines() or [""])[0].partition("version ")[2]


def cgroup_kind(root: str = "/sys/fs/cgroup") -> str:
    """``v2``, ``hybrid`` (both hierarchies), ``v1`` or ``none``."""
    if os.path.exists(f"{root}/cgroup.controllers"):
        return "v2"
    if os.path.exists(f"{root}/unified/cgroup.procs"):
        return "hybrid"
    return "v1" if os.path.isdir(f"{root}/memory") or os.path.isdir(f"{root}/devices") else "none"


def trial(what: str, scratch: str = "", snapshots: str = "auto", memory: Memory | None = None) -> Trial:
    """Have ``what`` ("native" or a program's path) run a step. The answer is kept for the process, and in ``memory``."""
    with _lock:
        asked = what, scratch, snapshots
        if asked not in _tried:
            note = _Note(asked, memory) if memory is not None and what == "native" else None
            overlay = note.read() if note is not None else None
            if note is not None and overlay is not None:
                _tried[asked] = Trial(_AsBefore(overlay, note.forget))
            else:
                _tried[asked] = _first_that_runs(what, scratch, snapshots)
                if note is not None:
                    note.write(_tried[asked])
        return _tried[asked]


class _Note:
    """What is kept of a trial: whether overlays can be mounted."""

    def __init__(self, asked: tuple[str, str, str], memory: Memory) -> None:
        self._asked = asked
        self._memory = memory
        self._key = f"sandbox {asked[2]} {fingerprint(asked[1])}"

    def read(self) -> bool | None:
        word = self._memory.digest(self._key)
        return word == "overlay" if word in ("overlay", "copy") else None

    def write(self, trial: Trial) -> None:
        if trial.runtime is not None:
            self._memory.put_digest(self._key, "overlay" if trial.runtime.overlay else "copy")

    def forget(self) -> None:
        """A step could not be isolated: the next build tries again what works."""
        self._memory.put_digest(self._key, "")
        _tried.pop(self._asked, None)


class _AsBefore(NativeRuntime):
    """The native runtime, which worked when it was last tried."""

    def __init__(self, overlay: bool, forget: Callable[[], None]) -> None:
        super().__init__()
        self.overlay = overlay
        self._forget = forget

    def run(self, spec: ProcessSpec, output: Output, cancel: Event) -> ExitStatus:
        """See ``Runtime.run``."""
        try:
            return super().run(spec, output, cancel)
        except SandboxError:
            self._forget()
            raise


def _first_that_runs(what: str, scratch: str, snapshots: str) -> Trial:
    runtimes: Sequence[NativeRuntime | OciRuntime] = [NativeRuntime()]
    if what != "native":
        from shiplap.sandbox.oci_runtime import OciRuntime, ways

        rootless = not current().initial or os.geteuid() != 0
        runtimes = [OciRuntime(what, way) for way in ways(what, rootless)]
    failed = Trial()
    for runtime in runtimes:
        for overlay in _WAYS[snapshots]:
            runtime.overlay = overlay
            tried = probe(runtime, scratch)
            if tried.runtime is not None:
                return tried
            failed = tried
            if tried.code != "no-overlay":
                break
        runtime.close()
    return failed


def probe(runtime: Runtime, scratch: str = "", architecture: str = "", emulator: Emulator | None = None) -> Trial:
    """Run one tiny step, of a foreign ``architecture`` if it is given. Leaves nothing in ``scratch``."""
    import tempfile

    from shiplap.sandbox import elf

    said: list[bytes] = []
    architecture = architecture or native_platform().architecture
    try:
        program = elf.exiting(architecture, _EXPECTED)
    except KeyError:
        return Trial(code="no-probe", reason=f"no probe for {architecture}")
    try:
        with tempfile.TemporaryDirectory(prefix="shiplap-probe-", dir=scratch or None) as directory:
            lower, upper, work = (os.path.join(directory, name) for name in ("lower", "upper", "work"))
            for path in (lower, upper, work):
                os.mkdir(path, 0o755)
            file = Path(lower if runtime.overlay else upper, "probe")
            file.write_bytes(program)
            file.chmod(0o755)
            rootfs = Rootfs((lower,) if runtime.overlay else (), upper, work)
            spec = ProcessSpec(("/probe",), ("PATH=/",), "/", rootfs, emulator=emulator)
            status = runtime.run(spec, lambda _, data: said.append(data), Event())
    except ShiplapError as error:
        return Trial(code=error.code, reason=error.message, fix=error.hint or "")
    except OSError as error:
        return Trial(code="probe", reason=f"{error.filename or scratch}: {error.strerror}")
    if status.code != _EXPECTED:
        words = b"".join(said).decode(errors="replace").strip()[-300:]
        return Trial(code="probe", reason=words or f"the probe ended with {status.code}")
    return Trial(runtime)


def _fix(fixes: list[str]) -> str:
    if os.geteuid() != 0:
        if userns_refusal()[0]:
            return userns_refusal()[1]
        return "call shiplap.sandbox.userns.enter_user_namespace() before the first thread starts"
    return fixes[0] if fixes else "run as root on the machine itself, or in a container started with --privileged"


@lru_cache(maxsize=1)
def userns_refusal() -> tuple[str, str]:
    """Why a user namespace is refused here, and what allows it; empty if it is not. Tried in a process of its own."""
    import subprocess

    call = [sys.executable, "-I", "-S", str(Path(__file__).with_name("helper.py")), "userns"]
    number = subprocess.run(call, capture_output=True, check=False, env={}).returncode
    if number == 0:
        return "", ""
    error = refusal(OSError(number, os.strerror(number)))
    return error.message, error.hint or ""
