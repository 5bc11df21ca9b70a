"""Can this machine run steps, and how well: what was found, in plain words, each with the one line that changes it.

``look`` and ``examine`` find facts, ``diagnose`` turns them into words and is pure, so that every machine can be tested.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from shiplap.sandbox.survey import FoundRuntime, Machine, Trials
    from shiplap.settings import Settings

LOW_SPACE = 2 << 30
"""Bytes free on the store's disk below which a build of a usual image is in danger."""
_WIDE = 65_535
"""Subordinate ids that cover every user of an ordinary image (nobody is 65534)."""
_HOLES = {
    "runc": (
        ("CVE-2024-21626", ((1, 1, 12),)),
        ("CVE-2025-31133", ((1, 2, 8), (1, 3, 3), (1, 4))),
        ("CVE-2026-41579", ((1, 3, 6), (1, 4, 3))),
    ),
    "crun": (("CVE-2026-88264", ((1, 29, 2),)),),
}
"""Known holes of runtimes that an image can use, and the versions of each branch in which they are closed."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing found. ``level``: ok; note (works, could be better); warning; error (RUN cannot work because of it).

    ``fix`` is one line to type or do, empty if nothing need be done or nothing helps.
    """

    level: str
    name: str
    text: str
    fix: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``run``: RUN works. ``way``: root, A (subordinate ids), B (one id, owners on record), or D (no user namespace)."""

    run: bool
    way: str
    isolation: str
    snapshots: str
    network: str
    findings: tuple[Finding, ...]


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Where the store is, or will be. ``problem``: why it cannot be used."""

    path: str
    kind: str
    options: tuple[str, ...]
    free: int
    """Bytes for this user."""
    files: int
    """Files that still fit; -1 where the file system does not count them."""
    problem: str = ""


def look() -> Machine:
    """What is seen from outside; before a user namespace is entered, or it is not the machine's any more."""
    from shiplap.sandbox.survey import look as find

    return find()


def examine(machine: Machine, settings: Settings) -> Report:
    """Try everything out. An ordinary user's process must have entered a user namespace, if ``machine`` allows one."""
    from shiplap.sandbox.survey import attempt

    disk = look_at_disk(settings.root)
    trials = (
        None if machine.userns or disk.problem else attempt(settings.root, settings.snapshots, settings.helper_path)
    )
    return diagnose(machine, trials, disk)


def look_at_disk(path: str) -> Disk:
    """The file system of the store, which is made if it is missing."""
    problem = ""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            problem = "it cannot be written to"
    except OSError as error:
        problem = f"{error.filename}: {(error.strerror or '').lower()}"
    there = path
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    size = os.statvfs(there)
    kind, options = _mount_of(os.path.realpath(there))
    files = size.f_favail if size.f_files else -1
    free = size.f_bavail * size.f_frsize
    return Disk(path=path, kind=kind, options=options, free=free, files=files, problem=problem)


def _mount_of(path: str) -> tuple[str, tuple[str, ...]]:
    """Kind and options of the file system that ``path`` is on (proc_pid_mountinfo(5))."""
    best, found = "", ("", "")
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields = line.split()
            point = os.fsdecode(fields[4].decode("unicode_escape").encode("latin-1"))
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best = point
                found = (os.fsdecode(fields[fields.index(b"-") + 1]), os.fsdecode(fields[5]))
    return found[0], tuple(found[1].split(","))


def diagnose(machine: Machine, trials: Trials | None, disk: Disk) -> Report:
    """The report on what was found; ``trials`` is None where nothing could be tried."""
    working = [runtime for runtime in trials.runtimes if runtime.works] if trials is not None else []
    way = "root" if machine.root else "D" if trials is None and machine.userns else "A"
    if way == "A" and (trials.single if trials is not None else not _wide(machine)):
        way = "B"
    findings = [
        Finding(level="ok", name="kernel", text=f"Linux {machine.kernel} on {machine.architecture}"),
        *_identity(machine, trials, way),
        *_runtimes(trials, working),
        *_snapshots(machine, trials, working),
        *_network(machine, trials, working),
        *_disk(disk),
        *_rest(machine),
        *_platforms(machine, trials),
    ]
    rank = {"error": 0, "warning": 1, "note": 2, "ok": 3}
    return Report(
        run=bool(working),
        way=way,
        isolation=working[0].name if working else "",
        snapshots=("copy" if trials.copies else "overlay") if working and trials is not None else "",
        network=(trials.outlet or "host") if working and trials is not None else "",
        findings=tuple(sorted(findings, key=lambda finding: rank[finding.level])),
    )


