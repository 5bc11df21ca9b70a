"""Runtime 'native': namespaces, mounts, capabilities and seccomp by shiplap itself, through the fork server."""

from __future__ import annotations

from threading import Event

from shiplap.sandbox.launch import Helper
from shiplap.sandbox.spec import ExitStatus, Output, ProcessSpec
from shiplap.sandbox.userns import current
from shiplap.sandbox.wire import request


class NativeRuntime:
    """Needs nothing installed: Linux 4.18 as root, 5.11 in a user namespace (overlay). Satisfies ``Runtime``.

    Thread-safe. ``close`` ends its helper process; so does the end of this process.
    """

    name = "native"

    def __init__(self, old_kernel: bool = False) -> None:
        """``old_kernel``: do without openat2, open_tree, move_mount and mount_setattr, as before Linux 5.12; for tests."""
        self.overlay = True
        self._helper = Helper(("old-kernel",) if old_kernel else ())

    def run(self, spec: ProcessSpec, output: Output, cancel: Event) -> ExitStatus:
        """See ``Runtime.run``."""
        outlet = self._helper.outlet(spec.emulator) if spec.network == "default" else None
        asked = request(spec, current(), outlet is not None and outlet.descriptor >= 0)
        namespace = self._helper.emulation(spec.emulator).namespace if spec.emulator is not None else -1
        return self._helper.step(asked, output, cancel, outlet.descriptor if outlet is not None else -1, namespace)

    def outlet(self) -> tuple[str, str]:
        """See ``Runtime.outlet``."""
        outlet = self._helper.outlet()
        return outlet.program, outlet.reason

    def close(self) -> None:
        """End the helper process."""
        self._helper.close()
