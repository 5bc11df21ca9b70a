"""Trees as deep as a path can be (4095 bytes: 2047 levels), and deeper. BuildKit manages the former."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import SOAK
from shiplap.api.building import build
from shiplap.errors import TreeError

DEPTH = 2040 if SOAK else 700
"""Each system call walks the whole path: 2040 levels take nine times as long, a minute and more."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)  # pytest's own way to clear up is recursive


def deep(path: Path, levels: int) -> None:
    path.mkdir()
    opened = os.open(path, os.O_RDONLY)
    for _ in range(levels - 1):
        os.mkdir("d", dir_fd=opened)
        below = os.open("d", os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=opened))
    os.close(opened)


def members(data: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name.strip("/") for member in tar}


def paths(top: str, levels: int) -> set[str]:
    found = {top + "/d" * level for level in range(levels)}
    return found | {top + "/d" * (levels - 1) + "/f"}


def test_a_context_goes_through_every_operation(place: Path) -> None:
    """From a context, over a base, from a stage, with ``--exclude``; into a tar and a directory; with few descriptors."""
    deep(place / "d", DEPTH)
    (place / "g").write_text("g")
    (place / "Dockerfile").write_text(
        "FROM scratch AS a\nCOPY d /d\nFROM a AS b\nCOPY --exclude=no . /\nFROM scratch\nCOPY --from=b --exclude=no /d /e\n"
        "COPY --from=b --link /g /g\n"
    )
    (place / ".dockerignore").write_text("Dockerfile\n!d/d/d\n.dockerignore\nstore\n")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 250, limit[1]))
    try:
        build(place, root=place / "store", output=[f"type=tar,dest={place}/o.tar", f"type=local,dest={place}/o"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert members((place / "o.tar").read_bytes()) == {"g"} | paths("e", DEPTH)
    written = subprocess.run(["find", "."], cwd=place / "o", capture_output=True, check=True).stdout.decode().split()
    assert {name[2:] for name in written} == {"", "g"} | paths("e", DEPTH)


def test_what_is_deeper_is_an_error_that_says_so(place: Path) -> None:
    (place / "Dockerfile").write_text("FROM scratch\nCOPY d /d\n")
    deep(place / "d", 2100)
    with pytest.raises(TreeError, match="too deep below each other") as caught:
        build(place, root=place / "store")
    assert caught.value.code == "too-deep"
    assert len(caught.value.message) < 200


def test_a_base_is_unpacked_copied_and_checked(place: Path) -> None:
    with tarfile.open(place / "deep.tar", "w") as tar:
        for depth in range(1, DEPTH):
            member = tarfile.TarInfo("/".join("d" * depth))
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("/".join("d" * (DEPTH - 1)) + "/f"))
    command = [str(Path(sys.executable).with_name("shiplap")), "--root", str(place / "store")]
    subprocess.run([*command, "import", place / "deep.tar", "deep"], check=True, capture_output=True)
    build = [*command, "build", "-q", "-o", "type=tar,dest=-", "-"]
    recipe = b"FROM deep\nCOPY --from=deep /d /e\n"
    done = subprocess.run(build, input=recipe, capture_output=True, check=True)
    assert members(done.stdout) == paths("d", DEPTH - 1) | paths("e", DEPTH - 1)
    subprocess.run([*command, "fsck"], capture_output=True, check=True)
