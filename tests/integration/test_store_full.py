"""A disk that fills up at any moment: an error that says so, a valid store, and the same build once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import killing
from kit import SOAK, Shiplap, program

SIZES = 30 if SOAK else 6
INODES = 10 if SOAK else 3

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    subprocess.run([program("mount"), "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run([program("umount"), "--lazy", path], check=True)


def build(shiplap: Shiplap, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    outputs = ["-t", "it", "-o", "type=image", "-o", f"type=oci,dest={directory}/o.tar"]
    return shiplap.run("build", *outputs, *arguments, directory / "context", check=False)


@pytest.fixture
def reference(tmp_path: Path, mirror: Path) -> tuple[Shiplap, str, int, int]:
    """shiplap, the digest of the image when there is room, and what the store then takes: bytes and files."""
    killing.reference_context(tmp_path / "context")
    env = {"CONTAINERS_REGISTRIES_CONF": str(mirror), "SOURCE_DATE_EPOCH": killing.EPOCH}
    shiplap = Shiplap(tmp_path / "disk" / "store", env, tmp_path)
    with small_disk(tmp_path / "disk", "size=64m"):
        assert build(shiplap, tmp_path).returncode == 0
        found = os.statvfs(tmp_path / "disk")
        used, files = (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree
        wanted = killing.digest_of_file(tmp_path / "o.tar")
        (tmp_path / "o.tar").unlink()
    (tmp_path / "disk").rmdir()
    return shiplap, wanted, used, files


def assert_survives(shiplap: Shiplap, directory: Path, options: str, larger: str, wanted: str) -> bool:
    """Build on a disk of that size; whether there was room."""
    with small_disk(directory / "disk", options):
        first = build(shiplap, directory)
        if first.returncode == 0:
            assert killing.digest_of_file(directory / "o.tar") == wanted
        else:
            assert first.returncode == 1, first.stderr
            said = first.stderr[first.stderr.index("ERROR: ") :]
            told = "[disk-full]" in said or "[store-unusable]" in said or "the disk of the store is full" in said
            assert told and str(directory / "disk") in said, first.stderr
            assert not (directory / "o.tar").exists()
        subprocess.run([program("mount"), "-o", f"remount,{larger}", directory / "disk"], check=True)
        killing.assert_sound(shiplap)
        again = build(shiplap, directory)
        assert again.returncode == 0, again.stderr
        assert killing.digest_of_file(directory / "o.tar") == wanted
        killing.assert_nothing_is_left(shiplap.root)
        (directory / "o.tar").unlink()
    (directory / "disk").rmdir()
    return first.returncode == 0


def test_a_disk_of_any_size(reference: tuple[Shiplap, str, int, int], tmp_path: Path) -> None:
    shiplap, wanted, used, _ = reference
    room = []
    for number in range(SIZES):
        size = int(32768 * (2 * used / 32768) ** (number / (SIZES - 1)))
        room.append(assert_survives(shiplap, tmp_path, f"size={size}", "size=64m", wanted))
    assert not room[0]
    assert room[-1]


def test_a_disk_of_any_number_of_files(reference: tuple[Shiplap, str, int, int], tmp_path: Path) -> None:
    shiplap, wanted, _, files = reference
    for number in range(INODES):
        count = 4 + files * number // INODES
        assert_survives(shiplap, tmp_path, f"size=64m,nr_inodes={count}", "nr_inodes=100000", wanted)


def test_prune_makes_room_on_a_full_disk(reference: tuple[Shiplap, str, int, int], tmp_path: Path) -> None:
    shiplap, _, _, _ = reference
    with small_disk(tmp_path / "disk", "size=16m"):
        assert build(shiplap, tmp_path).returncode == 0
        ballast = os.open(tmp_path / "disk" / "ballast", os.O_CREAT | os.O_WRONLY)
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(ballast, bytes(1 << 12))
        os.close(ballast)
        assert "freed" in shiplap.run("prune", "--force").stdout
        assert "freed 0B" not in shiplap.run("prune", "--all", "--force").stdout
        killing.assert_sound(shiplap)


def test_a_step_that_fills_the_disk_says_so(reference: tuple[Shiplap, str, int, int], tmp_path: Path) -> None:
    shiplap, _, _, _ = reference
    with small_disk(tmp_path / "disk", "size=16m"):
        dockerfile = b"FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=100\n"
        done = shiplap.run("build", "-", stdin=dockerfile, check=False)
        assert done.returncode == 1
        assert "the disk of the store is full" in done.stderr and "shiplap prune" in done.stderr
        killing.assert_sound(shiplap)


# -- a limit of our own


def test_a_limit_holds_while_space_is_taken(shiplap: Shiplap, tmp_path: Path) -> None:
    """Older results make room for newer ones; what cannot fit ends the build, and leaves the store within the limit."""
    limit = 12 << 20
    dockerfile = "FROM busybox\nRUN dd if=/dev/urandom of=/x bs=1M count=3 && echo {}\n"
    for number in range(4):
        shiplap.run("build", "--max-used-space=12m", "-", stdin=dockerfile.format(number).encode())
        assert taken(shiplap) <= limit
    assert (
        ": 0 steps run" in shiplap.run("build", "--max-used-space=12m", "-", stdin=dockerfile.format(3).encode()).stderr
    )
    assert ": 0 steps run" not in shiplap.run("build", "-", stdin=dockerfile.format(0).encode()).stderr
    big = b"FROM busybox\nRUN dd if=/dev/urandom of=/x bs=1M count=300\n"
    done = shiplap.run("build", "--max-used-space=12m", "-", stdin=big, check=False)
    assert done.returncode == 1
    assert "[store-full]" in done.stderr and "--max-used-space" in done.stderr
    killing.assert_sound(shiplap)
    killing.assert_nothing_is_left(shiplap.root)
    done = shiplap.run("build", "--max-used-space=100k", "--no-cache", "-", stdin=dockerfile.encode(), check=False)
    assert (done.returncode, "[store-full]" in done.stderr) == (1, True)


def taken(shiplap: Shiplap) -> int:
    return sum(
        os.lstat(os.path.join(path, name)).st_blocks * 512
        for path, _, names in os.walk(shiplap.root)
        for name in names
        if not path.endswith("logs")
    )
