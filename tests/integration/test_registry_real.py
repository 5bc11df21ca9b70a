"""The client against real registries of two makes, with skopeo as the witness on the other side."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from registries import PASSWORD, USER, Served
from shiplap.errors import RegistryError
from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor, Index, Manifest, PlatformFields, encode_manifest
from shiplap.oci.platform import parse_platform
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.connection import Timing
from shiplap.registry.login import check_login
from shiplap.registry.pull import fetch_image
from shiplap.registry.push import OutgoingBlob, OutgoingManifest, push_image, push_index
from shiplap.settings import Mirror, RegistryRule

AMD64 = parse_platform("linux/amd64")


@pytest.fixture
def client(real: Served) -> Iterator[Registry]:
    with Registry(real.network(), lambda fact: None, timing=Timing(backoff=0.01)) as registry:
        yield registry


def layer_of(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    # Compressed, because skopeo compresses what is not, and then the digests are others.
    return gzip.compress(out.getvalue(), 1, mtime=0)


def opener_of(data: bytes) -> Callable[[int], BinaryIO]:
    return lambda offset: io.BytesIO(data[offset:])


def descriptor_of(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))


def image_of(*layers: bytes, architecture: str = "amd64") -> tuple[bytes, bytes, list[OutgoingBlob]]:
    rootfs = {"type": "layers", "diff_ids": [digest_of(gzip.decompress(layer)) for layer in layers]}
    config = json.dumps({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    manifest = Manifest(
        schema_version=2,
        media_type=media_types.OCI_MANIFEST,
        config=descriptor_of(config, media_types.OCI_CONFIG),
        layers=tuple(descriptor_of(layer, media_types.OCI_LAYER_GZIP) for layer in layers),
    )
    parts = [(manifest.config, config), *zip(manifest.layers, layers, strict=True)]
    return encode_manifest(manifest), config, [OutgoingBlob(named, opener_of(data)) for named, data in parts]


def test_what_we_push_skopeo_reads(real: Served, client: Registry, tmp_path: Path) -> None:
    layers = [layer_of("a", os.urandom(3_000_000)), layer_of("b", b"small")]
    raw, config, blobs = image_of(*layers)
    ref = parse_reference(f"{real.host}/team/pushed:1")
    pushed = push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
    assert pushed.digest == digest_of(raw)

    found = json.loads(real.skopeo("inspect", f"docker://{real.host}/team/pushed:1"))
    assert found["Digest"] == digest_of(raw) and found["Layers"] == [digest_of(layer) for layer in layers]
    real.skopeo("copy", f"docker://{real.host}/team/pushed:1", f"oci:{tmp_path}/copy:1")
    for data in (*layers, config, raw):
        copied = tmp_path / "copy" / "blobs" / "sha256" / digest_of(data).partition(":")[2]
        assert copied.read_bytes() == data
    assert client.tags(ref) == ["1"]


def test_what_skopeo_pushes_we_read(real: Served, client: Registry, tmp_path: Path) -> None:
    layer = layer_of("file", os.urandom(2_000_000))
    raw, config, _ = image_of(layer)
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (layer, config, raw):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
    (tmp_path / "layout" / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {"mediaType": media_types.OCI_MANIFEST, "digest": digest_of(raw), "size": len(raw)}
    (tmp_path / "layout" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    for name, kind in (("oci", "oci"), ("docker", "v2s2")):
        target = f"docker://{real.host}/from-skopeo:{name}"
        real.skopeo("copy", f"--format={kind}", f"oci:{tmp_path}/layout", target)
        kept: dict[str, bytes] = {}

        def save(descriptor: Descriptor, chunks: Iterator[bytes], kept: dict[str, bytes] = kept) -> None:
            kept[descriptor.digest] = b"".join(chunks)

        ref = parse_reference(f"{real.host}/from-skopeo:{name}")
        fetched = fetch_image(client, ref, AMD64, lambda digest: False, save)
        said = json.loads(real.skopeo("inspect", f"docker://{real.host}/from-skopeo:{name}"))
        assert fetched.manifest_descriptor.digest == said["Digest"]
        assert set(kept) == {found.digest for found in fetched.layers}
        assert fetched.config.platform == AMD64
        if name == "oci":
            assert kept == {digest_of(layer): layer} and fetched.config_raw == config
        else:
            assert fetched.manifest_descriptor.media_type == media_types.DOCKER_MANIFEST


def test_an_index_with_its_manifests(real: Served, client: Registry) -> None:
    images = {name: image_of(layer_of("f", name.encode()), architecture=name) for name in ("amd64", "arm64")}
    entries = tuple(
        Descriptor(
            media_type=media_types.OCI_MANIFEST,
            digest=digest_of(raw),
            size=len(raw),
            platform=PlatformFields(architecture=name, os="linux"),
        )
        for name, (raw, _, _) in images.items()
    )
    index = encode_manifest(Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=entries))
    manifests = [OutgoingManifest(raw, media_types.OCI_MANIFEST, tuple(blobs)) for raw, _, blobs in images.values()]
    ref = parse_reference(f"{real.host}/multi:1")
    push_index(client, ref, index, media_types.OCI_INDEX, manifests)
    assert json.loads(real.skopeo("inspect", "--raw", f"docker://{real.host}/multi:1")) == json.loads(index)
    fetched = fetch_image(client, ref, parse_platform("linux/arm64"), lambda digest: True, lambda *_: None)
    assert fetched.manifest_raw == images["arm64"][0] and fetched.index_raw == index


def test_blobs_are_found_mounted_and_refused(real: Served, client: Registry) -> None:
    data = os.urandom(500_000)
    ours, theirs = parse_reference(f"{real.host}/mounted:1"), parse_reference(f"{real.host}/source:1")
    descriptor = descriptor_of(data, media_types.OCI_LAYER_GZIP)
    assert client.push_blob(theirs, descriptor, opener_of(data)) == "uploaded"
    assert client.push_blob(theirs, descriptor, opener_of(data)) == "present"
    # zuul-registry has one heap of blobs for all repositories.
    assert client.push_blob(ours, descriptor, opener_of(b""), theirs) in ("mounted", "present")
    assert client.has_blob(ours, descriptor.digest)
    assert not client.has_blob(ours, "sha256:" + "0" * 64)
    assert b"".join(client.open_blob(ours, descriptor)) == data
    wrong = Descriptor(digest="sha256:" + "1" * 64, size=9)
    with pytest.raises(RegistryError) as caught:
        client.push_blob(ours, wrong, opener_of(b"something"))
    assert caught.value.code in ("digest-mismatch", "registry-failed") and not client.has_blob(ours, wrong.digest)
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{real.host}/nothing:1"))
    assert caught.value.status == 404


class _Stumbling(io.BytesIO):
    """Cuts the connection it is sent over, once, after a part."""

    def __init__(self, data: bytes, cut: Callable[[], None]) -> None:
        super().__init__(data)
        self._cut = cut

    def read(self, amount: int | None = -1, /) -> bytes:
        if self.tell() >= 3 << 20:
            self._cut()
        return super().read(amount)


def test_an_upload_that_is_cut_goes_on(real: Served, client: Registry) -> None:
    data = os.urandom(8 << 20)
    opened: list[int] = []

    def opener(offset: int) -> BinaryIO:
        opened.append(offset)
        return io.BytesIO(data[offset:]) if len(opened) > 1 else _Stumbling(data, client._connections.interrupt)

    ref = parse_reference(f"{real.host}/cut:1")
    assert client.push_blob(ref, descriptor_of(data, media_types.OCI_LAYER_GZIP), opener) == "uploaded"
    assert len(opened) > 1
    assert b"".join(client.open_blob(ref, descriptor_of(data, media_types.OCI_LAYER_GZIP))) == data


def test_a_mirror_serves_docker_hub(real: Served, client: Registry) -> None:
    raw, _, blobs = image_of(layer_of("f", b"mirrored"))
    push_image(client, parse_reference(f"{real.host}/library/mirrored:1"), raw, media_types.OCI_MANIFEST, blobs)
    network = real.network()
    rule = RegistryRule(
        "docker.io", "unreachable.invalid", mirrors=(Mirror(real.host, network.insecure_host(real.host)),)
    )
    with Registry(network._replace(rules=(*network.rules, rule)), lambda fact: None) as mirrored:
        fetched = fetch_image(
            mirrored, parse_reference("mirrored:1"), AMD64, lambda digest: False, lambda _, c: list(c) and None
        )
    assert fetched.manifest_raw == raw


def test_a_registry_behind_a_password(guarded: Served) -> None:
    host, network = guarded.host, guarded.network()
    raw, _, blobs = image_of(layer_of("f", b"private"))
    ref = parse_reference(f"{host}/private:1")
    nobody = network._replace(credentials=lambda host, path: None)
    with Registry(nobody, lambda fact: None) as anonymous:
        for ask in (
            lambda: anonymous.resolve(ref),
            lambda: anonymous.push_blob(ref, blobs[0].descriptor, blobs[0].opener),
        ):
            with pytest.raises(RegistryError) as caught:
                ask()
            assert caught.value.status == 401 and f"shiplap login {host}" in (caught.value.hint or "")
    with Registry(network, lambda fact: None) as client:
        push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
        assert client.resolve(ref)[1] == raw
    assert json.loads(guarded.skopeo("inspect", f"docker://{ref}"))["Digest"] == digest_of(raw)
    check_login(nobody, host, USER, PASSWORD)
    with pytest.raises(RegistryError) as caught:
        check_login(nobody, host, USER, "wrong-password")
    assert caught.value.code == "login-refused" and "wrong-password" not in caught.value.render()
