"""Dates of an image's history, as BuildKit gives them; and what an assembled image says of itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from shiplap.export.image import Packing, assemble, date_history
from shiplap.oci.config import History, empty_config
from shiplap.oci.platform import parse_platform
from shiplap.store.store import Store

BASE = History(created="2020-01-01T00:00:00Z", created_by="base")
LAYER = History(created_by="RUN x")
EMPTY = History(created_by="ENV a=b", empty_layer=True)
DAY = 86400.0


def dates(entries: list[History], times: list[float | None], epoch: int | None = None) -> list[str | None]:
    return [entry.created and entry.created[:10] for entry in date_history(entries, times, epoch)]


@pytest.mark.parametrize(
    ("entries", "times", "expected"),
    [
        ([LAYER], [DAY], ["1970-01-02"]),
        ([BASE, LAYER], [None, DAY], ["2020-01-01", "1970-01-02"]),
        ([LAYER, EMPTY], [DAY], ["1970-01-02", "1970-01-02"]),
        ([EMPTY, LAYER, EMPTY, LAYER], [DAY, 2 * DAY], ["1970-01-02", "1970-01-02", "1970-01-02", "1970-01-03"]),
        ([BASE, EMPTY, LAYER], [None, DAY], ["2020-01-01", "1970-01-02", "1970-01-02"]),
        ([EMPTY], [], [None]),
        ([], [], []),
    ],
    ids=["layer", "after a base", "empty after", "empty between", "empty before", "nothing is dated", "nothing"],
)
def test_each_entry_gets_a_time(entries: list[History], times: list[float | None], expected: list[str | None]) -> None:
    assert dates(entries, times) == expected


def test_no_time_is_later_than_the_epoch() -> None:
    # BuildKit's rule: what stands before the first new layer that has a time takes that time, here the last one's.
    assert dates([LAYER, EMPTY, LAYER], [DAY, 9 * DAY]) == ["1970-01-02", "1970-01-10", "1970-01-10"]
    assert dates([LAYER, EMPTY, LAYER], [DAY, 9 * DAY], int(3 * DAY)) == ["1970-01-02", "1970-01-04", "1970-01-04"]


def test_layers_that_no_entry_speaks_of_get_one() -> None:
    dated = date_history([LAYER], [DAY, 2 * DAY], None)
    assert len(dated) == 2
    assert "exporter" in dated[1].comment and (dated[1].created or "").startswith("1970-01-03")


def test_entries_without_a_layer_become_empty() -> None:
    first, second = date_history([LAYER, LAYER], [DAY], None)
    assert (first.empty_layer, second.empty_layer) == (False, True)


def built(store: Store, *, packing: Packing | None = None) -> dict[str, object]:
    with store.snapshots.draft("") as draft:
        path = Path(draft.diff, "f")
        path.write_text("data")
        os.utime(path, (1, 1))
        snapshot = draft.commit().id
    config = msgspec.structs.replace(empty_config(parse_platform("linux/arm64")), history=(LAYER, EMPTY))
    made = assemble(store, snapshot, config, packing or Packing(), epoch=1)
    manifest = json.loads(store.blobs.read(made.manifest.digest))
    return {"config": json.loads(store.blobs.read(made.config)), "manifest": manifest, "descriptor": made.manifest}


def test_an_image_says_when_and_of_what_it_was_made(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        image = built(store)
    config = image["config"]
    assert isinstance(config, dict)
    assert config["created"] == "1970-01-01T00:00:01Z"
    assert [entry["created"] for entry in config["history"]] == ["1970-01-01T00:00:01Z"] * 2
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    assert len(config["rootfs"]["diff_ids"]) == 1


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_compression_changes_layers_and_not_what_is_in_them(tmp_path: Path, compression: str) -> None:
    with Store(tmp_path / "s") as store:
        plain = built(store)
        other = built(store, packing=Packing(compression=compression))
    assert plain["config"] == other["config"]
    (layer,) = other["manifest"]["layers"]  # type: ignore[index]
    ending = {"gzip": "+gzip", "zstd": "+zstd", "uncompressed": ".tar"}[compression]
    assert layer["mediaType"].endswith(ending)
    assert (plain["manifest"] == other["manifest"]) == (compression == "gzip")


def test_dockers_media_types_are_used_throughout(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        manifest = built(store, packing=Packing(docker_types=True))["manifest"]
    assert isinstance(manifest, dict)
    types = {manifest["mediaType"], manifest["config"]["mediaType"], manifest["layers"][0]["mediaType"]}
    assert all(kind.startswith("application/vnd.docker.") for kind in types) and len(types) == 3
