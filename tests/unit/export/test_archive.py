"""Archives and layouts: what other tools read, whole or not there."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.errors import ExportError, StoreError, UsageError
from shiplap.export.archive import index_json, layout_files, replacing, write_archive, write_layout
from shiplap.export.image import Assembled, Packing, assemble
from shiplap.oci.config import empty_config
from shiplap.oci.manifest import Descriptor, encode_json
from shiplap.oci.media_types import OCI_INDEX
from shiplap.oci.platform import parse_platform
from shiplap.store.store import Store

CREATED = "2024-01-02T03:04:05Z"
NAMES = ["docker.io/library/app:1", "registry.example:5000/team/app:2"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


def image(store: Store, packing: Packing | None = None) -> Assembled:
    """An image of one layer that holds one file."""
    with store.snapshots.draft("") as draft:
        path = Path(draft.diff, "f")
        path.write_text("data")
        os.utime(path, (1, 1))
        snapshot = draft.commit().id
    config = empty_config(parse_platform("linux/amd64"))
    return assemble(store, snapshot, config, packing or Packing(), epoch=0)


def packed(store: Store, root: Descriptor, docker: bool = False) -> bytes:
    out = io.BytesIO()
    write_archive(store, layout_files(store, root, NAMES, CREATED, docker), out)
    return out.getvalue()


def test_an_index_has_an_entry_for_each_name() -> None:
    root = Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 7)
    entries = json.loads(index_json(root, NAMES, CREATED))["manifests"]
    assert [entry["annotations"] for entry in entries] == [
        {
            "io.containerd.image.name": name,
            "org.opencontainers.image.created": CREATED,
            "org.opencontainers.image.ref.name": tag,
        }
        for name, tag in zip(NAMES, ("1", "2"))
    ]
    assert {entry["digest"] for entry in entries} == {root.digest}
    (unnamed,) = json.loads(index_json(root, [], ""))["manifests"]
    assert "annotations" not in unnamed


def test_an_archive_holds_every_blob_and_nothing_twice(store: Store) -> None:
    made = image(store)
    with tarfile.open(fileobj=io.BytesIO(packed(store, made.manifest))) as archive:
        names = archive.getnames()
        assert names == sorted(names) and len(names) == len(set(names))
        manifest = json.loads(archive.extractfile(f"blobs/sha256/{made.manifest.digest[7:]}").read())  # type: ignore[union-attr]
        blobs = {made.manifest.digest, made.config, *(layer["digest"] for layer in manifest["layers"])}
        assert {f"blobs/sha256/{digest[7:]}" for digest in blobs} | {
            "blobs",
            "blobs/sha256",
            "index.json",
            "oci-layout",
        } == set(names)
        for member in archive.getmembers():
            assert (member.uid, member.gid, member.uname, member.mtime) == (0, 0, "", 0)
            assert member.mode == (0o755 if member.isdir() else 0o444)


def test_the_same_image_gives_the_same_bytes(store: Store, tmp_path: Path) -> None:
    first = packed(store, image(store).manifest)
    with Store(tmp_path / "another") as other:
        assert packed(other, image(other).manifest) == first


def test_a_docker_archive_says_the_same_in_dockers_words(store: Store) -> None:
    made = image(store)
    with tarfile.open(fileobj=io.BytesIO(packed(store, made.manifest, docker=True))) as archive:
        (entry,) = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert entry["Config"] == f"blobs/sha256/{made.config[7:]}"
        assert entry["RepoTags"] == ["app:1", "registry.example:5000/team/app:2"]
        assert all(layer in archive.getnames() for layer in entry["Layers"])


def test_an_index_is_no_docker_archive(store: Store) -> None:
    child = image(store).manifest
    raw = encode_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]})
    root = Descriptor(OCI_INDEX, store.blobs.write(raw), len(raw))
    assert f"blobs/sha256/{child.digest[7:]}" in dict(layout_files(store, root, NAMES, CREATED, docker=False))
    with pytest.raises(ExportError) as caught:
        layout_files(store, root, NAMES, CREATED, docker=True)
    assert caught.value.code == "docker-index"


def test_a_layout_is_written_over_an_earlier_one(store: Store, tmp_path: Path) -> None:
    made = image(store)
    directory = tmp_path / "layout"
    for _ in range(2):
        write_layout(store, layout_files(store, made.manifest, NAMES, CREATED, docker=False), directory)
    assert sorted(os.listdir(directory)) == ["blobs", "index.json", "oci-layout"]
    assert (directory / "blobs/sha256" / made.config[7:]).read_bytes() == store.blobs.read(made.config)
    assert json.loads((directory / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_a_damaged_blob_is_not_passed_on(store: Store, tmp_path: Path) -> None:
    made = image(store)
    files = layout_files(store, made.manifest, NAMES, CREATED, docker=False)
    path = store.blobs.path(made.config)
    path.write_bytes(path.read_bytes().replace(b"linux", b"linuX"))
    with pytest.raises(StoreError) as caught:
        write_layout(store, files, tmp_path / "layout")
    assert caught.value.code == "blob-corrupt"
    assert not (tmp_path / "layout/blobs/sha256" / made.config[7:]).exists()
    assert not (tmp_path / "layout/index.json").exists()


def test_a_file_is_replaced_only_when_all_went_well(tmp_path: Path) -> None:
    file = tmp_path / "x.tar"
    file.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(file) as out:
        out.write(b"half")
        raise ZeroDivisionError
    assert (file.read_text(), os.listdir(tmp_path)) == ("before", ["x.tar"])
    with replacing(file) as out:
        out.write(b"after")
    assert (file.read_text(), os.listdir(tmp_path)) == ("after", ["x.tar"])


def test_a_place_that_cannot_be_written_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught, replacing(tmp_path / "no" / "x.tar"):
        pytest.fail("it was opened")
    assert caught.value.code == "cannot-write"


@pytest.mark.parametrize(
    "packing",
    [Packing(compression="brotli"), Packing(compression="zstd", docker_types=True)],
    ids=["unknown", "docker"],
)
def test_a_packing_that_cannot_be(store: Store, packing: Packing) -> None:
    with pytest.raises(UsageError) as caught:
        image(store, packing)
    assert caught.value.code == "invalid-compression"
