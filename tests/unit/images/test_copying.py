"""From every place to every place: the same bytes, nothing sent twice, nothing half there."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.kit import wait_for
from tests.unit.images.conftest import Shelf, layer_tar, sha256

from shiplap.api.looking import history, inspect
from shiplap.api.moving import copy, load, save
from shiplap.errors import ShiplapError, UsageError
from shiplap.layers.compression import zstd_module
from shiplap.oci.platform import native_platform
from shiplap.registry.memory import Fault
from shiplap.settings import Settings
from shiplap.store.store import Store

PLACES = ("store", "registry", "oci", "oci-archive", "docker-archive")


def place(kind: str, name: str, shelf: Shelf, directory: Path) -> str:
    return {
        "store": f"{name}:1",
        "registry": shelf.place(name, "1"),
        "oci": f"oci:{directory}/{name}:1",
        "oci-archive": f"oci-archive:{directory}/{name}.tar:1",
        "docker-archive": f"docker-archive:{directory}/{name}.docker.tar:{name}:1",
    }[kind]


@pytest.mark.parametrize("target", PLACES)
@pytest.mark.parametrize("source", PLACES)
def test_digests_stay_whatever_the_way(
    source: str, target: str, shelf: Shelf, multi: str, settings: Settings, tmp_path: Path
) -> None:
    first, second = place(source, "first", shelf, tmp_path), place(target, "second", shelf, tmp_path)
    assert copy(shelf.place("base", "multi"), first, settings, everything=True).digest == multi
    assert copy(first, second, settings, everything=True).digest == multi
    back = shelf.place("back", "1")
    assert copy(second, back, settings, everything=True).digest == multi
    base, there = shelf.registry.repositories["base"], shelf.registry.repositories["back"]
    assert there.blobs == base.blobs
    assert {digest: there.manifests[digest] for digest in there.manifests} == base.manifests
    assert inspect(second, settings, "linux/arm64")["Digest"] == multi


def test_one_platform_alone(shelf: Shelf, multi: str, settings: Settings, tmp_path: Path) -> None:
    source = shelf.place("base", "multi")
    copied = copy(source, f"oci:{tmp_path}/lay:1", settings, platform="linux/arm64")
    assert copied.digest != multi
    assert inspect(f"oci:{tmp_path}/lay", settings)["Platform"] == "linux/arm64"
    # What docker reads holds one platform, unless all are asked for.
    copy(source, f"docker-archive:{tmp_path}/one.tar", settings)
    alone = inspect(f"docker-archive:{tmp_path}/one.tar", settings)
    assert (alone["Platform"], alone["Digest"]) == (str(native_platform()), alone["ManifestDigest"])
    with pytest.raises(ShiplapError, match="offers: linux/amd64, linux/arm64"):
        copy(source, f"oci:{tmp_path}/lay:2", settings, platform="linux/s390x")
    assert not (tmp_path / "none.tar").exists()


def test_within_a_registry_blobs_are_mounted_and_known_ones_left(shelf: Shelf, multi: str, settings: Settings) -> None:
    copy(shelf.place("base", "multi"), shelf.place("other", "1"), settings)
    requests = [f"{seen.method} {seen.target}" for seen in shelf.registry.requests]
    assert not [text for text in requests if re.match("(PUT|PATCH) .*/blobs/", text)]
    assert not [text for text in requests if re.match("GET .*/blobs/", text)]
    assert sum("mount=" in text for text in requests) == len(shelf.registry.repositories["base"].blobs)
    before = len(requests)
    copy(shelf.place("base", "multi"), shelf.place("other", "2"), settings)
    again = [f"{seen.method} {seen.target}" for seen in shelf.registry.requests][before:]
    assert not [text for text in again if text.startswith("POST")]


def test_what_is_in_the_store_is_not_fetched_again(shelf: Shelf, multi: str, settings: Settings) -> None:
    copy(shelf.place("base", "multi"), "one:1", settings)
    count = len(shelf.registry.requests)
    copy(shelf.place("base", "multi"), "two:1", settings)
    again = [seen.target for seen in shelf.registry.requests[count:]]
    assert not [target for target in again if "/blobs/" in target]


def test_a_layout_keeps_its_other_images(shelf: Shelf, multi: str, settings: Settings, tmp_path: Path) -> None:
    shelf.image("more", "1", layer_tar(("b", b"b")))
    lay = f"oci:{tmp_path}/lay"
    copy(shelf.place("base", "multi"), f"{lay}:a", settings)
    copy(shelf.place("more", "1"), f"{lay}:b", settings)
    copy(shelf.place("more", "1"), f"{lay}:a", settings)
    index = json.loads((tmp_path / "lay/index.json").read_text())
    tags = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]]
    assert sorted(tags) == ["a", "b"]
    assert inspect(f"{lay}:a", settings)["Digest"] == inspect(f"{lay}:b", settings)["Digest"] != multi
    assert inspect(f"{lay}@{multi}", settings)["Digest"] == multi  # its blobs are there still
    with pytest.raises(ShiplapError, match="has no image c; it has"):
        inspect(f"{lay}:c", settings)
    assert not [name for name in os.listdir(tmp_path / "lay") if name.startswith(".")]


def test_two_at_once_into_one_layout_lose_nothing(shelf: Shelf, settings: Settings, tmp_path: Path) -> None:
    for number in range(6):
        shelf.image(f"n{number}", "1", layer_tar(("f", str(number).encode())))
    threads = [
        threading.Thread(target=copy, args=(shelf.place(f"n{n}", "1"), f"oci:{tmp_path}/lay:{n}", settings))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "lay/index.json").read_text())["manifests"]) == 6


def test_a_directory_with_other_things_is_left_alone(
    shelf: Shelf, multi: str, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("dear")
    with pytest.raises(ShiplapError) as raised:
        copy(shelf.place("base", "multi"), f"oci:{tmp_path}/home:1", settings)
    assert raised.value.code == "not-a-layout"
    assert os.listdir(tmp_path / "home") == ["letter"]


@pytest.mark.parametrize("target", ["oci-archive:{}/x.tar", "oci:{}/lay", "store:x"])
def test_a_blob_with_other_bytes_never_arrives(target: str, shelf: Shelf, settings: Settings, tmp_path: Path) -> None:
    descriptor = shelf.image("bad", "1", layer_tar(("f", b"x" * 5000)))
    copy(shelf.place("bad", "1"), f"oci:{tmp_path}/from:1", settings)
    manifest = json.loads((tmp_path / "from/blobs/sha256" / descriptor["digest"][7:]).read_text())
    blob = tmp_path / "from/blobs/sha256" / manifest["layers"][0]["digest"][7:]
    data = bytearray(blob.read_bytes())
    data[30] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ShiplapError) as raised:
        copy(f"oci:{tmp_path}/from:1", target.format(tmp_path), settings)
    assert raised.value.code == "digest-mismatch"
    assert not (tmp_path / "x.tar").exists()
    assert not (tmp_path / "lay/index.json").exists()
    with pytest.raises(ShiplapError, match="no such image"):
        inspect("x", settings)


def test_a_connection_that_is_cut_is_resumed_on_the_way(shelf: Shelf, settings: Settings, tmp_path: Path) -> None:
    big = layer_tar(("big", os.urandom(3 << 20)))
    shelf.image("big", "1", big)
    digest = sha256(gzip.compress(big, mtime=0))
    shelf.registry.fault(Fault(f"GET .*/blobs/{digest}", cut_after=1 << 20))
    copy(shelf.place("big", "1"), f"oci-archive:{tmp_path}/x.tar", settings)
    assert history(f"oci-archive:{tmp_path}/x.tar", settings)[0]["digest"] == digest


def test_a_registry_gets_no_index_with_holes(shelf: Shelf, multi: str, settings: Settings, tmp_path: Path) -> None:
    copy(shelf.place("base", "multi"), f"oci:{tmp_path}/lay:1", settings)
    arm64 = json.loads((tmp_path / "lay/blobs/sha256" / multi[7:]).read_text())["manifests"][1]["digest"]
    (tmp_path / "lay/blobs/sha256" / arm64[7:]).unlink()
    with pytest.raises(ShiplapError) as raised:
        copy(f"oci:{tmp_path}/lay:1", shelf.place("new", "1"), settings)
    assert raised.value.code == "incomplete-image"
    assert "has only linux/amd64 of its platforms here, not linux/arm64" in str(raised.value)
    assert "new" not in shelf.registry.repositories
    # The store may have some platforms only, and hands on what it has.
    assert copy(f"oci:{tmp_path}/lay:1", "some:1", settings).digest == multi
    save(["some:1"], f"{tmp_path}/some.tar", settings)
    assert load(f"{tmp_path}/some.tar", settings) == ["docker.io/library/some:1"]


# -- save and load


def test_save_writes_several_images_into_one_archive(
    shelf: Shelf, multi: str, settings: Settings, tmp_path: Path
) -> None:
    shelf.image("more", "1", layer_tar(("b", b"b")))
    copy(shelf.place("base", "multi"), "base:multi", settings)
    copy(shelf.place("more", "1"), "more:1", settings)
    save(["base:multi", "more:1"], f"{tmp_path}/both.tar", settings)
    with tarfile.open(tmp_path / "both.tar") as archive:
        names = archive.getnames()
        assert names == sorted(names) and len(names) == len(set(names))
        docker = json.load(archive.extractfile("manifest.json") or pytest.fail())
    assert [item["RepoTags"] for item in docker] == [["base:multi"], ["more:1"]]
    other = settings._replace(root=str(tmp_path / "other"))
    assert load(f"{tmp_path}/both.tar", other) == ["docker.io/library/base:multi", "docker.io/library/more:1"]
    assert inspect("base:multi", other)["Digest"] == multi


def packed(data: bytes, how: str) -> bytes:
    if how == "zstd":
        return bytes(zstd_module().compress(data))
    return gzip.compress(data) if how == "gzip" else data


@pytest.mark.parametrize("kind", ["docker", "oci"])
@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_load_reads_archives_however_they_are_compressed(
    how: str, kind: str, shelf: Shelf, multi: str, settings: Settings, tmp_path: Path
) -> None:
    copy(shelf.place("base", "multi"), "base:multi", settings)
    save(["base:multi"], f"{tmp_path}/x.tar", settings, kind)
    (tmp_path / "x").write_bytes(packed((tmp_path / "x.tar").read_bytes(), how))
    other = settings._replace(root=str(tmp_path / "other"))
    assert load(f"{tmp_path}/x", other) == ["docker.io/library/base:multi"]
    assert inspect("base:multi", other)["Digest"] == multi
    assert os.listdir(tmp_path / "other/tmp") == []


@pytest.mark.parametrize("how", ["", "gzip"])
def test_load_reads_standard_input(how: str, shelf: Shelf, multi: str, settings: Settings, tmp_path: Path) -> None:
    copy(shelf.place("base", "multi"), "base:multi", settings)
    save(["base:multi"], f"{tmp_path}/x.tar", settings)
    data = packed((tmp_path / "x.tar").read_bytes(), how)
    command = [str(Path(sys.executable).with_name("shiplap")), "--root", str(tmp_path / "other"), "load"]
    done = subprocess.run(command, input=data, capture_output=True, check=True)  # a pipe: it cannot seek
    assert done.stdout == b"Loaded image: docker.io/library/base:multi\n"
    (tmp_path / "x").write_bytes(data)
    with open(tmp_path / "x", "rb") as file:
        assert subprocess.run(command, stdin=file, capture_output=True, check=True).stdout == done.stdout


def old_archive(path: Path, layers: list[tuple[str, bytes | str]], config: bytes, tags: list[str] | None) -> None:
    """As docker save wrote it before version 25: a directory a layer, links to layers that are there already."""
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes | str) -> None:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

        for name, data in layers:
            add(name, data)
        add("config.json", config)
        item = {"Config": "config.json", "RepoTags": tags, "Layers": [name for name, _ in layers]}
        add("manifest.json", json.dumps([item]).encode())


def test_load_reads_what_old_dockers_wrote(settings: Settings, tmp_path: Path) -> None:
    data = layer_tar(("f", b"f"))
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(data)] * 3}}
    ).encode()
    layers: list[tuple[str, bytes | str]] = [("aa/layer.tar", data), ("bb/layer.tar", "../aa/layer.tar")]
    layers.append(("cc/layer.tar", gzip.compress(data)))
    old_archive(tmp_path / "old.tar", layers, config, ["old:1", "old:2"])
    assert load(f"{tmp_path}/old.tar", settings) == ["docker.io/library/old:1", "docker.io/library/old:2"]
    shown = inspect("old:2", settings)
    assert shown["Id"] == sha256(config)
    kinds = [layer["mediaType"].rpartition(".")[2] for layer in shown["Manifest"]["layers"]]
    assert kinds == ["tar", "tar", "tar+gzip"]
    with Store(Path(settings.root)) as store:
        assert store.blobs.sound(sha256(data))
    old_archive(tmp_path / "none.tar", layers, config, None)
    assert load(f"{tmp_path}/none.tar", settings) == [shown["Digest"]]


@pytest.mark.parametrize(
    ("config", "layers", "why"),
    [
        (b"{}", [("a/layer.tar", b"x")], "another number of layers"),
        (b"[]", [], "cannot be read"),
        (json.dumps({"rootfs": {"diff_ids": [sha256(b"y")]}}).encode(), [("a/layer.tar", b"x")], "other bytes"),
    ],
)
def test_archives_that_lie(
    config: bytes, layers: list[tuple[str, bytes | str]], why: str, settings: Settings, tmp_path: Path
) -> None:
    old_archive(tmp_path / "bad.tar", layers, config, ["bad:1"])
    with pytest.raises(ShiplapError, match=why):
        load(f"{tmp_path}/bad.tar", settings)
    with pytest.raises(ShiplapError, match="no such image"):
        inspect("bad:1", settings)


def test_paths_of_an_archive_lead_nowhere(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    layers: list[tuple[str, bytes | str]] = [("a/layer.tar", str(tmp_path / "secret"))]
    config = json.dumps({"rootfs": {"diff_ids": [sha256(b"s")]}}).encode()
    old_archive(tmp_path / "bad.tar", layers, config, ["bad:1"])
    with pytest.raises(ShiplapError, match="lacks a/layer"):
        load(f"{tmp_path}/bad.tar", settings)


def test_what_is_no_archive(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(layer_tar(("etc/passwd", b"")))
    with pytest.raises(ShiplapError) as raised:
        load(f"{tmp_path}/x.tar", settings)
    assert raised.value.code == "not-an-archive"
    with pytest.raises(UsageError, match="No such file"):
        load(f"{tmp_path}/none.tar", settings)


def test_an_archive_of_far_too_many_files(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shiplap.images.files.MOST_MEMBERS", 3)
    (tmp_path / "x.tar").write_bytes(layer_tar(*((f"f{n}", b"") for n in range(4))))
    with pytest.raises(ShiplapError) as raised:
        load(f"{tmp_path}/x.tar", settings)
    assert raised.value.code == "too-many-entries"


@pytest.mark.parametrize("target", ["oci:{}/lay:1", "oci-archive:{}/x.tar", "store:x:1"])
def test_an_interrupt_ends_it_at_once_and_leaves_nothing(
    target: str, shelf: Shelf, settings: Settings, tmp_path: Path
) -> None:
    big = layer_tar(("big", b"x" * 100))
    shelf.image("big", "1", big)
    digest = sha256(gzip.compress(big, mtime=0))
    shelf.registry.fault(Fault(f"GET .*/blobs/{digest}", wait=60))
    command = [str(Path(sys.executable).with_name("shiplap")), "--root", settings.root, "copy", "-q"]
    process = subprocess.Popen([*command, shelf.place("big", "1"), target.format(tmp_path)], stderr=subprocess.PIPE)
    wait_for(lambda: shelf.registry.count("GET .*/manifests/") > 0, "the first request")
    time.sleep(1)  # the next one is answered in a minute, and only then known
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert not (tmp_path / "x.tar").exists() and not (tmp_path / "lay/index.json").exists()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "store" not in path.parts]
    assert files == [] or {path.parts[-3:-1] for path in files} == {("blobs", "sha256")}
    with pytest.raises(ShiplapError, match="no such image"):
        inspect("x:1", settings)


@pytest.mark.parametrize("size", [0, 3, 1 << 40])
def test_an_index_that_tells_another_size_is_refused(
    size: int, shelf: Shelf, multi: str, settings: Settings, tmp_path: Path
) -> None:
    copy(shelf.place("base", "multi"), f"oci:{tmp_path}/lay:1", settings)
    path = tmp_path / "lay/index.json"
    index = json.loads(path.read_text())
    index["manifests"][0]["size"] = size
    path.write_text(json.dumps(index))
    for target in (f"oci:{tmp_path}/other:1", "store:x", shelf.place("new", "1"), f"oci-archive:{tmp_path}/x.tar"):
        with pytest.raises(ShiplapError) as raised:
            copy(f"oci:{tmp_path}/lay:1", target, settings)
        assert raised.value.code == "size-mismatch" and f"its index says {size}" in str(raised.value)
    assert not (tmp_path / "other").exists() and "new" not in shelf.registry.repositories


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_an_archive_through_a_pipe(kind: str, shelf: Shelf, multi: str, settings: Settings, tmp_path: Path) -> None:
    shiplap = [str(Path(sys.executable).with_name("shiplap")), "copy"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SHIPLAP_ROOT": str(tmp_path / "store")}
    alike: dict[str, Any] = {"env": environment, "cwd": tmp_path, "capture_output": True}
    platform = ["--platform", "linux/amd64", shelf.place("base", "multi")]
    written = subprocess.run([*shiplap, *platform, f"{kind}:-:some:1"], **alike)
    assert written.returncode == 0 and b"copying" in written.stderr
    with tarfile.open(fileobj=io.BytesIO(written.stdout)) as archive:
        assert "index.json" in archive.getnames(), "nothing but the archive is on standard output"
    read = subprocess.run([*shiplap, "-q", f"{kind}:-", "store:back:1"], input=written.stdout, **alike)
    assert read.returncode == 0, read.stderr
    assert inspect("back:1", settings)["Platform"] == "linux/amd64"
    assert not (tmp_path / "-").exists()
    none = subprocess.run([*shiplap, f"{kind}:-", "store:none:1"], input=b"", **alike)
    assert none.returncode == 2 or b"ERROR" in none.stderr
    assert b"Traceback" not in none.stderr
