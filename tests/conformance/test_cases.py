"""Each case built by shiplap, held against what BuildKit made of it (record.py): errors, config, history, layers.

A case in which shiplap differs on purpose has a ``differs.txt``: the reason, and, below a line of ``---``, what shiplap
makes instead, in the form of expected.json. It fails once the two agree, so that no such file outlives its reason.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import shiplap
from conformance import context, shape
from kit import Shiplap

CASES = sorted(path for path in (Path(__file__).parent / "cases").iterdir() if path.is_dir())
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="contexts with owners and devices need root")


class Oven:
    """A store that holds the base image, shared by the cases of a session."""

    def __init__(self, root: Path, archive: Path) -> None:
        self.root = root
        command = Shiplap(root)
        command.run("load", "-i", archive)
        command.run("tag", "busybox:latest", "base")
        self.base: dict[str, Any] = json.loads(command.run("inspect", "base").stdout)[0]["Image"]

    def bake(self, case: Path, work: Path) -> dict[str, Any]:
        """Build ``case``; its shape, or its error."""
        options = json.loads((case / "options.json").read_text()) if (case / "options.json").exists() else {}
        directory = work / "context"
        directory.mkdir()
        listing = case / "context.txt"
        context.make_context(listing.read_text() if listing.exists() else "", directory)
        secrets = options.get("secrets", {})
        request = shiplap.Request(
            context=directory,
            dockerfile=case / "Dockerfile",
            target=options.get("target", ""),
            build_args=options.get("build_args", {}),
            labels=options.get("labels", {}),
            platform=options.get("platform", ""),
            secrets=tuple(shiplap.Secret(key, value=value.encode()) for key, value in secrets.items()),
            outputs=(shiplap.Output.parse(f"type=oci,tar=false,compression=uncompressed,dest={work / 'image'}"),),
            no_cache=True,
            root=self.root,
        )
        try:
            shiplap.build(request)
        except shiplap.ShiplapError as error:
            return {"error": shape.error(error.message)}

        def read(digest: str) -> bytes:
            return (work / "image/blobs" / digest.replace(":", "/")).read_bytes()

        index = json.loads((work / "image/index.json").read_bytes())
        return shape.image(read, index["manifests"][0]["digest"], self.base)


@pytest.fixture(scope="session")
def oven(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Path]) -> Oven:
    return Oven(tmp_path_factory.mktemp("conformance") / "store", archives["busybox:latest"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_as_buildkit(case: Path, oven: Oven, tmp_path: Path) -> None:
    expected = json.loads((case / "expected.json").read_text())
    found = oven.bake(case, tmp_path)
    assert not list((oven.root / "tmp").iterdir()), "left in the store's temporary directory"
    if (case / "differs.txt").exists():
        reason, _, instead = (case / "differs.txt").read_text().partition("\n---\n")
        assert found != expected, f"no longer differs: {reason}"
        assert found == json.loads(instead)
        return
    if "error" in expected:
        assert expected["error"] in found.get("error", "no error")
        return
    if "layers" in expected and "layers" in found:
        assert shape.tree(found["layers"]) == shape.tree(expected["layers"])
    assert found == expected


def test_there_are_cases() -> None:
    assert len(CASES) > 120
