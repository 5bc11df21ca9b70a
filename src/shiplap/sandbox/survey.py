"""What this machine allows, for ``shiplap doctor``: looked at from outside, then tried out inside a user namespace.

Whether a thing works is found by trying it. What is merely looked at (settings, modes, versions) explains why not.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import msgspec

from shiplap.sandbox import detect, emulation, network, seccomp
from shiplap.sandbox.emulation import Way
from shiplap.sandbox.spec import Runtime
from shiplap.sandbox.userns import current, subordinate_ids

PACKAGE_TOOLS = {
    "apt-get": "sudo apt-get install {}",
    "dnf": "sudo dnf install {}",
    "zypper": "sudo zypper install {}",
    "apk": "sudo apk add {}",
    "pacman": "sudo pacman -S {}",
}
"""How a package is installed, by the tool that is there."""


class Machine(msgspec.Struct, frozen=True):
    """Seen by the user who called, before any user namespace is entered. Empty reasons mean: nothing is wrong."""

    root: bool
    """Uid 0 of the machine, not of a user namespace."""
    user: str
    kernel: str
    architecture: str
    userns: str
    """Why a user namespace is refused."""
    userns_fix: str
    newuidmap: bool
    """newuidmap and newgidmap are installed."""
    newuidmap_privileged: bool
    """They are setuid, or have capabilities of their own: without that they are of no use."""
    subordinate_ids: int
    """How many further user ids /etc/subuid gives to the user."""
    cgroup: str
    """``v2``, ``hybrid``, ``v1`` or ``none``."""
    delegated: bool
    """The user may make groups below the own one (version 2)."""
    outlets: tuple[str, ...]
    """Programs for an isolated network that are installed."""
    tun: str
    """Why /dev/net/tun cannot be opened."""
    install: str
    """How a package is installed, with {} for its name."""


class FoundRuntime(msgspec.Struct, frozen=True):
    """A runtime and whether it really ran a step here; ``reason`` says why not."""

    name: str
    version: str
    works: bool
    code: str = ""
    reason: str = ""
    fix: str = ""


class Trials(msgspec.Struct, frozen=True):
    """What came of trying, as root or inside a user namespace."""

    ids: int
    """How many user ids exist."""
    single: bool
    owners: bool
    """The kernel lets the keeper answer calls (seccomp user notification)."""
    runtimes: tuple[FoundRuntime, ...]
    overlay: str
    """Why an overlay cannot be mounted on the store's disk."""
    overlay_fix: str
    copies: bool
    """Steps work on copies of their roots."""
    outlet: str
    """The program that connects an isolated network; empty if there is none."""
    outlet_reason: str
    ways: tuple[Way, ...] = ()
    """How programs of each architecture run, its own first; empty if no step can be isolated."""


def look(root: str = "/") -> Machine:
    """Look at the machine; ``root`` is where its files are found. Raises nothing."""
    uid = os.geteuid()
    ids = current()
    outside = ids.initial
    reason, fix = detect.userns_refusal() if uid else ("", "")
    tools = [shutil.which(name, path=detect.SEARCH) for name in ("newuidmap", "newgidmap")]
    return Machine(
        root=uid == 0 and outside,
        user=_user(uid),
        kernel=os.uname().release,
        architecture=os.uname().machine,
        userns=reason,
        userns_fix=fix,
        newuidmap=all(tools),
        newuidmap_privileged=all(tool is not None and _privileged(tool) for tool in tools),
        subordinate_ids=subordinate_ids(uid) if uid and outside else 0,
        cgroup=detect.cgroup_kind(f"{root}sys/fs/cgroup"),
        delegated=_delegated(root),
        outlets=tuple(name for name in network.PROGRAMS if network.find(name)),
        tun=_tun(f"{root}dev/net/tun"),
        install=next((how for tool, how in PACKAGE_TOOLS.items() if shutil.which(tool, path=detect.SEARCH)), ""),
    )


def attempt(scratch: str, snapshots: str = "auto", path: str = "") -> Trials:
    """Try every runtime, overlay, network and platform (a second), with the store's disk under the directory ``scratch``.

    ``path``: where emulators are looked for besides the system's directories.

    As root, or in a process that has entered a user namespace. Raises nothing.
    """
    ids = current()
    found = []
    refused = detect.Trial()
    chosen: Runtime | None = None
    for what in ("native", *detect.programs()):
        tried = detect.trial(what, scratch, "overlay" if snapshots == "auto" else snapshots)
        if tried.code == "no-overlay" and not refused.code:
            refused = tried
        if snapshots == "auto" and tried.code == "no-overlay":
            tried = detect.trial(what, scratch, "copy")
        version = "" if what == "native" else detect.version(what)
        name = os.path.basename(what)
        found.append(FoundRuntime(name, version, tried.runtime is not None, tried.code, tried.reason, tried.fix))
        chosen = chosen or tried.runtime
    outlet, reason = chosen.outlet() if chosen is not None else ("", "")
    return Trials(
        ids=sum(count for _, _, count in ids.uids),
        single=ids.single,
        owners=seccomp.listens(os.uname().machine),
        runtimes=tuple(found),
        overlay=refused.reason,
        overlay_fix=refused.fix,
        copies=chosen is not None and not chosen.overlay,
        outlet=outlet,
        outlet_reason=reason,
        ways=emulation.ways(chosen, scratch, path) if chosen is not None else (),
    )


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _privileged(tool: str) -> bool:
    if os.stat(tool).st_mode & stat.S_ISUID:
        return True
    try:
        return bool(os.getxattr(tool, "security.capability"))
    except OSError:
        return False


def _delegated(root: str) -> bool:
    """Whether a group below our own can be made: its directory is ours."""
    try:
        path = Path(f"{root}proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:
        return False
    return os.access(f"{root}sys/fs/cgroup/{path}/cgroup.procs", os.W_OK)


def _tun(path: str) -> str:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return (error.strerror or "").lower()
    return ""
