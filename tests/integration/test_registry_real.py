"""The client against a real registry process (distribution), with skopeo as the witness on the other side."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from shiplap.errors import RegistryError
from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor, Index, Manifest, PlatformFields, encode_manifest
from shiplap.oci.platform import parse_platform
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.login import check_login
from shiplap.registry.pull import fetch_image
from shiplap.registry.push import OutgoingBlob, OutgoingManifest, push_image, push_index
from shiplap.settings import Credential, Mirror, Network, RegistryRule

AMD64 = parse_platform("linux/amd64")
PASSWORD = "secret-of-the-test"
HTPASSWD = "tester:$2y$05$abcdefghijklmnopqrstuu2hir4hxhqSzdkW1wYaCdjOyk2x8X6Wm\n"


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is not installed; these tests need it (Debian packages: docker-registry, skopeo)")
    return path


def start(folder: Path, auth: bool) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    lines = [
        "version: 0.1",
        "log: {level: error}",
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}",
        f"http: {{addr: '{host}'}}",
    ]
    if auth:
        (folder / "htpasswd").write_text(HTPASSWD)
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}")
    (folder / "config.yml").write_text("\n".join(lines) + "\n")
    log = (folder / "log").open("wb")
    process = subprocess.Popen([tool("docker-registry"), "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    for _ in range(200):
        try:
            socket.create_connection(tuple(host.split(":")), 1).close()  # type: ignore[arg-type]
            return process, host
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    process.kill()
    pytest.fail("docker-registry did not start: " + (folder / "log").read_text()[-2000:])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, host = start(tmp_path_factory.mktemp("registry"), auth=False)
    yield host
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, host = start(tmp_path_factory.mktemp("registry-auth"), auth=True)
    yield host
    process.terminate()
    process.wait(10)


@pytest.fixture
def client() -> Iterator[Registry]:
    with Registry(Network(), lambda fact: None) as registry:
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


def skopeo(*words: str) -> str:
    done = subprocess.run([tool("skopeo"), *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_we_push_skopeo_reads(real: str, client: Registry, tmp_path: Path) -> None:
    layers = [layer_of("a", os.urandom(3_000_000)), layer_of("b", b"small")]
    raw, config, blobs = image_of(*layers)
    ref = parse_reference(f"{real}/team/app:1")
    pushed = push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
    assert pushed.digest == digest_of(raw)

    found = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{real}/team/app:1"))
    assert found["Digest"] == digest_of(raw) and found["Layers"] == [digest_of(layer) for layer in layers]
    skopeo("copy", "--src-tls-verify=false", f"docker://{real}/team/app:1", f"oci:{tmp_path}/copy:1")
    for data in (*layers, config, raw):
        copied = tmp_path / "copy" / "blobs" / "sha256" / digest_of(data).partition(":")[2]
        assert copied.read_bytes() == data
    assert client.tags(ref) == ["1"]


def test_what_skopeo_pushes_we_read(real: str, client: Registry, tmp_path: Path) -> None:
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
        target = f"docker://{real}/from-skopeo:{name}"
        skopeo("copy", "--dest-tls-verify=false", f"--format={kind}", f"oci:{tmp_path}/layout", target)
        kept: dict[str, bytes] = {}

        def save(descriptor: Descriptor, chunks: Iterator[bytes], kept: dict[str, bytes] = kept) -> None:
            kept[descriptor.digest] = b"".join(chunks)

        ref = parse_reference(f"{real}/from-skopeo:{name}")
        fetched = fetch_image(client, ref, AMD64, lambda digest: False, save)
        said = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{real}/from-skopeo:{name}"))
        assert fetched.manifest_descriptor.digest == said["Digest"]
        assert set(kept) == {found.digest for found in fetched.layers}
        assert fetched.config.platform == AMD64
        if name == "oci":
            assert kept == {digest_of(layer): layer} and fetched.config_raw == config
        else:
            assert fetched.manifest_descriptor.media_type == media_types.DOCKER_MANIFEST


def test_an_index_with_its_manifests(real: str, client: Registry) -> None:
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
    ref = parse_reference(f"{real}/multi:1")
    push_index(client, ref, index, media_types.OCI_INDEX, manifests)
    assert json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{real}/multi:1")) == json.loads(index)
    fetched = fetch_image(client, ref, parse_platform("linux/arm64"), lambda digest: True, lambda *_: None)
    assert fetched.manifest_raw == images["arm64"][0] and fetched.index_raw == index


def test_blobs_are_found_mounted_and_refused(real: str, client: Registry) -> None:
    data = os.urandom(500_000)
    ours, theirs = parse_reference(f"{real}/mounted:1"), parse_reference(f"{real}/source:1")
    descriptor = descriptor_of(data, media_types.OCI_LAYER_GZIP)
    assert client.push_blob(theirs, descriptor, opener_of(data)) == "uploaded"
    assert client.push_blob(theirs, descriptor, opener_of(data)) == "present"
    assert client.push_blob(ours, descriptor, opener_of(b""), theirs) == "mounted"
    assert client.has_blob(ours, descriptor.digest)
    assert not client.has_blob(ours, "sha256:" + "0" * 64)
    assert b"".join(client.open_blob(ours, descriptor)) == data
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        client.push_blob(ours, Descriptor(digest="sha256:" + "1" * 64, size=9), opener_of(b"something"))
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{real}/nothing:1"))
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


def test_an_upload_that_is_cut_goes_on(real: str, client: Registry) -> None:
    data = os.urandom(8 << 20)
    opened: list[int] = []

    def opener(offset: int) -> BinaryIO:
        opened.append(offset)
        return io.BytesIO(data[offset:]) if len(opened) > 1 else _Stumbling(data, client._connections.interrupt)

    ref = parse_reference(f"{real}/cut:1")
    assert client.push_blob(ref, descriptor_of(data, media_types.OCI_LAYER_GZIP), opener) == "uploaded"
    assert len(opened) > 1
    assert b"".join(client.open_blob(ref, descriptor_of(data, media_types.OCI_LAYER_GZIP))) == data


def test_a_mirror_serves_docker_hub(real: str, client: Registry) -> None:
    raw, _, blobs = image_of(layer_of("f", b"mirrored"))
    push_image(client, parse_reference(f"{real}/library/mirrored:1"), raw, media_types.OCI_MANIFEST, blobs)
    rule = RegistryRule("docker.io", "unreachable.invalid", mirrors=(Mirror(real),))
    with Registry(Network(rules=(rule,)), lambda fact: None) as mirrored:
        fetched = fetch_image(
            mirrored, parse_reference("mirrored:1"), AMD64, lambda digest: False, lambda _, c: list(c) and None
        )
    assert fetched.manifest_raw == raw


def test_a_registry_behind_a_password(guarded: str) -> None:
    raw, _, blobs = image_of(layer_of("f", b"private"))
    ref = parse_reference(f"{guarded}/private:1")
    with Registry(Network(), lambda fact: None) as anonymous, pytest.raises(RegistryError) as caught:
        anonymous.resolve(ref)
    assert caught.value.status == 401 and f"shiplap login {guarded}" in (caught.value.hint or "")
    network = Network(credentials=lambda host, path: Credential("tester", PASSWORD))
    with Registry(network, lambda fact: None) as client:
        push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
        assert client.resolve(ref)[1] == raw
    said = skopeo("inspect", "--tls-verify=false", f"--creds=tester:{PASSWORD}", f"docker://{guarded}/private:1")
    assert json.loads(said)["Digest"] == digest_of(raw)
    check_login(Network(), guarded, "tester", PASSWORD)
    with pytest.raises(RegistryError) as caught:
        check_login(Network(), guarded, "tester", "wrong-password")
    assert caught.value.code == "login-refused" and "wrong-password" not in caught.value.render()
