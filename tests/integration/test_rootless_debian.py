"""apt-get install on a real Debian, three ways to isolate it: the same files with the same owners and modes.

The base is made once and kept in ``.tests`` (a minute or two); the packages come with it, so the steps take no network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from kit import REPOSITORY, WORK, Shiplap, once, program

PACKAGES = ("at", "dbus")
"""Small, and with all that is hard: users and groups made by postinst, set-user-id files of others, statoverrides."""
DOCKERFILE = f"""FROM debian
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y {" ".join(PACKAGES)}
"""


@pytest.fixture(scope="session")
def debian() -> Path:
    """A Docker archive of the image ``debian``: apt and what it needs, and a repository with PACKAGES."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a Debian with the owners it has")
    made = WORK / "debian.tar"
    with once(made) as ours:
        if ours:
            program("mmdebstrap")
            making = WORK / "debian"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            subprocess.run(["sh", REPOSITORY / "tests/setup/debian.sh", making, *PACKAGES], check=True)
            shiplap = Shiplap(making / "store")
            shiplap.run("import", making / "root.tar", "debian")
            shiplap.run("save", "-o", f"{made}.making", "debian")
            shutil.rmtree(making)
            os.rename(f"{made}.making", made)
            made.chmod(0o644)
    return made


def installed_by(shiplap: Shiplap, base: Path) -> dict[str, tuple[object, ...]]:
    """What the RUN made of which kind, mode and owner, by name."""
    shiplap.run("load", "-i", base)
    shiplap.run("build", "-q", "-t", "it", "-", stdin=DOCKERFILE.encode())
    out = shiplap.cwd / "it.tar"
    with out.open("wb") as file:
        subprocess.run([*shiplap.command, "save", "it"], stdout=file, check=True, timeout=100, **shiplap.setting())
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(out) as archive:
        manifest = next(m for m in archive if m.name == "manifest.json")
        (image,) = json.load(archive.extractfile(manifest) or pytest.fail())
        layer = archive.extractfile(image["Layers"][-1])
        with tarfile.open(fileobj=layer, mode="r:*") as tar:
            for member in tar:
                found[member.name] = (member.type, oct(member.mode), member.uid, member.gid, member.linkname)
    return found


def test_apt_get_install_every_way(shiplap: Shiplap, rootless: Shiplap, single: Shiplap, debian: Path) -> None:
    expected = installed_by(shiplap, debian)
    owners = {(uid, gid) for _, _, uid, gid, _ in expected.values()}
    assert len(owners) > 3 and (1, 1) in owners
    assert expected["usr/bin/at"][1:4] == ("0o6755", 1, 1)
    helper = expected["usr/lib/dbus-1.0/dbus-daemon-launch-helper"]
    assert helper[1] == "0o4754" and helper[2] == 0 and helper[3] != 0
    for other in (rootless, single):
        made = installed_by(other, debian)
        assert {n: (expected.get(n), made.get(n)) for n in expected | made if expected.get(n) != made.get(n)} == {}
