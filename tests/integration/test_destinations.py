"""Who is blamed when something cannot be written, and what is said once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.kit import Shiplap

DOCKERFILE = b"FROM scratch\nCOPY <<f /f\n" + b"0123456789\n" * 30_000 + b"f\n"


@pytest.mark.parametrize("kind", ["oci", "docker", "tar"])
def test_a_full_destination_is_not_the_store(kind: str, shiplap: Shiplap) -> None:
    failed = shiplap.run("build", "-o", f"type={kind},dest=/dev/full", "-", stdin=DOCKERFILE, check=False)
    assert failed.returncode == 1
    assert "ERROR: cannot write /dev/full: No space left on device [cannot-write]" in failed.stderr
    assert "try: choose another dest=, or make room there" in failed.stderr
    assert "prune" not in failed.stderr


def test_a_full_standard_output(shiplap: Shiplap) -> None:
    with open("/dev/full", "wb") as full:
        command = [*shiplap.command, "build", "-o", "-", "-"]
        ended = subprocess.run(command, input=DOCKERFILE, stdout=full, stderr=subprocess.PIPE, **shiplap.setting())
    assert ended.returncode == 1
    assert b"cannot write to standard output: No space left on device [cannot-write]" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
@pytest.mark.parametrize("output", ["type=local", "type=oci,tar=false", "type=oci"])
def test_a_full_disk_that_is_not_the_stores(output: str, shiplap: Shiplap, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    text = DOCKERFILE + b"RUN --network=none head -c 3000000 /dev/urandom >/r\n"
    text = text.replace(b"FROM scratch", b"FROM busybox")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    try:
        failed = shiplap.run("build", "-o", f"{output},dest={small}/out", "-", stdin=text, check=False)
    finally:
        subprocess.run(["umount", small], check=True)
    assert failed.returncode == 1
    assert f"{small}/out" in failed.stderr and "[cannot-write]" in failed.stderr and "prune" not in failed.stderr


@pytest.mark.parametrize("flag", ["--metadata-file", "--iidfile"])
def test_files_beside_the_image(flag: str, shiplap: Shiplap) -> None:
    failed = shiplap.run("build", flag, "/dev/full", "-", stdin=DOCKERFILE, check=False)
    assert failed.returncode == 1
    assert "cannot write /dev/full: No space left on device [cannot-write]" in failed.stderr


def test_copies_that_were_asked_for_are_no_news(shiplap: Shiplap) -> None:
    told = shiplap.run(
        "build", "--progress=plain", "-", stdin=b"FROM busybox\nRUN true\n", SHIPLAP_SNAPSHOTS="copy"
    ).stderr
    assert "[2/2] RUN true" in told and "copy of its root" not in told


def test_what_is_true_of_all_outputs_is_said_once(shiplap: Shiplap, tmp_path: Path) -> None:
    outputs = [f"--output=type=oci,dest={tmp_path}/{n}.tar,rewrite-timestamp=true" for n in range(3)]
    told = shiplap.run("build", "--progress=plain", *outputs, "-", stdin=DOCKERFILE).stderr
    assert told.count("rewrite-timestamp is specified, but no source-date-epoch was found") == 1


def test_help_of_verify_lists_what_has_an_effect(shiplap: Shiplap) -> None:
    told = shiplap.run("verify", "--help").stdout
    assert "--build-arg" in told and "--annotation" in told
    for flag in ("--push", "--tag", "--output", "--no-cache", "--metadata-file", "--reproducible\n", "--call"):
        assert flag not in told
    verified = shiplap.run("verify", "-t", "x", "--no-cache", "--push", "-", stdin=DOCKERFILE)
    assert verified.stdout.startswith("reproducible: ")