def _wide(machine: Machine) -> bool:
    return machine.newuidmap and machine.newuidmap_privileged and machine.subordinate_ids > 0


def _identity(machine: Machine, trials: Trials | None, way: str) -> Iterator[Finding]:
    if way == "root":
        yield Finding(level="ok", name="user", text="you are root: steps are isolated without a user namespace")
        return
    if way == "D":
        text = f"{machine.userns}: nothing can be isolated for {machine.user}; a Dockerfile without RUN still builds"
        yield Finding(level="error", name="user", text=text, fix=machine.userns_fix)
        return
    uidmap = "shadow-utils" if "dnf" in machine.install else "shadow" if "pacman" in machine.install else "uidmap"
    if way == "A":
        count = trials.ids if trials is not None else machine.subordinate_ids + 1
        if count > _WIDE:
            text = f"{machine.user} is root of a user namespace with {count} ids"
            yield Finding(level="ok", name="user", text=text)
            return
        text = f"{machine.user} has {count} ids in a user namespace; images use up to 65535"
        yield Finding(level="note", name="user", text=text, fix=_give_ids(machine))
        return
    owners = trials is None or trials.owners
    text = f"{machine.user} has one id: owners are kept on record and steps see them, " if owners else ""
    text += "which is slower for steps that look at many files" if owners else ""
    if not owners:
        text = f"{machine.user} has one id, and this kernel lets nobody answer calls (seccomp, Linux 5.0): chown fails in RUN"
    level = "note" if owners else "warning"
    if not machine.newuidmap:
        fix = machine.install.format(uidmap) or "install newuidmap (package uidmap or shadow-utils)"
        yield Finding(level=level, name="user", text=f"{text}; newuidmap is not installed", fix=fix)
    elif not machine.newuidmap_privileged:
        fix = "sudo chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap"
        yield Finding(level=level, name="user", text=f"{text}; newuidmap is not setuid", fix=fix)
    elif not machine.subordinate_ids:
        text = f"{text}; /etc/subuid has no range for {machine.user}"
        yield Finding(level=level, name="user", text=text, fix=_give_ids(machine))
    else:
        yield Finding(level=level, name="user", text=f"{text}; newuidmap refused the range in /etc/subuid")


def _give_ids(machine: Machine) -> str:
    return f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {machine.user}"


def _runtimes(trials: Trials | None, working: list[FoundRuntime]) -> Iterator[Finding]:
    if trials is None:
        return
    for runtime in trials.runtimes:
        name = f"{runtime.name} {runtime.version}".strip()
        if not runtime.works:
            level = "error" if not working else "note"
            text = f"{name} cannot run a step here: {runtime.reason}"
            yield Finding(level=level, name="isolation", text=text, fix=runtime.fix)
            continue
        used = runtime is working[0]
        holes = known_holes(runtime.name, runtime.version)
        if not holes:
            text = f"{name} runs steps" + ("" if used else ", if asked for (--isolation oci)")
            yield Finding(level="ok", name="isolation", text=text)
            continue
        text = f"{name} has known holes by its version ({', '.join(holes)})"
        text += "; shiplap keeps images from those it knows" if used else ", and is used only with --isolation oci"
        yield Finding(
            level="warning" if used else "note",
            name="isolation",
            text=text,
            fix=f"upgrade {runtime.name}" if used else "",
        )


def known_holes(name: str, version: str) -> list[str]:
    """Advisories that the version number of a runtime does not cover. A distribution may have closed them all the same."""
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if numbers is None:
        return []
    have = tuple(int(part or 0) for part in numbers.groups())
    return [hole for hole, closed in _HOLES.get(name, ()) if not _closed(have, closed)]


