"""More layers than one overlay takes (500): RUN, COPY and mounts over them, as root and as ordinary users."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from kit import SOAK, Shiplap

CONTEXT = """FROM many AS many
RUN test "$(cat /d/low)" = 1 && test ! -e /gone && test ! -e /o/old && cat /o/new && ls /d | wc -l > /count
RUN echo more >> /d/low && mv /d/f3 /d/g3 && rm -r /d/f4 /o && mkdir /o && chmod 600 /d/f5
COPY file /d/last
RUN stat -c '%u:%g %a' /d/low /d/f5 > /owners && ls /o /d > /list && test "$(cat /d/low | tail -n 1)" = more
FROM busybox
RUN --mount=from=many,target=/m,rw cat /m/owners /m/count /m/list > /seen && rm /m/d/f0 && test ! -e /m/d/f4
RUN --mount=from=many,source=/d,target=/m ls /m | wc -l >> /seen && ! touch /m/x 2>/dev/null
RUN --mount=from=many,source=/d/low,target=/low,rw cat /low >> /seen && echo lost > /low
COPY --from=many /d /d
"""


def many_layers(path: Path, busybox: Path, count: int) -> Path:
    """An OCI archive of busybox with ``count`` small layers over it, the image ``many``; whiteouts near both ends."""
    layers: list[tuple[bytes, str]] = []
    parts: dict[str, bytes] = {}

    def blob(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        parts[f"blobs/sha256/{digest}"] = data
        return f"sha256:{digest}", len(data)

    def layer(*members: tuple[str, bytes | None]) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.mtime, info.mode, info.uid, info.gid = 1_600_000_000, 0o644, 7, 8
                if data is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)
                else:
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        plain = out.getvalue()
        layers.append((gzip.compress(plain, 1, mtime=0), "sha256:" + hashlib.sha256(plain).hexdigest()))

    with tarfile.open(busybox) as tar:
        index = json.load(tar.extractfile("index.json") or io.BytesIO())
        manifest = json.load(tar.extractfile(_blob(index["manifests"][0]["digest"])) or io.BytesIO())
        config = json.load(tar.extractfile(_blob(manifest["config"]["digest"])) or io.BytesIO())
        for descriptor, diff in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
            layers.append(((tar.extractfile(_blob(descriptor["digest"])) or io.BytesIO()).read(), diff))
    layer(("d", None), ("d/low", b"0\n"), ("gone", b""), ("o", None), ("o/old", b""))
    layer(("d/low", b"1\n"), (".wh.gone", b""))
    for number in range(count - 3):
        layer((f"d/f{number}", b"x"))
    layer(("o", None), ("o/.wh..wh..opq", b""), ("o/new", b"new\n"))
    config["rootfs"]["diff_ids"] = [diff for _, diff in layers]
    config["history"] = []
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest["layers"] = [
        {"mediaType": kind, "digest": digest, "size": size} for digest, size in (blob(data) for data, _ in layers)
    ]
    manifest["config"]["digest"], manifest["config"]["size"] = blob(json.dumps(config).encode())
    digest, size = blob(json.dumps(manifest).encode())
    described = {"mediaType": manifest["mediaType"], "digest": digest, "size": size}
    described["annotations"] = {"io.containerd.image.name": "docker.io/library/many:latest"}
    parts["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    parts["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    with tarfile.open(path, "w") as tar:
        for name, data in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def build(shiplap: Shiplap, image: Path, **env: str) -> tuple[str, str]:
    """The digest of what comes of CONTEXT, and what was said."""
    context = shiplap.cwd / "context"
    context.mkdir(exist_ok=True)
    context.chmod(0o755)
    (context / "Dockerfile").write_text(CONTEXT)
    (context / "file").write_text("last\n")
    shiplap.run("load", stdin=image.read_bytes())
    out = ("-o", "type=image,name=it,rewrite-timestamp=true")
    said = shiplap.run("build", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", *out, context, **env).stderr
    assert os.listdir(shiplap.root / "tmp") == []
    (image_of,) = json.loads(shiplap.run("inspect", "it").stdout)
    return json.dumps(image_of, sort_keys=True), said


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("many")
    directory.chmod(0o755)
    return directory


def test_six_hundred_layers_every_way(
    shiplap: Shiplap, rootless: Shiplap, single: Shiplap, archives: dict[str, Path], archive: Path
) -> None:
    image = many_layers(archive / "600.tar", archives["busybox:latest"], 600)
    expected, said = build(shiplap, image)
    assert "works on a copy" not in said
    for other in (rootless, single):
        made, said = build(other, image)
        assert made == expected
        assert "works on a copy" not in said


@pytest.mark.skipif(not SOAK, reason="takes a minute and a half: make soak")
def test_a_thousand_layers_are_copied(shiplap: Shiplap, archives: dict[str, Path], archive: Path) -> None:
    """Over 999 the steps work on copies, and the build says so once."""
    image = many_layers(archive / "1010.tar", archives["busybox:latest"], 1010)
    _, said = build(shiplap, image)
    assert said.count("an overlay takes 999 layers: each step over more works on a copy of its root") == 1
