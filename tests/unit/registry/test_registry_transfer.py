"""Whole images: platforms, parallel blobs, mounts, indexes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shiplap.errors import ImageError, RegistryError, StoreError
from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor, Index, PlatformFields, encode_manifest
from shiplap.oci.platform import parse_platform
from shiplap.oci.reference import Reference, parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.registry.pull import fetch_image, fetch_layers, resolve_image
from shiplap.registry.push import OutgoingBlob, OutgoingManifest, push_image, push_index

AMD64 = parse_platform("linux/amd64")


class Shelf:
    """Keeps what is saved, as a store would: a blob is there as a whole or not at all."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.lock = threading.Lock()

    def save(self, descriptor: Descriptor, chunks: Iterator[bytes]) -> None:
        with self.lock:
            self.calls.append(descriptor.digest)
        data = b"".join(chunks)
        with self.lock:
            self.blobs[descriptor.digest] = data


def entry(raw: bytes, platform: str | None, media_type: str = media_types.OCI_MANIFEST) -> Descriptor:
    fields = None
    if platform:
        system, architecture, *variant = platform.split("/")
        fields = PlatformFields(os=system, architecture=architecture, variant="".join(variant))
    return Descriptor(media_type=media_type, digest=digest_of(raw), size=len(raw), platform=fields)


def put_index(server: MemoryRegistry, path: str, tag: str, *entries: Descriptor) -> tuple[Reference, bytes]:
    raw = encode_manifest(Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=entries))
    server.add_manifest(path, tag, raw, media_types.OCI_INDEX)
    return parse_reference(f"{server.host}/{path}:{tag or 'none'}"), raw


