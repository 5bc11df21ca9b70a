"""Indexes, manifests, configs, attestations and metadata are buildx's, field by field; recorded by ``record_outputs.py``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.golden.record_outputs import CASES, made, served
from tests.kit import Shiplap


@pytest.mark.parametrize("case", sorted(CASES.glob("*.txtar")), ids=lambda case: case.stem)
def test_what_is_made(case: Path, shiplap: Shiplap, tmp_path: Path) -> None:
    def build(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return shiplap.run("build", *arguments, check=False, **environment)

    with served(tmp_path) as web:
        answer = made(case, tmp_path / "case", web, build)
    expected = json.loads(case.with_suffix(".json").read_text())
    assert bool(answer["exit"]) == bool(expected["exit"])
    if not expected["exit"]:
        assert answer["metadata"] == expected["metadata"]
        assert answer["layout"] == expected["layout"]


def test_there_are_cases() -> None:
    assert len(list(CASES.glob("*.txtar"))) >= 20
