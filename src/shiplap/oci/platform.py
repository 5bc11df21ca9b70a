"""Platforms: ``os[/arch[/variant]]``, normalised as containerd does (containerd/platforms, ``Normalize``)."""

from __future__ import annotations

import re
from typing import NamedTuple

from shiplap.errors import UsageError

_ARCHITECTURES = {
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_OPERATING_SYSTEMS = {"macos": "darwin"}
# What a single word may name (containerd/platforms, database.go).
_KNOWN_OS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd"}
    | {"openbsd", "plan9", "solaris", "windows", "zos"}
)
_KNOWN_ARCH = frozenset(
    {"386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64", "mips", "mipsle"}
    | {"mips64", "mips64le", "mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64"}
    | {"wasm"}
)
_OS = re.compile(r"([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?")
_PART = re.compile(r"[A-Za-z0-9_.-]+")


class Platform(NamedTuple):
    """An operating system, an architecture (Go's names) and a variant, normalised."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def full(self) -> str:
        """With the version of the operating system, where there is one: ``windows(10.0.17763)/amd64``."""
        if not self.os_version:
            return str(self)
        return str(self._replace(os=f"{self.os}({self.os_version})", os_version=""))

    def satisfies(self, wanted: Platform) -> bool:
        """True if an image for this platform may be taken where ``wanted`` is asked for (``fitting_platforms``)."""
        return self._replace(os_version="") in fitting_platforms(wanted)


def fitting_platforms(wanted: Platform) -> tuple[Platform, ...]:
    """The platforms whose images run on ``wanted``, the best first: lower variants, then the 32-bit architecture.

    The order of containerd's ``platforms.Only``, which BuildKit chooses base images with.
    """
    os, architecture, variant = wanted.os, wanted.architecture, wanted.variant
    numbers = re.fullmatch(r"v([1-9])(?:\.([0-9]))?", variant)
    major, minor = (int(numbers.group(1)), int(numbers.group(2) or 0)) if numbers else (0, 0)
    if architecture == "amd64":
        lower = [f"v{number}" if number > 1 else "" for number in range(major - 1, 0, -1)]
        return (*(Platform(os, "amd64", each) for each in (variant, *lower)), Platform(os, "386"))
    if architecture == "arm":
        lower = [f"v{number}" for number in range(major - 1, 4, -1)]
        return tuple(Platform(os, "arm", each) for each in (variant, *lower))
    if architecture == "arm64" and (not variant or (numbers and major in (8, 9))):
        nines = [f"v9.{number}" if number else "v9" for number in range(minor, -1, -1)] if major == 9 else []
        # Armv9.n holds Armv8.(n + 5), up to 8.9, the last one.
        highest = min(minor + 5, 9) if major == 9 else minor
        eights = [f"v8.{number}" if number else "" for number in range(highest, -1, -1)]
        arms = fitting_platforms(Platform(os, "arm", "v8"))
        return tuple(Platform(os, "arm64", each) for each in (*nines, *eights)) + arms
    return (Platform(os, architecture, variant),)


def normalize(os: str, architecture: str, variant: str = "", os_version: str = "") -> Platform:
    """Fold the many spellings of a platform into one."""
    os = _OPERATING_SYSTEMS.get(os.lower(), os.lower())
    architecture, variant = architecture.lower(), variant.lower()
    if architecture in _ARCHITECTURES:
        architecture, implied = _ARCHITECTURES[architecture]
        variant = variant if implied == "" else implied
    if architecture == "arm64" and variant in ("8", "v8", "v8.0"):
        variant = ""
    elif architecture == "arm64" and variant in ("9", "9.0", "v9.0"):
        variant = "v9"
    elif architecture == "arm" and variant in ("", "7"):
        variant = "v7"
    elif architecture == "arm" and variant in ("5", "6", "8"):
        variant = "v" + variant
    elif architecture == "amd64" and variant == "v1":
        variant = ""
    return Platform(os, architecture, variant, os_version)


def parse_platform(text: str, native: Platform | None = None) -> Platform:
    """Read ``linux``, ``arm64``, ``linux/arm/v7``, ``windows(10.0)/amd64``; raises UsageError."""
    native = native or native_platform()
    parts = text.split("/")
    system = _OS.fullmatch(parts[0])
    if system is None or len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts[1:]):
        raise UsageError(
            f"failed to parse platform {text[:100]}: invalid platform",
            code="invalid-platform",
            hint="write os/architecture[/variant], for example linux/arm64",
        )
    parts[0], os_version = system.group(1), system.group(2) or ""
    if len(parts) > 1:
        return normalize(parts[0], parts[1], "".join(parts[2:]), os_version)
    word = parts[0].lower()
    if word == "local":
        return native
    if _OPERATING_SYSTEMS.get(word, word) in _KNOWN_OS:
        return normalize(word, native.architecture, native.variant, os_version)
    architecture = _ARCHITECTURES.get(word, (word, ""))[0]
    if architecture in _KNOWN_ARCH:
        return normalize(native.os, word)
    raise UsageError(
        f"failed to parse platform {text[:100]}: unknown operating system or architecture",
        code="invalid-platform",
        hint="write os/architecture[/variant], for example linux/arm64",
    )


def native_platform() -> Platform:
    """The platform of the machine we run on."""
    from os import uname

    machine = uname().machine
    if machine.startswith("armv"):
        return normalize("linux", "arm", machine[3:5])
    return normalize("linux", {"i686": "386", "i586": "386"}.get(machine, machine))
