"""``push`` of an index of which the store has a part: an error that names the rest, or one platform alone."""

from __future__ import annotations

import json

import pytest
from tests.unit.images.conftest import Shelf, layer_tar

from shiplap.api.images import tag
from shiplap.api.transfer import pull, push
from shiplap.errors import ShiplapError
from shiplap.oci import media_types
from shiplap.settings import Settings


def quietly(fact: object) -> None:
    """Nobody listens."""


def pulled(shelf: Shelf, settings: Settings, new: str) -> str:
    """Pull ``base:multi`` for one platform of two, and call it ``new`` too; the name."""
    pull(f"{shelf.registry.host}/base:multi", "linux/amd64", settings, quietly)
    name = f"{shelf.registry.host}/{new}"
    tag(f"{shelf.registry.host}/base:multi", name, settings)
    return name


def test_what_is_missing_is_named(shelf: Shelf, multi: str, settings: Settings) -> None:
    name = pulled(shelf, settings, "new:1")
    with pytest.raises(ShiplapError) as raised:
        push(name, settings, quietly)
    assert raised.value.code == "incomplete-image"
    assert str(raised.value) == f"{name} has only linux/amd64 of its platforms here, not linux/arm64"
    assert "--platform" in raised.value.hint and "shiplap copy docker://" in raised.value.hint
    # Nothing went there but the question.
    assert not [seen for seen in shelf.registry.requests if seen.method in ("PUT", "POST", "PATCH")]


def test_one_platform_alone(shelf: Shelf, multi: str, settings: Settings) -> None:
    name = pulled(shelf, settings, "new:1")
    push(name, settings, quietly, "linux/amd64")
    there = shelf.registry.repositories["new"]
    entries = json.loads(shelf.registry.repositories["base"].manifests[multi][1])["manifests"]
    assert there.tags == {"1": entries[0]["digest"]}
    with pytest.raises(ShiplapError) as raised:
        push(name, settings, quietly, "linux/s390x")
    assert raised.value.code == "no-such-platform"
    with pytest.raises(ShiplapError) as raised:
        push(name, settings, quietly, "linux/arm64")
    assert str(raised.value) == f"{name} is here without linux/arm64"
    # As it says: one more, and the index is whole.
    pull(f"{shelf.registry.host}/base:multi", "linux/arm64", settings, quietly)
    push(name, settings, quietly)
    assert there.tags == {"1": multi}


def test_what_the_repository_has_need_not_be_here(shelf: Shelf, multi: str, settings: Settings) -> None:
    name = pulled(shelf, settings, "base:again")
    push(name, settings, quietly)
    assert shelf.registry.repositories["base"].tags["again"] == multi


def test_an_index_without_platforms(shelf: Shelf, settings: Settings) -> None:
    first = shelf.image("odd", "1", layer_tar(("a", b"a")))
    second = shelf.image("odd", "2", layer_tar(("b", b"b")))
    del second["platform"]
    shelf.index("odd", "both", first, second)
    pull(f"{shelf.registry.host}/odd:both", "linux/amd64", settings, quietly)
    name = f"{shelf.registry.host}/else:1"
    tag(f"{shelf.registry.host}/odd:both", name, settings)
    with pytest.raises(ShiplapError, match=f"has only linux/amd64 of its platforms here, not {second['digest']}"):
        push(name, settings, quietly)
    assert first["mediaType"] == media_types.OCI_MANIFEST