def test_an_image_comes_as_a_whole(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    layers = [os.urandom(200_000 + number) for number in range(6)]
    image = kit.make_image(*layers, layers[0])
    ref = kit.put_image(server, "a/b", "1", image)
    shelf = Shelf()
    have = {image.manifest.layers[1].digest}
    fetched = fetch_image(client, ref, AMD64, have.__contains__, shelf.save, parallel=3)
    assert (fetched.manifest_raw, fetched.config_raw) == (image.raw, image.config)
    assert fetched.layers == image.manifest.layers and fetched.index_raw is None
    assert shelf.blobs == {digest_of(layer): layer for layer in (layers[0], *layers[2:])}
    assert len(shelf.calls) == 5
    assert fetched.config.platform == AMD64


def test_resolving_reads_no_layer(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(b"layer")
    ref = kit.put_image(server, "a/b", "1", image)
    found = resolve_image(client, ref, AMD64)
    assert found.config_raw == image.config
    assert server.count("/blobs/") == 1
    at_home = {image.digest: image.raw, digest_of(image.config): image.config}
    resolve_image(client, ref, AMD64, at_home.get)
    assert (server.count("^GET"), server.count("^HEAD")) == (2, 1)


def test_the_platform_is_chosen_from_an_index(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    images = {name: kit.make_image(platform=name) for name in ("linux/amd64", "linux/arm64", "linux/arm/v7")}
    for image in images.values():
        kit.put_image(server, "a/b", "", image)
    attestation = entry(b"{}", "unknown/unknown")
    ref, raw = put_index(server, "a/b", "1", *(entry(image.raw, name) for name, image in images.items()), attestation)
    for name, image in images.items():
        found = resolve_image(client, ref, parse_platform(name))
        assert found.manifest_raw == image.raw and found.index_raw == raw
        assert found.index_descriptor is not None and found.index_descriptor.digest == digest_of(raw)
    with pytest.raises(ImageError) as caught:
        resolve_image(client, ref, parse_platform("linux/s390x"))
    assert caught.value.code == "no-such-platform"
    assert "linux/amd64, linux/arm64, linux/arm/v7" in str(caught.value) and "unknown" not in str(caught.value)


def test_an_index_that_names_no_platform_is_looked_into(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    arm, amd = kit.make_image(platform="linux/arm64"), kit.make_image(platform="linux/amd64")
    for image in (arm, amd):
        kit.put_image(server, "a/b", "", image)
    ref, _ = put_index(server, "a/b", "1", entry(arm.raw, None), entry(amd.raw, None))
    assert resolve_image(client, ref, AMD64).manifest_raw == amd.raw
    with pytest.raises(ImageError, match="none that is named"):
        resolve_image(client, ref, parse_platform("linux/s390x"))


def test_indexes_within_indexes(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(platform="linux/amd64")
    kit.put_image(server, "a/b", "", image)
    raw, media_type = image.raw, media_types.OCI_MANIFEST
    for depth in range(8):
        ref, raw = put_index(server, "a/b", f"deep{depth}", entry(raw, "linux/amd64", media_type))
        media_type = media_types.OCI_INDEX
    assert resolve_image(client, ref._replace(tag="deep3"), AMD64).manifest_raw == image.raw
    with pytest.raises(ImageError) as caught:
        resolve_image(client, ref, AMD64)
    assert caught.value.code == "index-too-deep"


def test_a_single_manifest_is_taken_whatever_its_platform(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    ref = kit.put_image(server, "a/b", "1", kit.make_image(platform="linux/arm64"))
    assert str(resolve_image(client, ref, AMD64).config.platform) == "linux/arm64"


@pytest.mark.parametrize("missing", ["config", "layers", "both"])
def test_manifests_with_less_than_they_should_have(
    missing: str, server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    image = kit.make_image(b"x")
    ref = kit.put_image(server, "a/b", "1", image)
    fields = json.loads(image.raw)
    for name in ("config", "layers") if missing == "both" else (missing,):
        fields[name] = None
    server.add_manifest("a/b", "1", json.dumps(fields).encode(), media_types.OCI_MANIFEST)
    if missing == "layers":
        assert resolve_image(client, ref, AMD64).layers == ()
    else:
        with pytest.raises(ImageError):
            resolve_image(client, ref, AMD64)


def test_a_damaged_layer_is_fetched_once_more(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    data = os.urandom(100_000)
    image = kit.make_image(data)
    ref = kit.put_image(server, "a/b", "1", image)
    server.fault(Fault("GET .*" + digest_of(data), change=lambda r: r._replace(body=b"\0" * len(r.body))))
    shelf = Shelf()
    fetch_image(client, ref, AMD64, lambda digest: False, shelf.save)
    assert shelf.blobs == {digest_of(data): data} and len(shelf.calls) == 2


def test_the_first_failure_stops_the_rest(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    layers = [os.urandom(3 << 20) for _ in range(3)] + [b"gone"]
    image = kit.make_image(*layers)
    ref = kit.put_image(server, "a/b", "1", image)
    del server.repository("a/b").blobs[digest_of(b"gone")]
    shelf = Shelf()
    found = resolve_image(client, ref, AMD64)
    with pytest.raises(RegistryError) as caught:
        fetch_layers(client, ref, found, lambda digest: False, shelf.save, parallel=4)
    assert caught.value.status == 404 and digest_of(b"gone") in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shiplap-pull")]


def test_a_fault_of_the_taker_is_passed_on(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    ref = kit.put_image(server, "a/b", "1", kit.make_image(b"layer"))

    def full(descriptor: Descriptor, chunks: Iterator[bytes]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fetch_image(client, ref, AMD64, lambda digest: False, full)


def test_an_image_is_pushed_blobs_first(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(b"one", b"two", b"one")
    blobs = [OutgoingBlob(kit.descriptor(data), kit.opener(data)) for data in (image.config, *image.layers)]
    ref = parse_reference(f"{server.host}/a/b:1")
    descriptor = push_image(client, ref, image.raw, media_types.OCI_MANIFEST, blobs)
    assert descriptor == Descriptor(media_type=media_types.OCI_MANIFEST, digest=image.digest, size=len(image.raw))
    assert server.repository("a/b").tags == {"1": image.digest}
    assert server.requests[-1].target == "/v2/a/b/manifests/1"
    assert server.count("^PUT .*/uploads/") == 3
    push_image(client, ref, image.raw, media_types.OCI_MANIFEST, blobs)
    assert server.count("^PUT .*/uploads/") == 3


def test_blobs_are_mounted_from_a_neighbour(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    digest = server.add_blob("base", b"base layer")
    ref, base = parse_reference(f"{server.host}/a/b:1"), parse_reference(f"{server.host}/base:1")
    descriptor = kit.descriptor(b"base layer")

    def never(offset: int) -> Any:
        raise AssertionError("opened a blob that should have been mounted")

    assert client.push_blob(ref, descriptor, never, base) == "mounted"
    assert digest in server.repository("a/b").blobs
    elsewhere = parse_reference("registry.example.com/base:1")
    data = b"another layer"
    assert client.push_blob(ref, kit.descriptor(data), kit.opener(data), elsewhere) == "uploaded"
    assert server.count("from=") == 1


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_refused_mount_becomes_an_upload(status: int, server: MemoryRegistry, client: Registry, kit: Any) -> None:
    ref, base = parse_reference(f"{server.host}/a/b:1"), parse_reference(f"{server.host}/base:1")
    server.fault(Fault("mount=", reply=Reply(status)))
    assert client.push_blob(ref, kit.descriptor(b"data"), kit.opener(b"data"), base) == "uploaded"


def test_an_index_is_pushed_after_its_manifests(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    images = [kit.make_image(name.encode(), platform=name) for name in ("linux/amd64", "linux/arm64")]
    raw = encode_manifest(
        Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=tuple(entry(i.raw, None) for i in images))
    )
    manifests = [
        OutgoingManifest(
            image.raw,
            media_types.OCI_MANIFEST,
            tuple(OutgoingBlob(kit.descriptor(data), kit.opener(data)) for data in (image.config, *image.layers)),
        )
        for image in images
    ]
    ref = parse_reference(f"{server.host}/a/b:1")
    push_index(client, ref, raw, media_types.OCI_INDEX, manifests)
    repository = server.repository("a/b")
    assert repository.tags == {"1": digest_of(raw)}
    assert set(repository.manifests) == {digest_of(raw), *(image.digest for image in images)}


def test_a_blob_that_ends_early_is_not_the_registrys_fault(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    ref = parse_reference(f"{server.host}/a/b:1")
    with pytest.raises(RegistryError) as caught:
        client.push_blob(ref, Descriptor(digest="sha256:" + "a" * 64, size=10), kit.opener(b"short"))
    assert caught.value.code == "blob-truncated"

    def unreadable(offset: int) -> Any:
        raise OSError(5, "Input/output error")

    with pytest.raises(RegistryError) as caught:
        client.push_blob(ref, Descriptor(digest="sha256:" + "a" * 64, size=10), unreadable)
    assert caught.value.code == "blob-unreadable"


def test_a_blob_with_other_bytes_is_refused_by_the_registry(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    ref = parse_reference(f"{server.host}/a/b:1")
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        client.push_blob(ref, Descriptor(digest="sha256:" + "a" * 64, size=5), kit.opener(b"other"))


def test_a_blob_that_is_damaged_at_home_is_not_sent_again(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    asked: list[str] = []

    def check() -> None:
        asked.append("check")
        raise StoreError("it is damaged", code="blob-corrupt")

    ref = parse_reference(f"{server.host}/a/b:1")
    good = Descriptor(digest="sha256:" + "a" * 64, size=5)
    for data in (b"other", b"oth"):
        with pytest.raises(StoreError):
            client.push_blob(ref, good, kit.opener(data), check=check)
    assert len(asked) == 2 and not server.repository("a/b").blobs
    # zuul-registry does not say what it found: only that it failed.
    server.fault(Fault("^PUT .*/uploads/", reply=Reply(500, {}, b"Digest does not match"), times=99))
    with pytest.raises(StoreError):
        client.push_blob(ref, good, kit.opener(b"other"), check=check)
    with pytest.raises(RegistryError) as caught:
        client.push_blob(ref, good, kit.opener(b"other"))
    assert len(asked) == 3 and caught.value.status == 500


def test_a_registry_that_changes_a_manifest_is_found_out(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    raw = kit.make_image().raw
    server.fault(Fault("^PUT", reply=Reply(201, {"Docker-Content-Digest": "sha256:" + "0" * 64}), times=2))
    with pytest.raises(RegistryError) as caught:
        client.push_manifest(parse_reference(f"{server.host}/a/b:1"), raw, media_types.OCI_MANIFEST)
    assert caught.value.code == "digest-mismatch"


def test_a_blob_that_is_damaged_on_its_way_is_sent_again(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    data = b"bytes of a layer"
    invalid = b'{"errors":[{"code":"DIGEST_INVALID","message":"other bytes"}]}'
    server.fault(Fault("^PUT .*/uploads/", reply=Reply(400, {"Content-Type": "application/json"}, invalid), times=2))
    ref = parse_reference(f"{server.host}/a/b:1")
    assert client.push_blob(ref, kit.descriptor(data), kit.opener(data)) == "uploaded"
    assert list(server.repository("a/b").blobs.values()) == [data]


def test_a_cut_manifest_that_a_registry_keeps_is_written_over(
    server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    """zuul-registry 1.3: the request that was cut goes on there, and may end after the one that took its place."""
    image = kit.make_image()
    ref = kit.put_image(server, "a/b", "1", image)
    stale = Reply(200, {"Docker-Content-Digest": "sha256:" + "5" * 64, "Content-Length": "9"})
    server.fault(Fault("^PUT .*/manifests/", cut_after=-1))
    server.fault(Fault("^HEAD .*/manifests/1", reply=stale, times=1))
    assert client.push_manifest(ref, image.raw, media_types.OCI_MANIFEST).digest == image.digest
    asked = [seen.method for seen in server.requests if "/manifests/" in seen.target]
    assert asked == ["PUT", "PUT", "HEAD", "PUT", "HEAD"]
    server.fault(Fault("^PUT .*/manifests/", cut_after=-1))
    server.fault(Fault("^HEAD .*/manifests/1", reply=stale, times=9))
    with pytest.raises(RegistryError) as caught:
        client.push_manifest(ref, image.raw, media_types.OCI_MANIFEST)
    assert caught.value.code == "digest-mismatch" and "push again" in (caught.value.hint or "")
