"""Every case as BuildKit has it: error text, or graph, config, history and checks. ``record.py`` wrote them down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from golden import shape
from golden.txtar import read_txtar
from shiplap.dockerfile.instructions import Dockerfile
from shiplap.dockerfile.lower import Lowering, check, lower
from shiplap.dockerfile.options import LowerOptions, NamedContext, Plan, ResolvedImage
from shiplap.dockerfile.parse import parse
from shiplap.errors import DockerfileError, RegistryError, ShiplapError
from shiplap.oci.config import parse_config
from shiplap.oci.digest import digest_of
from shiplap.oci.platform import Platform, parse_platform
from shiplap.oci.reference import Reference
from shiplap.trees.patterns import parse_ignore

HERE = Path(__file__).parent
CASES = sorted((HERE / "cases").glob("*.txt"))
IMAGES: dict[str, Any] = json.loads((HERE / "images.json").read_text())
AMD64 = Platform("linux", "amd64")


class Images:
    """The images that the recorded BuildKit had; ``asked`` is what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        self.asked.append(reference.familiar())
        raw = IMAGES.get(reference.path.removeprefix("library/"))
        if raw is None:
            raise RegistryError(f"{reference}: not found", code="not-found")
        data = json.dumps(raw).encode()
        return ResolvedImage(reference, digest_of(data), parse_config(data))


def request_of(sections: dict[str, str]) -> tuple[Dockerfile, LowerOptions]:
    options = json.loads(sections.get("options.json", "{}"))
    contexts = {
        name: NamedContext("local", name) if value == "local" else NamedContext("image", value.partition("//")[2])
        for name, value in options.get("contexts", {}).items()
    }
    platform = options.get("platform")
    request = LowerOptions(
        target=options.get("target", ""),
        build_args=options.get("build_args", {}),
        labels=options.get("labels", {}),
        target_platform=parse_platform(platform) if platform else AMD64,
        build_platform=AMD64,
        explicit_platform=bool(platform),
        contexts=contexts,
        ignore=parse_ignore(sections.get("context/.dockerignore", "").encode()),
        allow=frozenset(("network.host", "security.insecure")),
    )
    text = sections["Dockerfile"].replace("<CR>", "\r").replace("<BOM>", "\ufeff")
    return parse(text.encode(), "Dockerfile"), request


def plan_of(sections: dict[str, str]) -> Plan:
    dockerfile, request = request_of(sections)
    images = Images()
    foretold = [reference.familiar() for reference, _ in Lowering(dockerfile, request).base_images()]
    plan = lower(dockerfile, request, images)
    assert set(foretold) <= set(images.asked)
    return plan


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_as_buildkit(case: Path) -> None:
    sections = read_txtar(case.read_text())
    expected = json.loads(sections["expected.json"])
    if "steps" not in expected:
        with pytest.raises(ShiplapError) as caught:
            plan_of(sections)
        assert expected["error"] == caught.value.message
        if isinstance(caught.value, DockerfileError):
            assert caught.value.where is not None and caught.value.where.line and caught.value.where.text
            assert caught.value.code != "dockerfile"
        return
    plan = plan_of(sections)
    if expected["steps"] is not None:
        assert shape.steps(plan) == expected["steps"]
    remarks, error = check(*request_of(sections), Images())
    if error is None:
        assert shape.warnings(remarks) == expected.get("warnings", [])
    if "config" in expected:
        found = shape.config(plan)
        assert found["config"] == expected["config"]
        assert found["history"] == expected["history"]
        assert sum(kind == "layer" for _, kind, _ in found["history"]) == expected["layers"]


def test_there_are_cases() -> None:
    assert len(CASES) > 50
