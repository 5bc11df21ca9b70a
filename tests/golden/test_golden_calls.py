"""``build --check`` and ``--call`` say what buildx says, to the byte; recorded by ``record_calls.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.golden.record_calls import CALLS, HERE, without_definitions
from tests.kit import Shiplap

FORMS = [f"{call}{form}" for call in CALLS for form in ("", ",format=json")]


@pytest.mark.parametrize("call", FORMS)
@pytest.mark.parametrize("file", sorted(HERE.glob("*.Dockerfile")), ids=lambda file: file.stem)
def test_what_is_answered(file: Path, call: str, shiplap: Shiplap) -> None:
    expected = json.loads(file.with_suffix(".json").read_text())[call]
    flags = ["--check"] if call == "check" else [f"--call={call}"]
    shiplap.cwd = HERE
    told = shiplap.run("build", "-f", file.name, *flags, ".", check=False)
    assert (told.returncode, without_definitions(told.stdout)) == (expected["exit"], expected["stdout"])


def test_a_call_that_is_not_known(shiplap: Shiplap) -> None:
    told = shiplap.run("build", "--call=nothing", HERE, check=False)
    assert told.returncode == 2
    assert "[bad-command-line]" in told.stderr
    told = shiplap.run("build", "--call=check,ignorestatus=true", "-f", HERE / "all-kinds.Dockerfile", HERE)
    assert "warnings have been found" in told.stdout