def _closed(have: tuple[int, ...], closed: tuple[tuple[int, ...], ...]) -> bool:
    """Whether ``have`` is at or above the fix of its own branch, or on a branch later than all of those."""
    if have[:2] > closed[-1][:2]:
        return True
    return any(have[:2] == fix[:2] and have >= fix for fix in closed)


def _snapshots(machine: Machine, trials: Trials | None, working: list[FoundRuntime]) -> Iterator[Finding]:
    if trials is None or not working:
        return
    if not trials.copies:
        yield Finding(level="ok", name="snapshots", text="overlays can be mounted on the store's disk")
        return
    fix = trials.overlay_fix
    if not machine.root and _kernel(machine.kernel) < (5, 11):
        fix = "upgrade to Linux 5.11 or later, or build as root"
    text = f"{trials.overlay or 'SHIPLAP_SNAPSHOTS=copy'}: each step works on a copy of its root, which takes longer"
    yield Finding(level="note", name="snapshots", text=text, fix=fix)


def _kernel(release: str) -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers is not None else (0, 0)


def _network(machine: Machine, trials: Trials | None, working: list[FoundRuntime]) -> Iterator[Finding]:
    if trials is None or not working:
        return
    if trials.outlet:
        text = f"RUN has a network of the build's own, through {trials.outlet}"
        yield Finding(level="ok", name="network", text=text)
        return
    fix = ""
    if not machine.outlets:
        fix = machine.install.format("passt") or "install pasta (package passt) or slirp4netns"
    elif machine.tun:
        missing = "no such" in machine.tun
        fix = "sudo modprobe tun" if missing else "sudo chmod 666 /dev/net/tun (udev does so where it runs)"
    text = f"RUN shares this machine's network and reaches what listens on its loopback ({trials.outlet_reason})"
    yield Finding(level="note", name="network", text=text, fix=fix)


def _disk(disk: Disk) -> Iterator[Finding]:
    if disk.problem:
        fix = "choose another place with SHIPLAP_ROOT or --root"
        yield Finding(level="error", name="store", text=f"{disk.path}: {disk.problem}", fix=fix)
        return
    where = f"{disk.path} on {disk.kind}"
    barred = [name for name in ("nosuid", "noexec") if name in disk.options]
    if barred:
        text = f"{where}, mounted {' and '.join(barred)}: where steps work on copies, their programs are barred as well"
        fix = "choose another place with SHIPLAP_ROOT or --root"
        yield Finding(level="warning", name="store", text=text, fix=fix)
    free = f"{disk.free / (1 << 30):.1f} GiB free"
    if disk.free < LOW_SPACE or 0 <= disk.files < 50_000:
        room = free if disk.free < LOW_SPACE else f"room for {disk.files} more files"
        yield Finding(level="warning", name="disk", text=f"{where} has only {room}", fix="shiplap prune")
    else:
        yield Finding(level="ok", name="store", text=f"{where}, {free}")


def _rest(machine: Machine) -> Iterator[Finding]:
    text = f"cgroups: {machine.cgroup}" + (", delegated" if machine.delegated and not machine.root else "")
    yield Finding(level="ok", name="cgroups", text=f"{text}; steps need none, and have the limits of who builds")


def _platforms(machine: Machine, trials: Trials | None) -> Iterator[Finding]:
    """Which foreign programs run, and how (``shiplap builder inspect`` lists them one by one)."""
    if trials is None or not trials.ways:
        return
    for how, by in (
        ("native", "by the processor itself"),
        ("host", "by emulators that this machine has registered"),
        ("emulator", "by a qemu of the step's own"),
    ):
        names = [f"linux/{way.architecture}" for way in trials.ways if way.how == how]
        if names:
            yield Finding(level="ok", name="platforms", text=f"RUN works for {', '.join(names)} {by}")
    missing = [way for way in trials.ways if not way.how]
    if len(missing) == len([way for way in trials.ways if way.how != "native"]) and missing:
        way = next((way for way in missing if way.architecture in ("amd64", "arm64")), missing[0])
        text = f"RUN works for no other platform: {way.reason}"
        yield Finding(level="note", name="platforms", text=text, fix=way.fix)
