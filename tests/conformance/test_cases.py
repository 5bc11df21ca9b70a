"""Each case built by shiplap, held against what BuildKit made of it (record.py): errors, config, history, layers.

A case in which shiplap differs on purpose has a ``differs.txt``: the reason, and, below a line of ``---``, what shiplap
makes instead, in the form of expected.json. It fails once the two agree, so that no such file outlives its reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shiplap
from conformance import shape
from conformance.case import CASES, IMAGES, Case
from conformance.site_of_cases import Site, served
from kit import Shiplap

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="contexts with owners and devices need root")


class Oven:
    """A store that holds the base images, shared by the cases of a session."""

    def __init__(self, root: Path, archive: Path, site: Site) -> None:
        self.root = root
        self.site = site
        command = Shiplap(root)
        command.run("load", "-i", archive)
        command.run("tag", "busybox:latest", "base")
        for file in sorted(IMAGES.glob("*.Dockerfile")):
            command.run("build", "-q", "-t", file.stem, "-", stdin=file.read_bytes())
        self.base: dict[str, Any] = json.loads(command.run("inspect", "base").stdout)[0]["Image"]

    def bake(self, case: Case, work: Path) -> dict[str, Any]:
        """Build ``case``; its shape, or its error."""
        case.prepare(work, self.site)
        with case.agent(work):
            try:
                shiplap.build(self.request(case, work), environ=case.options.get("secret_env", {}))
            except shiplap.ShiplapError as error:
                return self.site.back({"error": shape.error(error.message)})

        def read(digest: str) -> bytes:
            return (work / "image/blobs" / digest.replace(":", "/")).read_bytes()

        index = json.loads((work / "image/index.json").read_bytes())
        return self.site.back(shape.image(read, index["manifests"][0]["digest"], self.base))

    def request(self, case: Case, work: Path) -> shiplap.Request:
        """What a case asks for, as shiplap calls it."""
        options = case.options
        given: dict[str, Any] = {
            key: options[key] for key in ("target", "build_args", "labels", "platform", "network") if key in options
        }
        given |= {
            key: tuple(options[key]) for key in ("add_hosts", "ulimits", "allow", "no_cache_filter") if key in options
        }
        file = options.get("file")
        if "stdin" in options:
            given |= {"context": "-", "context_data": (work / "context" / options["stdin"]).read_bytes()}
        elif "context" in options:
            given["context"] = self.site.there(options["context"])
            if (work / "dockerfile/Dockerfile").exists():
                given["dockerfile_data"] = (work / "dockerfile/Dockerfile").read_bytes()
            else:
                given["dockerfile"] = file
        else:
            given |= {"context": work / "context", "dockerfile": work / "dockerfile" / (file or "Dockerfile")}
        if "stdin" in options:
            given["dockerfile"] = file
        names = [case.secret(key, self.site) for key in options.get("secrets", {})]
        secrets = [shiplap.Secret(key, source=str(work / "secrets" / key)) for key in names]
        secrets += [shiplap.Secret(key, env=key) for key in options.get("secret_env", {})]
        return shiplap.Request(
            **given,
            shm_size=options.get("shm_size", 0),
            secrets=tuple(secrets),
            ssh={name: str(work / "agent") for name in options.get("ssh", ())},
            build_contexts={
                name: str(work / "contexts" / name.partition("::")[0])
                if value == "directory"
                else self.site.there(value)
                for name, value in options.get("contexts", {}).items()
            },
            outputs=(shiplap.Output.parse(f"type=oci,tar=false,compression=uncompressed,dest={work / 'image'}"),),
            no_cache="no_cache_filter" not in options,
            root=self.root,
        )


@pytest.fixture(scope="session")
def oven(tmp_path_factory: pytest.TempPathFactory, archives: dict[str, Path]) -> Iterator[Oven]:
    with served() as site:
        yield Oven(tmp_path_factory.mktemp("conformance") / "store", archives["busybox:latest"], site)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_as_buildkit(case: Case, oven: Oven, tmp_path: Path) -> None:
    expected = json.loads((case.path / "expected.json").read_text())
    found = oven.bake(case, tmp_path)
    assert not list((oven.root / "tmp").iterdir()), "left in the store's temporary directory"
    if (case.path / "differs.txt").exists():
        reason, _, instead = (case.path / "differs.txt").read_text().partition("\n---\n")
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
    assert len(CASES) > 400
