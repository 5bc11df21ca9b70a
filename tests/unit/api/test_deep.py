"""Trees that are deeper than what walks them."""

from __future__ import annotations

import os
import subprocess
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
