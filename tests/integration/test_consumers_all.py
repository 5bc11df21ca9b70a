"""Every kind of output, read by every consumer: skopeo, umoci, buildah, podman, containerd and dockerd."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from kit import Shiplap, program

DOCKERFILE = """FROM busybox
RUN mkdir /data && echo one > /data/one && chown 33:33 /data/one && ln /data/one /data/hard && ln -s one /data/link
FROM busybox
COPY --from=0 /data /data
RUN rm /data/hard
CMD ["cat", "/data/one"]
"""
WAYS = ("build", "save", "copy")


class Kinds:
    """Writes the image as every kind of output, each way that shiplap has to write it."""

    def __init__(self, shiplap: Shiplap, directory: Path) -> None:
        self._shiplap = shiplap
        self._directory = directory
        self._context = directory / "context"
        self._context.mkdir()
        (self._context / "Dockerfile").write_text(DOCKERFILE)
        shiplap.run("build", "-q", "-t", "app:1", self._context)

    def make(self, kind: str, way: str, compression: str = "gzip") -> Path:
        """``kind``: oci (a directory), oci-archive or docker-archive."""
        out = self._directory / f"{kind}-{way}-{compression}"
        if out.exists():
            return out
        if way == "build" or compression != "gzip":
            typed = "docker" if kind == "docker-archive" else "oci"
            packing = f"compression={compression},force-compression=true" + (",tar=false" if kind == "oci" else "")
            self._shiplap.run("build", "-q", "-t", "app:1", "-o", f"type={typed},dest={out},{packing}", self._context)
        elif way == "save" and kind != "oci":
            self._shiplap.run("save", "-o", out, "--format", kind.removesuffix("-archive"), "app:1")
        else:
            name = ":app:1" if kind == "docker-archive" else ":1"
            self._shiplap.run("copy", "-q", "app:1", f"{kind}:{out}{name}")
        return out

    @property
    def id(self) -> str:
        return str(json.loads(self._shiplap.run("inspect", "app:1").stdout)[0]["Id"])


@pytest.fixture(scope="module")
def kinds(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    path = tmp_path_factory.mktemp("kinds")
    return Kinds(Shiplap(path / "store", {"CONTAINERS_REGISTRIES_CONF": str(mirror)}, path), path)


def tool(*words: object, **env: str) -> str:
    command = [program(str(words[0])), *map(str, words[1:])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **env})
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


CASES = [
    *((kind, way, "gzip") for kind in ("oci", "oci-archive", "docker-archive") for way in WAYS),
    *((kind, "build", how) for kind in ("oci", "oci-archive", "docker-archive") for how in ("zstd", "uncompressed")),
]
each_kind = pytest.mark.parametrize(("kind", "way", "compression"), CASES)


@each_kind
def test_skopeo(kind: str, way: str, compression: str, kinds: Kinds, tmp_path: Path) -> None:
    out = kinds.make(kind, way, compression)
    tool("skopeo", "copy", f"{kind}:{out}", f"dir:{tmp_path}/copied")  # a form that leaves all as it is
    manifest = json.loads((tmp_path / "copied/manifest.json").read_text())
    assert manifest["config"]["digest"] == kinds.id


@each_kind
def test_umoci(kind: str, way: str, compression: str, kinds: Kinds, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("umoci needs root to keep owners")
    # It reads layouts alone, and no zstd (0.4): skopeo brings the others to it as they are.
    layout = f"{kinds.make(kind, way, compression)}:1"
    if kind != "oci" or compression == "zstd":
        recompress = ["--dest-compress-format", "gzip"] if compression == "zstd" else []
        tool("skopeo", "copy", *recompress, f"{kind}:{kinds.make(kind, way, compression)}", f"oci:{tmp_path}/layout:1")
        layout = f"{tmp_path}/layout:1"
    tool("umoci", "unpack", "--image", layout, tmp_path / "bundle")
    data = tmp_path / "bundle/rootfs/data"
    assert sorted(os.listdir(data)) == ["link", "one"]
    assert (data / "one").stat().st_uid == 33 and (data / "link").is_symlink()


@each_kind
def test_buildah_from(
    kind: str, way: str, compression: str, kinds: Kinds, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if os.geteuid() != 0:
        pytest.skip("these tests give buildah a storage of root's")
    path = tmp_path_factory.mktemp("buildah")
    buildah = ["buildah", "--root", path / "data", "--runroot", path / "run", "--storage-driver=vfs"]
    name = tool(*buildah, "from", f"{kind}:{kinds.make(kind, way, compression)}").strip()
    try:
        shown = json.loads(tool(*buildah, "inspect", name))
        assert "sha256:" + shown["FromImageID"] == kinds.id
        assert (Path(tool(*buildah, "mount", name).strip()) / "data/one").stat().st_uid == 33
    finally:
        tool(*buildah, "rm", name)


@each_kind
def test_podman_load(kind: str, way: str, compression: str, kinds: Kinds, podman: tuple[str, list[str]]) -> None:
    _, command = podman
    if kind == "oci":
        told = tool(*command, "pull", "-q", f"oci:{kinds.make(kind, way, compression)}")
    else:
        told = tool(*command, "load", "-q", "-i", kinds.make(kind, way, compression))
    assert told.strip()
    ids = tool(*command, "images", "--no-trunc", "-q").split()
    assert kinds.id in ids


@pytest.mark.parametrize(("kind", "way", "compression"), [case for case in CASES if case[0] != "oci"])
def test_containerd(kind: str, way: str, compression: str, kinds: Kinds, containerd: list[str]) -> None:
    archive = kinds.make(kind, way, compression)
    told = tool(*containerd, "image", "import", "--digests", "--base-name", "example.invalid/app", archive)
    assert "saved" in told or "unpacking" in told
    names = tool(*containerd, "image", "ls", "-q").split()
    assert names
    tool(*containerd, "image", "rm", *names)


@pytest.mark.parametrize(("way", "compression"), [case[1:] for case in CASES if case[0] == "docker-archive"])
def test_dockerd(way: str, compression: str, kinds: Kinds, dockerd: str) -> None:
    docker = ["docker", "-H", dockerd]
    archive = kinds.make("docker-archive", way, compression)
    version = int(tool(*docker, "version", "--format", "{{.Server.Version}}").partition(".")[0])
    if compression == "zstd" and version < 23:
        # Layers that it has need not be read: from another test, say.
        subprocess.run([program("docker"), *docker[1:], "image", "prune", "--all", "--force"], capture_output=True)
        done = subprocess.run([program("docker"), *docker[1:], "load", "-i", archive], capture_output=True, text=True)
        assert (done.returncode, "Error processing tar file" in done.stderr) == (1, True)  # it knows no zstd
        return
    tool(*docker, "load", "-i", archive)
    assert tool(*docker, "run", "--rm", "--network=none", "app:1") == "one\n"
    assert json.loads(tool(*docker, "inspect", "app:1"))[0]["Id"] == kinds.id
