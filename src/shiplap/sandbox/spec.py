"""What to run, over what, and what came of it. The two runtimes (OCI, native) read the same spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event
from typing import Protocol

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """Numeric user of the process; resolved from the image's passwd and group files by the caller."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


MOST_LOWERS = 999
"""Lower layers that a root or a view can have: 499 that one overlay takes, and one made of 500 (``mounts.mount_overlay``)."""
FileOwner = tuple[int, int, int, int]
"""User, group, whole mode and device number of a file; the latter two are -1 where the file itself has them."""


class Rootfs(msgspec.Struct, frozen=True):
    """Directories that make the root file system.

    ``lowers``: from the top layer down, at most MOST_LOWERS; none means an empty root. Whiteouts are 0:0 character
    devices, opaque directories carry ``trusted.overlay.opaque`` or ``user.overlay.opaque``. ``upper`` receives the changes,
    in the same form; ``work`` is overlay's scratch directory beside it, on the same disk. Both exist, and ``work`` is
    empty. What is in ``work`` afterwards (also the throw-away views of ``StepMount``) is the caller's to remove. Nothing
    is synced: who publishes ``upper`` does that.
    """

    lowers: tuple[str, ...]
    upper: str
    work: str


class StepMount(msgspec.Struct, frozen=True):
    """One mount inside the step, after the default ones, in order of ``target`` depth.

    kind:
      bind    ``source`` (a host path: file or directory, already resolved and safe) at ``target``
      overlay a writable throw-away view of the directories ``lowers`` (as in ``Rootfs``), narrowed to ``subpath``
      tmpfs   ``size`` bytes (0: half of memory), nosuid, nodev; mode 1777, or that of the directory which was there
      secret  ``data`` as a file on a read-only nosuid,nodev,noexec tmpfs, with ``mode``, ``uid``, ``gid``
    ``subpath`` (bind of directory, overlay): resolved inside the mounted tree with RESOLVE_IN_ROOT semantics.
    ``readonly`` covers whatever else is mounted below a bind's source. ``target`` may not be / or lead into /proc.
    """

    kind: str
    target: str
    source: str = ""
    lowers: tuple[str, ...] = ()
    subpath: str = ""
    readonly: bool = True
    size: int = 0
    data: bytes = b""
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


class Emulator(msgspec.Struct, frozen=True):
    """What runs foreign programs in a step: the static executable ``program`` of the machine, for files that begin with
    ``magic`` where ``mask`` has bits set (binfmt_misc(7)), called as ``flags`` say."""

    program: str
    magic: bytes
    mask: bytes
    flags: str


class ProcessSpec(msgspec.Struct, frozen=True):
    """One process of a build step. Everything it may see is here; nothing is inherited from the builder."""

    args: tuple[str, ...]
    """Never empty. Without a slash the first is looked for in PATH of ``env``, inside the root."""
    env: tuple[str, ...]
    """``NAME=value``; an entry without ``=`` is dropped, the last of several with one name counts."""
    cwd: str
    """Made, with mode 0755 and the identity as owner, if it is missing; it then stays in the layer."""
    rootfs: Rootfs
    identity: Identity = Identity()
    mounts: tuple[StepMount, ...] = ()
    hostname: str = "buildkitsandbox"
    network: str = "host"
    """``host``, ``none``, or ``default``: one that leads out but not to the machine's own services, if ``Runtime.outlet``
    has one, else the machine's."""
    insecure: bool = False
    """``--security=insecure``: every capability, no seccomp, nothing masked."""
    extra_hosts: tuple[str, ...] = ()
    """``name=address``."""
    shm_size: int = 0
    """Bytes; 0 = 64 MiB."""
    ulimits: Mapping[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Name as in ``ulimit`` of docker (``nofile``), soft and hard."""
    owners: Mapping[str, FileOwner] = msgspec.field(default_factory=dict)
    """What is on record for paths of the root (relative, without links), as ``ExitStatus.owners`` gives it."""
    emulator: Emulator | None = None
    """For programs that neither the processor nor an emulator of the machine's own runs."""
    dns: str = ""
    """Content of /etc/resolv.conf; empty = the machine's own, cleaned of what cannot be reached."""


class ExitStatus(msgspec.Struct, frozen=True):
    """How the process ended: ``code`` 0..255 (128 + signal if killed)."""

    code: int
    out_of_memory: bool = False
    owners: Mapping[str, FileOwner] | None = None
    """Of what is in ``upper`` now, where the file system does not say it; None: it always does."""


Output = Callable[[int, bytes], None]
"""Takes (stream 1 or 2, bytes) as the process writes them."""


class Runtime(Protocol):
    """Runs processes in isolation. Implementations: native namespaces, and an OCI runtime (runc, crun)."""

    name: str
    overlay: bool
    """Whether the kernel mounts overlays here. If not, ``Rootfs.lowers`` and those of mounts have to be empty: the caller
    lays everything into the upper directory."""

    def outlet(self) -> tuple[str, str]:
        """Make ready the network that ``default`` means: the program that connects it, and, if that is empty, why there
        is none, so that it means ``host``."""
        ...

    def run(self, spec: ProcessSpec, output: Output, cancel: Event) -> ExitStatus:
        """Run ``spec`` to its end, or kill it soon after ``cancel`` is set (raising Interrupted).

        When this returns, whatever happened: no process, mount or descriptor of the step is left, ``spec.rootfs.upper``
        holds its changes (less what the runtime itself had to create), and nothing else on the machine has changed.
        A program that is missing or cannot be run is the step's fault: status 1 and runc's words on stream 2, as with
        BuildKit. Raises SandboxError when the step could not be isolated, with a hint where the machine forbids it.
        """
        ...
