"""Where a running Docker or Podman is reached: what the docker command would do, then Podman's sockets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from shiplap.errors import UsageError
from shiplap.settings.documents import read_json


class Engine(NamedTuple):
    """``address``: ``unix:///path`` or ``tcp://host:port``; certificates are paths, with ``tls``; ``said_by``: who named it."""

    address: str
    said_by: str
    tls: bool = False
    verify: bool = True
    authority: str = ""
    certificate: str = ""
    key: str = ""


class EngineSettings(NamedTuple):
    """What the environment says about engines."""

    host: str = ""
    context: str = ""
    tls: bool = False
    certificates: str = ""
    podman: str = ""
    runtime_dir: str = ""


def engine_settings(environ: Mapping[str, str]) -> EngineSettings:
    """Opens no file."""
    return EngineSettings(
        host=environ.get("DOCKER_HOST", ""),
        context=environ.get("DOCKER_CONTEXT", ""),
        tls=bool(environ.get("DOCKER_TLS_VERIFY")),
        certificates=environ.get("DOCKER_CERT_PATH", ""),
        podman=environ.get("CONTAINER_HOST", ""),
        runtime_dir=environ.get("XDG_RUNTIME_DIR", ""),
    )


def engines(said: EngineSettings, docker_config: str) -> list[Engine]:
    """The engines to try, in order; one alone where the user named it. Reads docker's contexts now.

    DOCKER_HOST, then DOCKER_CONTEXT or the context that docker's config.json has current, then CONTAINER_HOST, then the
    sockets of a machine: docker's, rootless docker's, podman's. Raises UsageError (no-context).
    """
    if said.host:
        return [_of_host(said, docker_config)]
    config = read_json(os.path.join(docker_config, "config.json"))
    current = config.get("currentContext")
    context = said.context or (current if isinstance(current, str) else "")
    if context and context != "default":
        return [_of_context(context, docker_config, "DOCKER_CONTEXT" if said.context else "docker's current context")]
    if said.podman:
        return [Engine(said.podman, "CONTAINER_HOST")]
    sockets = ["/var/run/docker.sock"]
    if said.runtime_dir:
        sockets += [f"{said.runtime_dir}/docker.sock", f"{said.runtime_dir}/podman/podman.sock"]
    return [Engine(f"unix://{path}", "") for path in (*sockets, "/run/podman/podman.sock")]


def _of_host(said: EngineSettings, docker_config: str) -> Engine:
    folder = said.certificates or docker_config
    # As docker: DOCKER_CERT_PATH asks for TLS too, but only DOCKER_TLS_VERIFY asks whom one speaks to.
    if said.host.startswith("unix://") or not (said.tls or said.certificates):
        return Engine(said.host, "DOCKER_HOST")
    return _secured(Engine(said.host, "DOCKER_HOST", tls=True, verify=said.tls), folder)


def _of_context(name: str, docker_config: str, said_by: str) -> Engine:
    known = hashlib.sha256(name.encode()).hexdigest()
    meta = read_json(os.path.join(docker_config, "contexts", "meta", known, "meta.json"))
    endpoints = meta.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    host = docker.get("Host") if isinstance(docker, dict) else None
    if not isinstance(host, str) or not host:
        raise UsageError(
            f"docker knows no context {name!r}, which {said_by} names",
            code="no-context",
            hint="docker context ls shows those there are; or set DOCKER_HOST",
        )
    engine = Engine(host, f"the docker context {name}")
    folder = os.path.join(docker_config, "contexts", "tls", known, "docker")
    if not os.path.isdir(folder):
        return engine
    skip = isinstance(docker, dict) and docker.get("SkipTLSVerify") is True
    return _secured(engine._replace(tls=True, verify=not skip), folder)


def _secured(engine: Engine, folder: str) -> Engine:
    found = {name: os.path.join(folder, name + ".pem") for name in ("ca", "cert", "key")}
    there = {name: path if os.path.exists(path) else "" for name, path in found.items()}
    return engine._replace(authority=there["ca"], certificate=there["cert"], key=there["key"])
