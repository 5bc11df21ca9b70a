"""What one does with the images of a store, without the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import shiplap
from shiplap.api.images import list_images
from shiplap.settings import load


def test_an_image_without_a_name_is_listed_until_it_gets_one(tmp_path: Path) -> None:
    settings = load({}, root=str(tmp_path / "store"), home=str(tmp_path))

    def build(label: str, *tags: str) -> str:
        data = f"FROM scratch\nLABEL a={label}\n".encode()  # without layers: the same each time
        return shiplap.build("-", context_data=data, tags=tags, root=tmp_path / "store", environ={}).digest

    one, other = build("one"), build("other")
    assert {(row.name, row.digest) for row in list_images(settings)} == {("", one), ("", other)}
    assert build("one", "app") == one
    assert {(row.name, row.digest) for row in list_images(settings)} == {("app:latest", one), ("", other)}


def test_from_with_a_digest_needs_no_registry_where_the_store_has_it(tmp_path: Path) -> None:
    def build(text: str, *tags: str) -> shiplap.Result:
        return shiplap.build("-", context_data=text.encode(), tags=tags, root=tmp_path / "store", environ={})

    base = build("FROM scratch\nWORKDIR /a\n", "example.invalid/base:1")
    for name in ("example.invalid/base:1", "example.invalid/base", "another.invalid/mirror:2"):
        pinned = build(f"FROM {name}@{base.digest}\nWORKDIR /b\n")
        assert any(base.digest in step for step in pinned.steps_run + pinned.steps_reused)
    with pytest.raises(shiplap.ShiplapError, match="refused"):
        build("FROM 127.0.0.1:1/base@sha256:" + "0" * 64 + "\n")
