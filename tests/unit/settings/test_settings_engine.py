"""Where a Docker or Podman is looked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from shiplap.errors import UsageError
from shiplap.settings import load
from shiplap.settings.engine import Engine


def engines(home: Path, **environ: str) -> list[Engine]:
    return load(environ, home=str(home), etc=str(home)).engines()


def context(home: Path, name: str, host: str, tls: bool = False, skip: bool = False) -> Path:
    """Write a context as docker keeps it."""
    known = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker/contexts/meta" / known
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": skip}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    folder = home / ".docker/contexts/tls" / known / "docker"
    if tls:
        folder.mkdir(parents=True)
        for file in ("ca.pem", "cert.pem", "key.pem"):
            (folder / file).write_text("")
    return folder


def test_without_a_word_the_usual_sockets_are_tried(tmp_path: Path) -> None:
    assert [engine.address for engine in engines(tmp_path)] == [
        "unix:///var/run/docker.sock",
        "unix:///run/podman/podman.sock",
    ]
    assert [engine.address for engine in engines(tmp_path, XDG_RUNTIME_DIR="/run/user/5")] == [
        "unix:///var/run/docker.sock",
        "unix:///run/user/5/docker.sock",
        "unix:///run/user/5/podman/podman.sock",
        "unix:///run/podman/podman.sock",
    ]


def test_docker_host_counts_most(tmp_path: Path) -> None:
    context(tmp_path, "far", "tcp://far:1")
    said = {"DOCKER_CONTEXT": "far", "CONTAINER_HOST": "unix:///p", "DOCKER_TLS_VERIFY": "1"}
    assert engines(tmp_path, DOCKER_HOST="unix:///x", **said) == [Engine("unix:///x", "DOCKER_HOST")]
    assert engines(tmp_path, CONTAINER_HOST="unix:///p") == [Engine("unix:///p", "CONTAINER_HOST")]


def test_contexts(tmp_path: Path) -> None:
    folder = context(tmp_path, "far", "tcp://far:2376", tls=True)
    context(tmp_path, "near", "unix:///near.sock")
    context(tmp_path, "loose", "tcp://loose:1", tls=True, skip=True)
    (far,) = engines(tmp_path, DOCKER_CONTEXT="far")
    assert far == Engine(
        "tcp://far:2376",
        "the docker context far",
        True,
        True,
        f"{folder}/ca.pem",
        f"{folder}/cert.pem",
        f"{folder}/key.pem",
    )
    assert not engines(tmp_path, DOCKER_CONTEXT="loose")[0].verify
    (tmp_path / ".docker/config.json").write_text('{"currentContext": "near"}')
    assert engines(tmp_path) == [Engine("unix:///near.sock", "the docker context near")]
    assert engines(tmp_path, DOCKER_CONTEXT="default")[0].address == "unix:///var/run/docker.sock"
    with pytest.raises(UsageError, match="no context 'none', which DOCKER_CONTEXT names"):
        engines(tmp_path, DOCKER_CONTEXT="none")


@pytest.mark.parametrize(
    ("environ", "tls", "verify"),
    [
        ({}, False, True),
        ({"DOCKER_TLS_VERIFY": "1"}, True, True),
        ({"DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": "certs"}, True, False),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "certs"}, True, True),
    ],
)
def test_tls(environ: dict[str, str], tls: bool, verify: bool, tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/ca.pem").write_text("")
    said = {key: str(tmp_path / value) if value == "certs" else value for key, value in environ.items()}
    (engine,) = engines(tmp_path, DOCKER_HOST="tcp://h:1", **said)
    assert (engine.tls, engine.verify) == (tls, verify)
    authority = f"{tmp_path}/certs/ca.pem" if "DOCKER_CERT_PATH" in environ else ""
    assert (engine.authority, engine.certificate) == (authority, "")
