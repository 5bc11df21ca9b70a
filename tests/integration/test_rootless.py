"""The same builds by an ordinary user: no root, no daemon, and the same file systems as root's."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import REPOSITORY, WORK, Shiplap, once

DOCKERFILE = """FROM busybox AS base
RUN mkdir /data && echo one > /data/one && chown 33:33 /data/one && chmod 4750 /data/one
RUN echo someone:x:1000:50::/home/someone:/bin/sh >> /etc/passwd && mkdir /home/someone && chown 1000:50 /home/someone
USER someone
RUN id -un > /tmp/who && touch ~/mine
FROM base
USER root
RUN rm -r /home && mkdir /home && ln -s /data/one /home/link
COPY --chown=www-data:staff --chmod=640 file /srv/x/file
WORKDIR /srv/y
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """shiplap installed where an ordinary user can read it (root's own Python may lie where nobody else may look)."""
    if os.geteuid() != 0:
        return Shiplap(Path()).command
    directory = Path("/var/tmp") / f"shiplap-tests-{WORK.stat().st_ino}"
    stamp = directory.with_name(f"{directory.name}.ready")  # beside it, with its lock, for the directory is made anew
    with once(stamp) as ours:
        if ours or any(p.stat().st_mtime > stamp.stat().st_mtime for p in (REPOSITORY / "src").rglob("*.py")):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)
            python = next((p for p in ("/usr/bin/python3", "/usr/local/bin/python3") if _usable(p)), None)
            if python is None:
                pytest.skip("no system Python 3.11+ with venv that an ordinary user could run")
            subprocess.run([python, "-m", "venv", directory], check=True, capture_output=True)
            pip = [directory / "bin/pip", "install", "-q", "--disable-pip-version-check", REPOSITORY]
            subprocess.run(pip, check=True, capture_output=True)
            stamp.touch()
    return (str(directory / "bin/shiplap"),)


def _usable(python: str) -> bool:
    probe = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
    return Path(python).exists() and subprocess.run([python, "-c", probe], capture_output=True).returncode == 0


@pytest.fixture
def rootless(installed: tuple[str, ...], ordinary_user: int, mirror: Path, tmp_path: Path) -> Iterator[Shiplap]:
    """shiplap as an ordinary user, with a home of its own."""
    home = Path("/var/tmp") / f"shiplap-home-{os.getpid()}-{os.urandom(4).hex()}"
    home.mkdir(mode=0o755)
    shutil.copy(mirror, home / "registries.conf")
    (home / "registries.conf").chmod(0o644)
    if os.geteuid() == 0:
        os.chown(home, ordinary_user, pwd.getpwuid(ordinary_user).pw_gid)
    user = ordinary_user if os.geteuid() == 0 else None
    env = {"CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf")}
    yield Shiplap(home / "store", env, home, installed, user)
    subprocess.run(["rm", "-rf", home], check=False)


def put(home: Path, name: str, dockerfile: str, user: int | None) -> Path:
    context = home / name
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    (context / "file").write_text("file\n")
    for path in (context / "Dockerfile", context / "file"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    if user is not None:
        subprocess.run(["chown", "-R", str(user), context], check=True)
    return context


def members(archive: Path) -> list[tuple[object, ...]]:
    with tarfile.open(archive) as opened:
        return [(m.name, m.type, oct(m.mode), m.uid, m.gid, m.linkname, m.size) for m in opened]


def test_hello_builds_and_runs(rootless: Shiplap) -> None:
    context = put(rootless.cwd, "hello", (REPOSITORY / "examples/hello/Dockerfile").read_text(), rootless.user)
    rootless.run("build", "-t", "hello", context)
    assert rootless.run("run", "hello").stdout == "hello, world\n"
    assert os.listdir(rootless.root / "tmp") == []


def test_the_file_system_is_roots(rootless: Shiplap, shiplap: Shiplap) -> None:
    """Owners, modes, links, deletions: as if root had built it, down to ids that only a subordinate range can hold."""
    theirs = put(rootless.cwd, "context", DOCKERFILE, rootless.user)
    ours = put(shiplap.cwd, "context", DOCKERFILE, None)
    rootless.run("build", "-q", "-o", f"type=tar,dest={rootless.cwd}/out.tar", theirs)
    shiplap.run("build", "-q", "-o", f"type=tar,dest={shiplap.cwd}/out.tar", ours)
    expected = members(shiplap.cwd / "out.tar")
    assert members(rootless.cwd / "out.tar") == expected
    found = {str(row[0]): row for row in expected}
    assert found["data/one"][2:5] == ("0o4750", 33, 33)
    assert found["srv/x/file"][2:5] == ("0o640", 33, 50)


def test_a_store_of_ones_own_can_be_removed_by_its_owner(rootless: Shiplap) -> None:
    rootless.run("build", "-q", "-t", "x", put(rootless.cwd, "context", DOCKERFILE, rootless.user))
    rootless.run("rmi", "x")
    rootless.run("prune", "--all")
    assert os.listdir(rootless.root / "snapshots") == []
