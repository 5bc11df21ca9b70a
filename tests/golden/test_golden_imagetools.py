"""``imagetools`` answers and pushes what buildx does, to the byte; recorded by ``record_imagetools.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.golden.record_imagetools import CREATIONS, HERE, PUSHES, emptied, filled, names_of, pushed
from tests.kit import Shiplap

from shiplap.cli.main import main
from shiplap.registry.memory import MemoryRegistry

INSPECTED = json.loads((HERE / "inspect.json").read_text())
SHUFFLED = {"a:attested "}
"""Where buildx writes the annotations of an entry in the order of a Go map: any."""


@pytest.fixture(scope="module")
def filled_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with MemoryRegistry() as registry:
        yield names_of(registry, tmp_path_factory.mktemp("imagetools"))


def ask(
    arguments: list[str], names: dict[str, str], root: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    status = main(["--root", str(root), "imagetools", *(filled(word, names) for word in arguments)])
    told = capsys.readouterr()
    return status, emptied(told.out, names), emptied(told.err, names)


@pytest.mark.parametrize("case", sorted(INSPECTED))
def test_what_inspect_shows(
    case: str, filled_registry: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected: dict[str, Any] = INSPECTED[case]
    name, _, form = case.partition(" ")
    flags = ["--raw"] if form == "raw" else ["--format", form] if form else []
    status, out, err = ask(["inspect", *flags, f"{{host}}/{name}"], filled_registry, tmp_path, capsys)
    if expected["exit"]:
        assert (status, "[bad-template]" in err) == (2, True), err
        return
    assert status == 0, err
    if case in SHUFFLED:
        assert sorted(out.splitlines()) == sorted(expected["stdout"].splitlines())
    else:
        assert out == expected["stdout"]


@pytest.mark.parametrize("case", CREATIONS)
def test_what_create_would_make(
    case: str, filled_registry: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected: dict[str, Any] = json.loads((HERE / "create.json").read_text())[case]
    status, out, err = ask(["create", "--dry-run", *CREATIONS[case]], filled_registry, tmp_path, capsys)
    assert bool(status) == bool(expected["exit"]), err
    assert out == expected["stdout"]
    assert err.startswith(expected["error"])


@pytest.mark.parametrize("case", PUSHES)
def test_what_create_pushes(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected: dict[str, Any] = json.loads((HERE / "push.json").read_text())[case]
    metadata = tmp_path / "metadata.json"
    with MemoryRegistry() as registry:
        names = names_of(registry, tmp_path)
        status, _, err = ask(["create", "--metadata-file", str(metadata), *PUSHES[case]], names, tmp_path / "r", capsys)
        assert status == expected["exit"] == 0, err
        assert json.loads(emptied(metadata.read_text(), names)) == expected["metadata"]
        assert pushed(registry) == expected["pushed"]
        sent = [
            seen for seen in registry.requests if seen.method in ("PUT", "PATCH") and "/blobs/uploads/" in seen.target
        ]
        assert not sent, "blobs of the same registry are mounted, not sent"


def test_it_is_a_command_of_buildx_too(filled_registry: dict[str, str], shiplap: Shiplap) -> None:
    name = f"{filled_registry['host']}/a:plain"
    plain = shiplap.run("imagetools", "inspect", "--raw", name).stdout
    assert shiplap.run("buildx", "imagetools", "inspect", "--raw", name).stdout == plain
    assert shiplap.run("buildx", "--builder", "any", "imagetools", "inspect", "--raw", name).stdout == plain
    both = shiplap.run("imagetools", "inspect", "--raw", "--format", "{{.Name}}", name, check=False)
    assert (both.returncode, "cannot be used together" in both.stderr) == (2, True)
