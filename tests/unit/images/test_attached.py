"""``copy --referrers``: what refers to an image goes where it goes, and is found there in the way of that place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.unit.images.conftest import Shelf, sha256

from shiplap.api.looking import inspect
from shiplap.api.moving import copy, load
from shiplap.errors import ShiplapError
from shiplap.events.facts import Warned
from shiplap.oci import media_types
from shiplap.oci.referrer import referrers_tag
from shiplap.registry.memory import MemoryRegistry
from shiplap.settings import Settings

SIGNATURE, SBOM = "application/vnd.example.signature", "application/spdx+json"
EMPTY = b"{}"


def attach(shelf: Shelf, repository: str, subject: dict[str, Any], kind: str, content: bytes) -> dict[str, Any]:
    """A manifest of ``kind`` about ``subject``, in the repository by its digest; its descriptor."""
    registry = shelf.registry
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(EMPTY), "size": len(EMPTY)},
        "layers": [{"mediaType": kind, "digest": registry.add_blob(repository, content), "size": len(content)}],
        "subject": {key: subject[key] for key in ("mediaType", "digest", "size")},
        # Such a name says nothing of what the layout calls it.
        "annotations": {"made.by": "test", "org.opencontainers.image.ref.name": "taken"},
    }
    registry.add_blob(repository, EMPTY)
    raw = json.dumps(manifest, indent=2).encode()
    digest = registry.add_manifest(repository, "", raw, media_types.OCI_MANIFEST)
    return {"mediaType": media_types.OCI_MANIFEST, "digest": digest, "size": len(raw), "artifactType": kind}


def described(shelf: Shelf, repository: str, digest: str) -> dict[str, Any]:
    kind, raw = shelf.registry.repositories[repository].manifests[digest]
    return {"mediaType": kind, "digest": digest, "size": len(raw)}


@pytest.fixture
def signed(shelf: Shelf, multi: str) -> list[str]:
    """``base:multi`` with a signature of its index, a list of packages of its second platform, and a signature of that list.

    The digests of the three. The registry has the referrers API, two entries a page.
    """
    shelf.registry.referrers = 2
    root = described(shelf, "base", multi)
    index = json.loads(shelf.registry.repositories["base"].manifests[multi][1])
    first = attach(shelf, "base", root, SIGNATURE, b"signed the index")
    second = attach(shelf, "base", index["manifests"][1], SBOM, b"packages of arm64")
    third = attach(shelf, "base", second, SIGNATURE, b"signed the list")
    return [first["digest"], second["digest"], third["digest"]]


@pytest.fixture
def plain() -> Iterator[Shelf]:
    """Another registry, without a referrers API."""
    with MemoryRegistry() as registry:
        yield Shelf(registry)


def attached_at(shelf: Shelf, repository: str, subject: str) -> list[dict[str, Any]]:
    """What the list under the tag of ``subject`` has."""
    there = shelf.registry.repositories[repository]
    kind, raw = there.manifests[there.tags[referrers_tag(subject)]]
    assert kind == media_types.OCI_INDEX
    return list(json.loads(raw)["manifests"])


@pytest.mark.parametrize("way", [(), ("oci:{}/lay:1",), ("oci-archive:{}/x.tar:1", "oci:{}/lay:1")])
def test_all_come_along_to_a_registry_without_the_api(
    way: tuple[str, ...], shelf: Shelf, plain: Shelf, multi: str, signed: list[str], settings: Settings, tmp_path: Path
) -> None:
    places = [shelf.place("base", "multi"), *(text.format(tmp_path) for text in way), plain.place("new", "1")]
    for source, target in pairwise(places):
        assert copy(source, target, settings, referrers=True).digest == multi
    first, second, third = signed
    before, after = shelf.registry.repositories["base"], plain.registry.repositories["new"]
    for digest in signed:
        assert after.manifests[digest] == before.manifests[digest]
    assert after.blobs.items() >= before.blobs.items()
    (entry,) = attached_at(plain, "new", multi)
    assert (entry["digest"], entry["artifactType"]) == (first, SIGNATURE)
    assert entry["annotations"] == {"made.by": "test", "org.opencontainers.image.ref.name": "taken"}
    arm64 = json.loads(before.manifests[multi][1])["manifests"][1]["digest"]
    assert [each["digest"] for each in attached_at(plain, "new", arm64)] == [second]
    assert [each["digest"] for each in attached_at(plain, "new", second)] == [third]
    # And from there by the tag: into one with the API again, and once more, which changes nothing.
    for _ in range(2):
        copy(plain.place("new", "1"), shelf.place("back", "1"), settings, referrers=True)
        there = shelf.registry.repositories["back"]
        assert set(there.manifests) == set(before.manifests) and set(there.tags) == {"1"}


def test_one_platform_and_what_refers_to_it(
    shelf: Shelf, plain: Shelf, multi: str, signed: list[str], settings: Settings
) -> None:
    copied = copy(
        shelf.place("base", "multi"), plain.place("one", "1"), settings, platform="linux/arm64", referrers=True
    )
    assert set(plain.registry.repositories["one"].manifests) >= {copied.digest, *signed[1:]}
    assert signed[0] not in plain.registry.repositories["one"].manifests
    copy(shelf.place("base", "multi"), plain.place("bare", "1"), settings)
    assert not set(plain.registry.repositories["bare"].manifests) & set(signed)


def test_signatures_are_there_before_the_tag_is(
    shelf: Shelf, plain: Shelf, multi: str, signed: list[str], settings: Settings
) -> None:
    copy(shelf.place("base", "multi"), plain.place("new", "1"), settings, referrers=True)
    written = [seen.target for seen in plain.registry.requests if seen.method == "PUT" and "/manifests/" in seen.target]
    assert written[-1] == "/v2/new/manifests/1"


def test_a_layout_has_them_as_entries_that_are_no_images(
    shelf: Shelf, multi: str, signed: list[str], settings: Settings, tmp_path: Path
) -> None:
    for _ in range(2):
        copy(shelf.place("base", "multi"), f"oci:{tmp_path}/lay", settings, referrers=True)
        entries = json.loads((tmp_path / "lay/index.json").read_text())["manifests"]
        assert [entry["digest"] for entry in entries] == [multi, *signed]
    assert [entry.get("artifactType") for entry in entries] == [None, SIGNATURE, SBOM, SIGNATURE]
    assert all("org.opencontainers.image.ref.name" not in entry["annotations"] for entry in entries[1:])
    # It is one image, though there are four entries.
    assert inspect(f"oci:{tmp_path}/lay", settings)["Digest"] == multi
    assert load(f"{tmp_path}/lay", settings) == [f"{shelf.registry.host}/base:multi"]
    assert inspect(f"oci:{tmp_path}/lay@{signed[0]}", settings)["Digest"] == signed[0]


def test_a_layout_with_lists_under_tags(
    shelf: Shelf, plain: Shelf, multi: str, signed: list[str], settings: Settings, tmp_path: Path
) -> None:
    """As regctl writes it: the index of the tag fallback, under its tag."""
    copy(shelf.place("base", "multi"), f"oci:{tmp_path}/lay:1", settings, referrers=True)
    index = json.loads((tmp_path / "lay/index.json").read_text())
    image, *referrers = index["manifests"]
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": referrers[:1]}).encode()
    (tmp_path / "lay/blobs/sha256" / sha256(raw)[7:]).write_bytes(raw)
    listed = {"mediaType": media_types.OCI_INDEX, "digest": sha256(raw), "size": len(raw)}
    listed["annotations"] = {"org.opencontainers.image.ref.name": referrers_tag(multi)}
    (tmp_path / "lay/index.json").write_text(json.dumps(index | {"manifests": [image, listed]}))
    copy(f"oci:{tmp_path}/lay", plain.place("new", "1"), settings, referrers=True)
    assert [entry["digest"] for entry in attached_at(plain, "new", multi)] == [signed[0]]


@pytest.mark.parametrize("target", ["store:x", "docker-archive:{}/x.tar", "docker-daemon:x"])
def test_places_that_hold_none_are_refused(
    target: str, shelf: Shelf, signed: list[str], settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(ShiplapError) as raised:
        copy(shelf.place("base", "multi"), target.format(tmp_path), settings, referrers=True)
    assert raised.value.code == "no-referrers" and "docker://" in raised.value.hint
    assert not (tmp_path / "x.tar").exists()


def test_what_a_list_says_in_error_is_left_out(
    shelf: Shelf, plain: Shelf, multi: str, settings: Settings, tmp_path: Path
) -> None:
    copy(shelf.place("base", "multi"), plain.place("old", "1"), settings)
    other = described(plain, "old", multi) | {"digest": "sha256:" + "1" * 64}
    stray = attach(plain, "old", other, SIGNATURE, b"of another")
    gone = stray | {"digest": "sha256:" + "2" * 64}
    listed = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [stray, gone]}
    plain.registry.add_manifest("old", referrers_tag(multi), json.dumps(listed).encode(), media_types.OCI_INDEX)
    told: list[object] = []
    copy(plain.place("old", "1"), shelf.place("new", "1"), settings, told.append, referrers=True)
    assert stray["digest"] not in shelf.registry.repositories["new"].manifests
    warnings = [fact.message for fact in told if isinstance(fact, Warned)]
    assert [text.rpartition(", but ")[2] for text in warnings[:2]] == [
        "it does not: left out",
        "has it no more: left out",
    ]
    assert "the image is copied alone" in warnings[2]
