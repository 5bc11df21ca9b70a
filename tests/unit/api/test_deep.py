"""Trees that are deeper than what walks them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from shiplap.api.building import build
from shiplap.errors import TreeError


def test_directories_too_deep_below_each_other_are_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY d /d\n")
    opened = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=opened)
        below = os.open("d", os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = below
    os.close(opened)
    try:
        with pytest.raises(TreeError, match="too deep below each other") as caught:
            build(tmp_path, root=tmp_path.parent / "store")
        assert caught.value.code == "too-deep"
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # pytest's own way to clear up is recursive


def test_other_commands_say_so_too(tmp_path: Path) -> None:
    """An image may be unpacked that is deeper than what walks it: by fsck, say."""
    with tarfile.open(tmp_path / "deep.tar", "w") as tar:
        for depth in range(1, 1500):
            member = tarfile.TarInfo("/".join("d" * depth))
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
    command = [str(Path(sys.executable).with_name("shiplap")), "--root", str(tmp_path / "store")]
    try:
        subprocess.run([*command, "import", tmp_path / "deep.tar", "deep"], check=True, capture_output=True)
        build = [*command, "build", "-q", "-o", "type=tar,dest=-", "-"]
        recipe = b"FROM deep\nCOPY --from=deep /d /e\n"
        for words, stdin in ((build, recipe), ([*command, "fsck"], b"")):
            done = subprocess.run(words, input=stdin, capture_output=True, check=False)
            told = "ERROR: directories lie too deep below each other [too-deep]\n  try: 400 levels are possible\n"
            assert (done.returncode, done.stderr.decode()[-len(told) :]) == (1, told)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "store"], check=True)
