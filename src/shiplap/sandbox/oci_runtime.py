"""Runtime 'oci': runc or crun, over a root the helper has prepared, in a mount and a pid namespace of the helper's.

The first process of that pid namespace is the helper's own, and the container becomes its child, so killing it takes the
whole container with it; and what the runtime mounts is never in the machine's own table.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from shiplap.errors import SandboxError
from shiplap.sandbox import linux
from shiplap.sandbox.launch import Helper
from shiplap.sandbox.oci_config import COVERED, config
from shiplap.sandbox.spec import ExitStatus, Output, ProcessSpec
from shiplap.sandbox.userns import current
from shiplap.sandbox.wire import absolute, request

_STEP_FAULT = ("exec: ", "exec /", "executable file", "open executable")
"""In the words of a runtime: it was the step's program that could not be started."""


class Way(msgspec.Struct, frozen=True):
    """How a runtime has to be called here. ``arguments`` come before ``run``; ``cgroups``: it can make one;
    ``hide``: a mount of the machine it must not see."""

    arguments: tuple[str, ...] = ()
    cgroups: bool = True
    hide: str = ""


def ways(program: str, rootless: bool) -> tuple[Way, ...]:
    """In what ways ``program`` may work here, best first; a probe run decides (detect.py).

    crun 1.8 refuses a machine with both cgroup hierarchies, whatever its cgroup manager; it looks for the second at
    /sys/fs/cgroup/unified, so it is run where that is not mounted.
    """
    if os.path.basename(program).startswith("crun"):
        disabled = ("--cgroup-manager=disabled",)
        hidden = Way(disabled, False, "/sys/fs/cgroup/unified") if os.path.ismount("/sys/fs/cgroup/unified") else None
        plain = () if rootless else (Way(),)
        return (*plain, Way(disabled, False), *((hidden,) if hidden else ()))
    if rootless:
        return (Way(("--rootless", "true"), False),)
    return (Way(),)


PLAIN = Way()


class OciRuntime:
    """Runs steps with the OCI runtime ``program`` (an absolute path), called in this ``way``. Satisfies ``Runtime``.

    ``state``: where each step's bundle and the runtime's state are kept while it runs, in a directory of mode 0700;
    empty: the system's temporary directory. Thread-safe. ``inner``: how it is called where a step is emulated, in the user
    namespace of the step.
    """

    name = "oci"

    def __init__(self, program: str, way: Way = PLAIN, state: str = "") -> None:
        self.program = program
        self.way = way
        self.inner = way if not way.cgroups else ways(program, rootless=True)[-1]
        self.overlay = True
        self._helper = Helper()
        self._state = state

    def run(self, spec: ProcessSpec, output: Output, cancel: Event) -> ExitStatus:
        """See ``Runtime.run``."""
        ids = current()
        outlet = self._helper.outlet(spec.emulator) if spec.network == "default" else None
        namespace = self._helper.emulation(spec.emulator).namespace if spec.emulator is not None else -1
        way = self.way if namespace < 0 else self.inner
        asked = request(spec, ids, outlet is not None and outlet.descriptor >= 0)
        for index, mount in enumerate(asked["mounts"]):
            target = absolute(mount["target"])
            if any(target == top or target.startswith(top + "/") for top in COVERED):
                mount.update(staged=True, destination=target, target=f"/stage-{index}")
        name = f"shiplap-{uuid.uuid4().hex}"
        bundle = tempfile.mkdtemp(prefix="shiplap-oci-", dir=self._state or None)
        log, state = (os.path.join(bundle, part) for part in ("log", "state"))
        call = [self.program, "--root", state, "--log", log, "--log-format", "json", *way.arguments]
        pid_file = os.path.join(bundle, "pid")
        asked["runtime"] = {
            "run": [*call, "run", "--detach", "--pid-file", pid_file, "--bundle", bundle, name],
            "pid_file": pid_file,
            "delete": [*call, "delete", "--force", name] if way.cgroups else [],
            "bundle": bundle,
            "hide": way.hide,
        }
        try:
            document = config(
                asked,
                ids,
                machine=os.uname().machine,
                cgroups=way.cgroups,
                unified=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
                held=linux.capabilities()[1],
                inner=namespace >= 0,
            )
            Path(bundle, "config.json").write_text(json.dumps(document))
            status = self._helper.step(
                asked, output, cancel, outlet.descriptor if outlet is not None else -1, namespace
            )
            if status.code:
                self._blame(log)
            return status
        finally:
            shutil.rmtree(bundle, ignore_errors=True)

    def outlet(self) -> tuple[str, str]:
        """See ``Runtime.outlet``."""
        outlet = self._helper.outlet()
        return outlet.program, outlet.reason

    def close(self) -> None:
        """End the helper process."""
        self._helper.close()

    def _blame(self, log: str) -> None:
        """Raise SandboxError if it was the runtime that failed rather than the step."""
        for entry in _errors(log):
            if not any(words in entry for words in _STEP_FAULT):
                program = os.path.basename(self.program)
                raise SandboxError(f"{program}: {entry}", code="oci-runtime", hint="try --isolation native")


def _errors(log: str) -> list[str]:
    try:
        lines = Path(log).read_text(errors="replace").splitlines()
    except OSError:
        return []
    found: list[str] = []
    for line in lines[-20:]:
        try:
            entry: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") == "error":
            found.append(str(entry.get("msg", "")))
    return found
