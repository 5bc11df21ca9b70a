"""Turns a ProcessSpec into the plain values the helper reads, with the files the step is given written out."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any

from shiplap.errors import SandboxError
from shiplap.sandbox import names
from shiplap.sandbox.spec import ProcessSpec, StepMount
from shiplap.sandbox.userns import IdMap

DEFAULT_SHM = 64 << 20
_KINDS = frozenset({"bind", "overlay", "tmpfs", "secret"})
_PUBLIC_RESOLVERS = (
    "nameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"
)
"""What BuildKit (and Docker) write for a machine that names no resolver of its own."""


def _listens() -> bool:
    from shiplap.sandbox import seccomp  # tables of system calls, which a builder with all ids does without

    return seccomp.listens(os.uname().machine)


def request(spec: ProcessSpec, ids: IdMap, outlet: bool = False) -> dict[str, Any]:
    """``spec`` as the helper reads it; ``outlet``: there is an isolated network, which then is the default.

    Raises SandboxError for what no runtime could do.
    """
    if not spec.args or any("\0" in word for word in (*spec.args, *spec.env, spec.cwd)):
        raise SandboxError("a step needs a command, and no NUL byte in it or in its environment", code="bad-command")
    if spec.network not in ("default", "host", "none"):
        raise SandboxError(f"unknown network mode {spec.network!r}", code="network", hint="default, host or none")
    network = ("isolated" if outlet else "host") if spec.network == "default" else spec.network
    groups = spec.identity.groups
    pretends = ids.single and _listens()  # then everybody exists, by the keeper's word
    if not pretends:
        # No other group exists, and root, who is the only user, gains nothing by one (alpine gives it ten).
        groups = (spec.identity.gid,) if ids.single else groups
        ids.require(spec.identity.uid, spec.identity.gid, *groups)
    for mount in spec.mounts:
        if mount.kind not in _KINDS:
            raise SandboxError(f"unknown kind of mount {mount.kind!r}", code="mount-kind")
        if mount.kind == "secret" and not pretends:
            ids.require(mount.uid, mount.gid)
    return {
        "args": list(spec.args),
        "env": [word for word in spec.env if "=" in word],  # else runc fails, or a runtime might fill in the host's
        "cwd": absolute(spec.cwd),
        "lowers": list(spec.rootfs.lowers),
        "upper": spec.rootfs.upper,
        "work": spec.rootfs.work,
        "uid": spec.identity.uid,
        "gid": spec.identity.gid,
        "groups": list(groups),
        "owners": {path: tuple(owner) for path, owner in spec.owners.items()},
        "mounts": [_mount(mount) for mount in sorted(spec.mounts, key=_depth)],
        "hostname": spec.hostname,
        "network": network,
        "insecure": spec.insecure,
        "shm_size": spec.shm_size or DEFAULT_SHM,
        "ulimits": {name: tuple(pair) for name, pair in spec.ulimits.items()},
        "hosts": hosts(spec.hostname, spec.extra_hosts).encode(),
        "resolv": (spec.dns or resolvers(network)).encode(),
        "runtime": None,
    }


def absolute(path: str) -> str:
    """``path`` from the root, without dots and doubled slashes (of which POSIX lets normpath keep two in front)."""
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def _depth(mount: StepMount) -> int:
    return absolute(mount.target).count("/")


def _mount(mount: StepMount) -> dict[str, Any]:
    return {
        "kind": mount.kind,
        "staged": False,
        "target": mount.target,
        "source": mount.source,
        "lowers": list(mount.lowers),
        "subpath": mount.subpath,
        "readonly": mount.readonly,
        "size": mount.size,
        "data": mount.data,
        "mode": mount.mode,
        "uid": mount.uid,
        "gid": mount.gid,
    }


def hosts(hostname: str, extra: tuple[str, ...]) -> str:
    """/etc/hosts as BuildKit writes it; ``extra`` are ``name=address``."""
    lines = [f"127.0.0.1\tlocalhost {hostname}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for item in extra:
        name, _, address = item.partition("=")
        lines.append(f"{address}\t{name}")
    return "\n".join(lines) + "\n"


def resolvers(network: str, path: Path = Path("/etc/resolv.conf")) -> str:
    """/etc/resolv.conf for a step. On the machine's network it is the machine's own, since a resolver on 127.0.0.53
    answers there too. On an isolated one, resolvers that it does not lead to give way to the relay (names.py). Without a
    network no resolver can be reached, so none is named."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        text = ""
    lines = text.splitlines()
    if network == "none":
        return "".join(f"{line}\n" for line in lines if not line.lstrip().startswith("nameserver"))
    if network == "isolated":
        reached = [line for line in lines if not any(names.out_of_reach(address) for address in names.servers(line))]
        if len(reached) < len(lines):
            return "".join(f"{line}\n" for line in (*reached, f"nameserver {names.ADDRESS}"))
    if not any(line.split()[:1] == ["nameserver"] for line in lines):
        return text + ("\n" if text and not text.endswith("\n") else "") + _PUBLIC_RESOLVERS
    return text
