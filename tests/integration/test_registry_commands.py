"""``copy`` and ``imagetools`` between registries of different makes, layouts and archives; skopeo reads it all back."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from kit import Shiplap
from registries import Served

ARCHITECTURES = ("amd64", "arm64")


@pytest.fixture
def home(tmp_path: Path, real: Served) -> Shiplap:
    """shiplap, logged in, with an image of two platforms in the registry: ``made:both``, ``made:amd64``, ``made:arm64``."""
    shiplap = real.known_to(Shiplap(tmp_path / "store", cwd=tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH common /\n")
    (tmp_path / "common").write_bytes(bytes(range(256)) * 400)
    for name in ARCHITECTURES:
        (tmp_path / name).write_text(name)
        shiplap.run("build", "-q", f"--platform=linux/{name}", "-t", f"{real.host}/made:{name}", "--push", ".")
    both = "--platform=" + ",".join(f"linux/{name}" for name in ARCHITECTURES)
    shiplap.run("build", "-q", both, "-t", f"{real.host}/made:both", "--push", ".")
    return shiplap


def digest_at(home: Shiplap, location: str) -> str:
    return str(json.loads(home.run("inspect", location).stdout)[0]["Digest"])


def test_from_place_to_place_and_back(home: Shiplap, real: Served, tmp_path: Path) -> None:
    source = f"docker://{real.host}/made:both"
    digest = digest_at(home, source)
    way = [
        source,
        f"docker://{real.host}/other/made:1",
        f"oci:{tmp_path}/layout:1",
        f"oci-archive:{tmp_path}/made.tar:1",
    ]
    way += ["store:moved:1", f"docker://{real.host}/back/made:1"]
    for before, after in pairwise(way):
        home.run("copy", before, after)
        assert digest_at(home, after) == digest
    target = tmp_path / "by-skopeo"
    real.skopeo("copy", "--all", "--preserve-digests", f"docker://{real.host}/back/made:1", f"oci:{target}:1")
    index = json.loads((target / "index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [digest]
    ours, theirs = (
        {path.name: path.read_bytes() for path in (folder / "blobs/sha256").iterdir()}
        for folder in (tmp_path / "layout", target)
    )
    assert ours == theirs


def test_images_are_joined_and_shown(home: Shiplap, real: Served) -> None:
    parts = [f"{real.host}/made:{name}" for name in ARCHITECTURES]
    joined = f"{real.host}/joined/made:1"
    home.run("imagetools", "create", "-t", joined, "--annotation", "index:who=test", *parts)
    raw = home.run("imagetools", "inspect", "--raw", joined).stdout
    assert raw == real.skopeo("inspect", "--raw", f"docker://{joined}").rstrip("\n")
    index = json.loads(raw)
    assert [entry["digest"] for entry in index["manifests"]] == [digest_at(home, f"docker://{part}") for part in parts]
    assert index["annotations"] == {"who": "test"}
    shown = home.run("imagetools", "inspect", joined).stdout
    assert re.findall(r"Platform: +(\S+)", shown) == [f"linux/{name}" for name in ARCHITECTURES]
    for name in ARCHITECTURES:
        config = real.skopeo("--override-arch", name, "inspect", "--config", f"docker://{joined}")
        assert json.loads(config)["architecture"] == name


def test_attestations_come_along(home: Shiplap, real: Served, tmp_path: Path) -> None:
    name = f"{real.host}/attested:1"
    home.run("build", "-q", "--provenance=mode=min", "-t", name, "-o", "type=registry,referrers=true", ".")
    digest = digest_at(home, f"docker://{name}")
    places = [f"docker://{name}", f"oci:{tmp_path}/attested:1", f"docker://{real.host}/far/attested:1"]
    for before, after in pairwise(places):
        assert home.run("copy", "--referrers", before, after).stdout.strip() == digest

    def listed(repository: str) -> list[str]:
        raw = real.skopeo("inspect", "--raw", f"docker://{real.host}/{repository}:{digest.replace(':', '-')}")
        return [entry["digest"] for entry in json.loads(raw)["manifests"]]

    assert listed("far/attested") == listed("attested") != []
    found = real.skopeo("inspect", "--raw", f"docker://{real.host}/far/attested@{listed('far/attested')[0]}")
    assert json.loads(found)["subject"]["digest"] == digest


def test_what_is_not_there_or_not_allowed(home: Shiplap, real: Served) -> None:
    missing = home.run("copy", f"docker://{real.host}/made:never", "store:x", check=False)
    assert missing.returncode == 1 and "404 Not Found" in missing.stderr and "try: check" in missing.stderr
    if real.make == "zuul-registry":
        nobody = home.run("copy", f"docker://{real.host}/made:both", "store:x", check=False, HOME=str(home.root))
        assert nobody.returncode == 1 and "certificate not accepted" in nobody.stderr
