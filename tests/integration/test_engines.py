"""Images into and out of a running Docker and a running Podman, over their APIs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from kit import Shiplap, program

DOCKERFILE = """FROM busybox
RUN echo one > /one && chmod 4750 /one
LABEL a=b
CMD ["cat", "/one"]
"""


@pytest.fixture
def built(shiplap: Shiplap, tmp_path: Path) -> Shiplap:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    shiplap.run("build", "-q", "-t", "app:1", tmp_path)
    return shiplap


def image_id(shiplap: Shiplap, place: str, **env: str) -> str:
    return str(json.loads(shiplap.run("inspect", place, **env).stdout)[0]["Id"])


def test_docker_takes_an_image_runs_it_and_gives_it_back(built: Shiplap, dockerd: str) -> None:
    docker = [program("docker"), "-H", dockerd]
    built.run("copy", "-q", "app:1", "docker-daemon:over/there:2", DOCKER_HOST=dockerd)
    run = [*docker, "run", "--rm", "--network=none", "over/there:2"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "one\n"
    shown = json.loads(subprocess.run([*docker, "inspect", "over/there:2"], capture_output=True, check=True).stdout)[0]
    assert shown["Id"] == image_id(built, "app:1") == image_id(built, "docker-daemon:over/there:2", DOCKER_HOST=dockerd)
    built.run("copy", "-q", "docker-daemon:over/there:2", "back:1", DOCKER_HOST=dockerd)
    assert built.run("run", "back:1").stdout == "one\n"
    # Docker keeps the config and the files, and packs them anew: the same image.
    assert built.run("diff", "app:1", "docker-daemon:over/there:2", DOCKER_HOST=dockerd).returncode == 0
    none = built.run("copy", "docker-daemon:none:1", "none:1", check=False, DOCKER_HOST=dockerd)
    assert (none.returncode, "[no-such-image]" in none.stderr) == (1, True)


def test_docker_by_a_context(built: Shiplap, dockerd: str, tmp_path: Path) -> None:
    config = tmp_path / "docker"
    create = ["context", "create", "mine", "--docker", f"host={dockerd}"]
    env = {**os.environ, "DOCKER_CONFIG": str(config)}
    subprocess.run([program("docker"), *create], env=env, check=True, capture_output=True)
    built.run("copy", "-q", "app:1", "docker-daemon:by/context:1", DOCKER_CONFIG=str(config), DOCKER_CONTEXT="mine")
    found = subprocess.run([program("docker"), "-H", dockerd, "images", "-q", "by/context:1"], capture_output=True)
    assert found.stdout


def test_podman_takes_an_image_and_gives_it_back(built: Shiplap, podman: tuple[str, list[str]]) -> None:
    socket, command = podman
    built.run("copy", "-q", "app:1", "docker-daemon:over/there:3", CONTAINER_HOST=socket)
    # Podman calls what has no host localhost/, docker.io/library/ or docker.io/, by its version: it is asked itself.
    shown = json.loads(subprocess.run([*command, "inspect", "over/there:3"], capture_output=True, check=True).stdout)[0]
    assert "sha256:" + shown["Id"] == image_id(built, "app:1")
    assert built.run("diff", "app:1", "docker-daemon:over/there:3", CONTAINER_HOST=socket).returncode == 0
    built.run("copy", "-q", "docker-daemon:over/there:3", "back:1", DOCKER_HOST=socket)
    assert built.run("run", "back:1").stdout == "one\n"


def test_what_an_old_docker_cannot_read_is_said(built: Shiplap, dockerd: str, tmp_path: Path) -> None:
    layout = f"{tmp_path}/layout"
    output = f"type=oci,dest={layout},tar=false,compression=zstd,force-compression=true"
    built.run("build", "-q", "-t", "app:1", "-o", output, tmp_path)
    told = built.run("copy", f"oci:{layout}:1", "docker-daemon:zstd:1", check=False, DOCKER_HOST=dockerd)
    if told.returncode:  # Docker 23 and later read it
        assert "[engine-refused]" in told.stderr
        assert "compression=gzip" in told.stderr
