"""Which platforms this machine really runs, and how: each is tried with a tiny program of its own (elf.py).

In order: the processor itself, or an emulator that the machine has registered (then nothing need be done); else a static
qemu that is installed, which a step is given for itself (binfmt.py). Answers are kept for the process.
"""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path
from threading import Lock

import msgspec

from shiplap.errors import SandboxError
from shiplap.oci.platform import Platform, native_platform, parse_platform
from shiplap.sandbox import detect, elf
from shiplap.sandbox.spec import Emulator, Runtime

PACKAGES = {
    "apt-get": "sudo apt-get install qemu-user-static",
    "dnf": "sudo dnf install qemu-user-static-{}",
    "zypper": "sudo zypper install qemu-linux-user",
    "apk": "sudo apk add qemu-{}",
    "pacman": "sudo pacman -S qemu-user-static",
}
"""How a static qemu is installed, by the tool that is there, with {} for its name of the processor."""
REGISTRY = "/proc/sys/fs/binfmt_misc"
_FLAGS = ("POCF", "OCF")
"""See binfmt.py. A qemu before 6.0 does not know of P and takes argv[0] for an argument, which the trial shows."""
_FAMILIES = {"amd64": ("amd64", "386"), "arm64": ("arm64", "arm")}
"""What a processor may run by itself."""
_LEVELS = (
    ("v2", "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
    ("v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("v4", "avx512f avx512bw avx512cd avx512dq avx512vl"),
)
"""The levels of the x86-64 psABI, each with what it adds, by the names of /proc/cpuinfo."""


class Way(msgspec.Struct, frozen=True):
    """How programs of ``architecture`` run here. ``how``: ``native``, ``host`` (an emulator that the machine has
    registered), ``emulator`` (a step's own), or empty: not at all, for this ``reason``, and ``fix`` helps."""

    architecture: str
    how: str = ""
    program: str = ""
    """Path of the emulator, if it is known."""
    emulator: Emulator | None = None
    reason: str = ""
    fix: str = ""


_lock = Lock()
_known: dict[tuple[int, str], Way] = {}


def require(platform: str, runtime: Runtime, scratch: str = "", path: str = "") -> Emulator | None:
    """What a step for ``platform`` needs as its emulator; None if its programs run as they are.

    ``scratch``: a directory on the store's disk; ``path``: where qemu is looked for besides the system's directories.
    Raises SandboxError (no-emulator), saying what to install.
    """
    wanted, native = parse_platform(platform), native_platform()
    if wanted.architecture == native.architecture or wanted.os != "linux":
        return None
    found = way(wanted.architecture, runtime, scratch, path)
    if not found.how:
        raise SandboxError(
            f"RUN cannot run programs for {wanted} on this machine, which is {native}: {found.reason}",
            code="no-emulator",
            hint=found.fix or None,
        )
    return found.emulator


def likely(platform: str, path: str = "") -> bool:
    """Whether an emulator for ``platform`` seems to be there, without trying it."""
    architecture = parse_platform(platform).architecture
    if architecture not in elf.PROCESSORS:
        return False
    if architecture in _FAMILIES.get(native_platform().architecture, ()) or host_emulator(architecture):
        return True
    release = os.uname().release.split(".")
    recent = (
        release[1:] and release[0].isdecimal() and release[1].isdecimal() and [int(n) for n in release[:2]] >= [6, 7]
    )
    return bool(recent and find(elf.PROCESSORS[architecture].qemu, path))


def way(architecture: str, runtime: Runtime, scratch: str = "", path: str = "") -> Way:
    """How programs of ``architecture`` run with ``runtime``, found by running one."""
    with _lock:
        key = (id(runtime), architecture)
        if key not in _known:
            _known[key] = _try(architecture, runtime, scratch, path)
        return _known[key]


def ways(runtime: Runtime, scratch: str = "", path: str = "") -> tuple[Way, ...]:
    """Every architecture there is a trial for, the machine's own first."""
    native = native_platform().architecture
    names = sorted(elf.PROCESSORS, key=lambda name: name != native)
    return tuple(way(name, runtime, scratch, path) for name in names)


def platforms(architecture: str) -> tuple[Platform, ...]:
    """The platforms that a machine which runs ``architecture`` runs: with its variants, as BuildKit lists them."""
    plain = Platform("linux", architecture)
    if architecture == "amd64" and native_platform().architecture == "amd64":
        return (plain, *(replaced for level in levels() if (replaced := plain._replace(variant=level))))
    if architecture == "arm":
        return (plain._replace(variant="v7"), plain._replace(variant="v6"))
    return (plain,)


@lru_cache(maxsize=1)
def levels(cpuinfo: str = "/proc/cpuinfo") -> tuple[str, ...]:
    """Which levels of x86-64 above the first this processor has."""
    try:
        text = Path(cpuinfo).read_text(errors="replace")
    except OSError:
        return ()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    have = set(line.partition(":")[2].split())
    found: list[str] = []
    for level, needed in _LEVELS:
        if not have.issuperset(needed.split()):
            break
        found.append(level)
    return tuple(found)


def _try(architecture: str, runtime: Runtime, scratch: str, path: str) -> Way:
    plain = detect.probe(runtime, scratch, architecture)
    if plain.code == "no-probe":
        return Way(architecture, reason=f"{architecture} is a processor that shiplap knows no emulator for")
    if plain.runtime is not None:
        native = native_platform().architecture
        registered = host_emulator(architecture)
        if not registered and architecture in _FAMILIES.get(native, (native,)):
            return Way(architecture, "native")
        return Way(architecture, "host", registered)
    name = elf.PROCESSORS[architecture].qemu
    program = find(name, path)
    if not program:
        reason = f"no emulator is registered on the machine, and no static qemu-{name} is installed"
        return Way(architecture, reason=reason, fix=_install(name))
    return _own(architecture, program, runtime, scratch)


def _own(architecture: str, program: str, runtime: Runtime, scratch: str) -> Way:
    processor = elf.PROCESSORS[architecture]
    emulator = Emulator(program, processor.identity(), processor.mask(), _FLAGS[0])
    tried = detect.Trial()
    for flags in _FLAGS:
        emulator = msgspec.structs.replace(emulator, flags=flags)
        tried = detect.probe(runtime, scratch, architecture, emulator)
        if tried.runtime is not None:
            return Way(architecture, "emulator", program, emulator)
        if tried.code == "no-binfmt":
            break
    reason = f"no emulator is registered on the machine, and {program} cannot be given to a step: {tried.reason}"
    fix = tried.fix or (_registration(architecture) if tried.code == "no-binfmt" else _install(processor.qemu))
    return Way(architecture, program=program, reason=reason, fix=fix)


def find(name: str, path: str = "") -> str:
    """A static emulator by qemu's name of the processor, in the system's directories, then ``path``; empty if there is none.

    It has to be static: what it would load lies outside the step's root.
    """
    places = [*detect.SEARCH.split(":"), *path.split(":")]
    for file in (f"qemu-{name}-static", f"qemu-{name}"):
        for place in dict.fromkeys(places):
            found = shutil.which(file, path=place) if place.startswith("/") else None
            if found and _static(found):
                return found
    return ""


def _static(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return elf.static(file.read(4096))
    except OSError:
        return False


def host_emulator(architecture: str, registry: str = REGISTRY) -> str:
    """The program that the machine has registered for ``architecture``; empty if that cannot be seen from here."""
    identity = elf.PROCESSORS[architecture].identity()
    for entry in sorted(Path(registry).glob("*")):
        try:
            fields = dict(line.partition(" ")[::2] for line in entry.read_text(errors="replace").splitlines())
            magic = bytes.fromhex(fields.get("magic", ""))
            mask = bytes.fromhex(fields.get("mask", "")) or b"\xff" * len(magic)
        except (OSError, ValueError):
            continue
        pairs = zip(identity, magic, mask, strict=False)
        if "enabled" in fields and len(magic) > 18 and all(have & bits == want & bits for have, want, bits in pairs):
            return fields.get("interpreter", "")
    return ""


def _install(qemu: str) -> str:
    tool = next((how for tool, how in PACKAGES.items() if shutil.which(tool, path=detect.SEARCH)), "")
    return tool.format(qemu) or f"install qemu-user-static, or put a static qemu-{qemu} on PATH"


def _registration(architecture: str) -> str:
    if shutil.which("apt-get", path=detect.SEARCH):
        return "register it for the whole machine: sudo apt-get install qemu-user-static binfmt-support"
    return f"register it for the whole machine: docker run --privileged --rm tonistiigi/binfmt --install {architecture}"
