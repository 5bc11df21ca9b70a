"""Other people's tools accept what shiplap makes: skopeo, umoci, a real dockerd, a real registry. None is mocked."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from kit import Shiplap, program
from registries import Served

DOCKERFILE = """FROM busybox AS base
RUN mkdir /data && echo one > /data/one && chown 33:33 /data/one && chmod 4750 /data/one && ln /data/one /data/hard
FROM base
RUN rm /data/hard && mkdir /data/sub && ln -s ../one /data/sub/link
COPY --chown=www-data hello /srv/hello
ENV WHO=world
LABEL a.b="c & d"
WORKDIR /srv
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat hello; echo $WHO"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "Dockerfile").write_text(DOCKERFILE)
    (path / "hello").write_text("hello\n")
    return path


def tool(name: str, *arguments: object) -> str:
    done = subprocess.run([program(name), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_skopeo_inspects_and_copies_archives(shiplap: Shiplap, context: Path, tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "image.tar"
    id = shiplap.run("build", "-q", "-t", "app:1", "-o", f"type={kind},dest={archive}", context).stdout.strip()
    inspected = json.loads(tool("skopeo", "inspect", f"oci-archive:{archive}"))
    manifest = json.loads(tool("skopeo", "inspect", "--raw", f"oci-archive:{archive}"))
    assert manifest["config"]["digest"] == id
    assert inspected["Labels"] == {"a.b": "c & d"}
    tool("skopeo", "copy", f"oci-archive:{archive}", f"oci:{tmp_path}/copied:1")
    if kind == "docker":
        assert "Layers" in json.loads(tool("skopeo", "inspect", f"docker-archive:{archive}"))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
def test_umoci_unpacks_the_tree_that_was_built(
    shiplap: Shiplap, context: Path, tmp_path: Path, compression: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("umoci needs root to keep owners")
    output = f"type=oci,dest={tmp_path}/layout,tar=false,compression={compression},force-compression=true"
    shiplap.run("build", "-q", "-t", "app:1", "-o", output, "-o", f"type=tar,dest={tmp_path}/tree.tar", context)
    source = f"{tmp_path}/layout:1"
    if compression == "zstd":
        # umoci 0.4 does not read zstd; skopeo turns the layers into gzip, and checks them on the way.
        tool("skopeo", "copy", "--dest-compress-format", "gzip", f"oci:{source}", f"oci:{tmp_path}/gzip:1")
        source = f"{tmp_path}/gzip:1"
    tool("umoci", "unpack", "--image", source, tmp_path / "bundle")
    with tarfile.open(tmp_path / "tree.tar") as archive:
        for member in archive:
            path = tmp_path / "bundle/rootfs" / member.name
            found = path.lstat()
            assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (member.mode, member.uid, member.gid), (
                member.name
            )
            if member.isreg():
                assert path.read_bytes() == (archive.extractfile(member) or pytest.fail()).read()
            if member.issym():
                assert os.readlink(path) == member.linkname
        names = set(archive.getnames())
    unpacked = {str(p.relative_to(tmp_path / "bundle/rootfs")) for p in (tmp_path / "bundle/rootfs").rglob("*")}
    assert unpacked == names
    assert "data/one" in names and "data/hard" not in names


def test_dockerd_loads_and_runs_a_docker_archive(shiplap: Shiplap, context: Path, tmp_path: Path, dockerd: str) -> None:
    shiplap.run("build", "-q", "-t", "app:1", "-o", f"type=docker,dest={tmp_path}/image.tar", context)
    assert "Loaded image: app:1" in tool("docker", "-H", dockerd, "load", "-i", tmp_path / "image.tar")
    assert tool("docker", "-H", dockerd, "run", "--rm", "--network=none", "app:1") == "hello\nworld\n"
    inspected = json.loads(tool("docker", "-H", dockerd, "inspect", "app:1"))[0]
    assert inspected["Config"]["WorkingDir"] == "/srv"
    assert len(inspected["RootFS"]["Layers"]) == 4 + 1  # the base's one, RUN, RUN, COPY, WORKDIR


def test_dockerd_loads_what_save_wrote(shiplap: Shiplap, context: Path, tmp_path: Path, dockerd: str) -> None:
    shiplap.run("build", "-q", "-t", "saved:2", context)
    shiplap.run("save", "-o", tmp_path / "saved.tar", "saved:2")
    tool("docker", "-H", dockerd, "load", "-i", tmp_path / "saved.tar")
    assert tool("docker", "-H", dockerd, "run", "--rm", "--network=none", "saved:2", "id -u") == "0\n"


def test_what_dockerd_saves_comes_in(shiplap: Shiplap, context: Path, tmp_path: Path, dockerd: str) -> None:
    shiplap.run("build", "-q", "-t", "there:1", "-o", f"type=docker,dest={tmp_path}/a.tar", context)
    tool("docker", "-H", dockerd, "load", "-i", tmp_path / "a.tar")
    tool("docker", "-H", dockerd, "save", "-o", tmp_path / "b.tar", "there:1")
    other = Shiplap(tmp_path / "other", shiplap.env, tmp_path)
    assert "docker.io/library/there:1" in other.run("load", "-i", tmp_path / "b.tar").stdout
    assert other.run("run", "there:1").stdout == "hello\nworld\n"


def test_a_registry_takes_a_push_and_serves_the_pull(
    shiplap: Shiplap, context: Path, tmp_path: Path, real: Served
) -> None:
    name = f"{real.host}/team/app:{os.getpid()}"
    real.known_to(shiplap)
    shiplap.run("build", "-q", "-t", name, "--push", context)
    digest = json.loads(shiplap.run("inspect", name).stdout)[0]["Digest"]
    inspected = json.loads(real.skopeo("inspect", f"docker://{name}"))
    assert inspected["Digest"] == digest
    other = Shiplap(tmp_path / "other", shiplap.env, tmp_path)
    assert other.run("pull", "-q", name).stdout.strip() == digest
    assert other.run("run", name).stdout == "hello\nworld\n"
    # What was pulled is a base like any other, and needs no registry any more.
    (tmp_path / "next").mkdir()
    (tmp_path / "next/Dockerfile").write_text(f"FROM {name}\nRUN test -u /data/one\n")
    other.run("build", "-q", tmp_path / "next", CONTAINERS_REGISTRIES_CONF="/dev/null")


def test_skopeo_pushes_and_shiplap_builds_on_it(shiplap: Shiplap, context: Path, tmp_path: Path, real: Served) -> None:
    real.known_to(shiplap)
    shiplap.run("build", "-q", "-t", "x:1", "-o", f"type=oci,dest={tmp_path}/x.tar", context)
    name = f"{real.host}/from-skopeo:{os.getpid()}"
    real.skopeo("copy", f"oci-archive:{tmp_path}/x.tar", f"docker://{name}")
    (tmp_path / "Dockerfile").write_text(f'FROM {name}\nCMD ["stat -c %u:%a /data/one"]\n')
    shiplap.run("build", "-q", "-t", "y", tmp_path)
    assert shiplap.run("run", "y").stdout == "33:4750\n"
