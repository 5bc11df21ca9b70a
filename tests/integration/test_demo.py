"""What ``make demo`` runs: the example is built, run and weighed, with its base pulled from where a registry answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from kit import REPOSITORY


def test_the_demo_pulls_its_base_and_tells_the_sizes(mirror: Path, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SHIPLAP_ROOT": str(tmp_path / "store"),
        "CONTAINERS_REGISTRIES_CONF": str(mirror),
    }
    command = [sys.executable, str(REPOSITORY / "examples/demo.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nhello, world\n" in done.stdout
    assert "no registry answers" not in done.stdout
    smaller = re.search(
        r"the image is [\d.]+ MB, its build stage stands on [\d.]+ MB: (\d+) times smaller", done.stdout
    )
    assert smaller is not None and int(smaller.group(1)) > 10
