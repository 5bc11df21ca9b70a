"""The graph of a build as BuildKit's provenance tells it: LLB operations in JSON (solver/pb, as its ``json`` tags say).

Not LLB itself: nobody can run it, and the digests are shiplap's own. It says what was done, in words that tools know.
"""

from __future__ import annotations

import json
import posixpath
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from shiplap.graph.node import Node, walk
from shiplap.graph.operations import (
    NO_INPUT,
    Copy,
    FileChange,
    GitSource,
    HttpSource,
    ImageSource,
    Inline,
    LocalSource,
    MakeDirectory,
    Merge,
    Mount,
    Run,
)
from shiplap.oci.addresses import redacted
from shiplap.oci.platform import parse_platform

_MOUNTS = {"bind": 0, "secret": 1, "ssh": 2, "cache": 3, "tmpfs": 4}
_SHARING = {"shared": 0, "private": 1, "locked": 2}
_NETWORK = {"default": 0, "host": 1, "none": 2}


class Steps:
    """The steps that ``target`` needs, numbered as BuildKit numbers them: inputs first, the target and an end last.

    ``images``: the digest that a reference was resolved to, of its index where it has one.
    """

    def __init__(self, target: Node | None, images: Mapping[str, str]) -> None:
        self.nodes = list(walk([target])) if target is not None else []
        self._images = images
        self.ids = {node.digest: f"step{number}" for number, node in enumerate(self.nodes)}
        """The name of each by the digest of its node."""

    def definition(self) -> dict[str, Any]:
        """``llbDefinition`` and ``digestMapping``."""
        if not self.nodes:
            return {}
        steps = []
        for node in self.nodes:
            step: dict[str, Any] = {"id": self.ids[node.digest], "op": self._operation(node)}
            if node.inputs:
                step["inputs"] = [f"{self.ids[child.digest]}:0" for child in node.inputs]
            steps.append(step)
        last = f"step{len(steps)}"
        steps.append({"id": last, "op": {"Op": {}}, "inputs": [f"{self.ids[self.nodes[-1].digest]}:0"]})
        end = "sha256:" + sha256(self.nodes[-1].digest.encode()).hexdigest()
        return {"llbDefinition": steps, "digestMapping": dict(sorted([*self.ids.items(), (end, last)]))}

    def locations(self) -> dict[str, Any]:
        """Lines of the Dockerfile by step."""
        found: dict[str, Any] = {}
        for node in self.nodes:
            place = node.about.place
            if place is None or not place.line or isinstance(node.operation, LocalSource | HttpSource | GitSource):
                found[self.ids[node.digest]] = {}
                continue
            lines = range(place.line, (place.end_line or place.line) + 1)
            ranges = [{"start": {"line": line}, "end": {"line": line}} for line in lines]
            found[self.ids[node.digest]] = {"locations": [{"ranges": ranges}]}
        return found

    def _operation(self, node: Node) -> dict[str, Any]:
        operation = node.operation
        platform = operation.platform if isinstance(operation, ImageSource | Run) else ""
        if isinstance(operation, Run):
            kind, body = "exec", _exec(operation)
        elif isinstance(operation, FileChange):
            kind, body = "file", {"actions": _actions(operation, node.inputs)}
        elif isinstance(operation, Merge):
            kind, body = (
                "merge",
                {"inputs": [{"input": number} if number else {} for number in range(len(node.inputs))]},
            )
        else:
            kind, body = "source", self._source(operation)
        told: dict[str, Any] = {"Op": {kind: body}}
        if platform:
            found = parse_platform(platform)
            told["platform"] = {"Architecture": found.architecture, "OS": found.os}
            if found.variant:
                told["platform"]["Variant"] = found.variant
        told["constraints"] = {}
        return told

    def _source(self, operation: ImageSource | LocalSource | HttpSource | GitSource) -> dict[str, Any]:
        if isinstance(operation, ImageSource):
            name, digest = as_resolved(operation, self._images)
            return {"identifier": f"docker-image://{name.partition('@')[0]}@{digest}"}
        if isinstance(operation, HttpSource):
            attrs = {"http.checksum": operation.checksum} if operation.checksum else {}
            return {"identifier": redacted(operation.url), "attrs": {**attrs, "http.filename": operation.filename}}
        if isinstance(operation, GitSource):
            url = redacted(operation.url)
            attrs = {"git.fullurl": url}
            if operation.keep_git_dir:
                attrs["git.keepgitdir"] = "true"
            if operation.checksum:
                attrs["git.checksum"] = operation.checksum
            where = f"#{operation.ref}" + (f":{operation.subdir}" if operation.subdir else "")
            return {
                "identifier": f"git://{url.partition('://')[2]}{where if where != '#' else ''}",
                "attrs": attrs,
            }
        attrs = {}
        if operation.ignore:
            attrs["local.excludepatterns"] = _list(operation.ignore)
        if taken := self._taken(operation):
            attrs["local.followpaths"] = _list(taken)
        main = operation.name == "context"
        attrs["local.sharedkeyhint"] = operation.name if main else f"context:{operation.name}"
        return {"identifier": f"local://{operation.name}", "attrs": attrs}

    def _taken(self, source: LocalSource) -> list[str]:
        """Which paths of a local directory the steps name, sorted; none if they take all of it."""
        taken: set[str] = set()
        for node in self.nodes:
            inputs = [child.operation == source for child in node.inputs]
            operation = node.operation
            if isinstance(operation, FileChange):
                for action in operation.actions:
                    if isinstance(action, Copy) and action.input != NO_INPUT and inputs[action.input]:
                        taken.update(action.sources)
            elif isinstance(operation, Run):
                bound = [mount for mount in operation.mounts if mount.input != NO_INPUT and inputs[mount.input]]
                taken.update(mount.source for mount in bound)
                if source.name == "context" and any(mount.kind == "tmpfs" for mount in operation.mounts):
                    taken.add("/")  # to BuildKit a tmpfs without from= is mounted from the context
        paths = sorted({posixpath.normpath(f"/{path}").lstrip("/") for path in taken})
        return paths if all(paths) else []


def local_dockerfile(name: str) -> dict[str, Any]:
    """``llbDefinition`` and ``digestMapping`` of where a Dockerfile of this machine was read from."""
    names = [name, f"{name}.dockerignore"]
    if posixpath.basename(name) == "Dockerfile":
        names.append(posixpath.join(posixpath.dirname(name), "dockerfile"))
    attrs = {"local.differ": "none", "local.followpaths": _list(names), "local.sharedkeyhint": "dockerfile"}
    source = {"Op": {"source": {"identifier": "local://dockerfile", "attrs": attrs}}, "constraints": {}}
    digests = ["sha256:" + sha256(f"{number} {names}".encode()).hexdigest() for number in range(2)]
    return {
        "llbDefinition": [{"id": "step0", "op": source}, {"id": "step1", "op": {"Op": {}}, "inputs": ["step0:0"]}],
        "digestMapping": dict(sorted(zip(digests, ("step0", "step1"), strict=True))),
    }


def as_resolved(image: ImageSource, images: Mapping[str, str]) -> tuple[str, str]:
    """The reference as it was asked for, and the digest it was resolved to: of the index, where there is one.

    ``images``: digests by reference. The operation's own names the manifest that was chosen.
    """
    for reference in (image.reference, image.reference.partition("@")[0]):
        if reference in images:
            return reference, images[reference]
    return image.reference, image.digest


def _list(items: Sequence[str]) -> str:
    return json.dumps(list(items), ensure_ascii=False, separators=(",", ":"))


def _exec(run: Run) -> dict[str, Any]:
    meta: dict[str, Any] = {"args": list(run.args), "env": list(run.env), "cwd": run.cwd}
    if run.user:
        meta["user"] = run.user
    if run.extra_hosts:
        meta["extraHosts"] = [dict(zip(("Host", "IP"), text.split("=", 1), strict=True)) for text in run.extra_hosts]
    if run.ulimits:
        meta["ulimit"] = [_limit(text) for text in run.ulimits]
    meta["removeMountStubsRecursive"] = True
    told: dict[str, Any] = {"meta": meta}
    root: dict[str, Any] = {"dest": "/"}
    if run.rootfs:
        root["input"] = run.rootfs
    mounts = [mount for mount in run.mounts if mount.kind != "secret" or mount.as_file]
    lent = ("secret", "ssh")
    mounts.sort(key=lambda mount: (lent.index(mount.kind) + 1, "") if mount.kind in lent else (0, mount.target))
    shared = [Mount("tmpfs", "/dev/shm", size=run.shm_size)] if run.shm_size else []
    told["mounts"] = [root, *map(_mount, [*shared, *mounts])]
    if number := _NETWORK[run.network]:
        told["network"] = number
    if run.security == "insecure":
        told["security"] = 1
    variables = [
        {"ID": mount.id, "name": mount.env, **({} if mount.required else {"optional": True})}
        for mount in run.mounts
        if mount.env
    ]
    if variables:
        told["secretenv"] = variables
    return told


def _limit(text: str) -> dict[str, Any]:
    name, _, bounds = text.partition("=")
    soft, _, hard = bounds.partition(":")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _mount(mount: Mount) -> dict[str, Any]:
    told: dict[str, Any] = {"dest": mount.target}
    if mount.input:
        told["input"] = mount.input
    if mount.source != "/":
        told["selector"] = mount.source
    if mount.kind in ("bind", "cache") and mount.readonly:
        told["readonly"] = True
    if kind := _MOUNTS[mount.kind]:
        told["mountType"] = kind
    if mount.kind in ("bind", "cache", "tmpfs"):
        told["output"] = -1
    if mount.kind in ("secret", "ssh"):
        option: dict[str, Any] = {"ID": mount.id}
        option.update({name: getattr(mount, name) for name in ("uid", "gid", "mode") if getattr(mount, name)})
        if not mount.required:
            option["optional"] = True
        told["secretOpt" if mount.kind == "secret" else "SSHOpt"] = option
    if mount.kind == "cache":
        told["cacheOpt"] = {"ID": mount.id}
        if sharing := _SHARING[mount.sharing]:
            told["cacheOpt"]["sharing"] = sharing
    if mount.kind == "tmpfs":
        told["TmpfsOpt"] = {"size": mount.size} if mount.size else {}
    return told


def _actions(change: FileChange, inputs: tuple[Node, ...]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    for action in change.actions:
        if isinstance(action, MakeDirectory):
            body = {
                "path": action.path,
                "mode": action.mode,
                "makeParents": True,
                **_owner(action.owner),
                "timestamp": -1,
            }
            told.append({"secondaryInput": -1, "Action": {"mkdir": body}})
            continue
        for source in action.sources:
            remote = action.input != NO_INPUT and isinstance(inputs[action.input].operation, HttpSource)
            told.append({"secondaryInput": action.input, "Action": {"copy": _copy(action, source, remote)}})
        for inline in action.inline:
            told.append({"secondaryInput": -1, "Action": {"mkfile": _file(action, inline)}})
    for number, entry in enumerate(told):
        # Each takes what the one before it made; only the last is what the step gives.
        entry["input"] = change.base if not number else len(inputs) + number - 1
        entry["output"] = 0 if number == len(told) - 1 else -1
    return [{key: entry[key] for key in ("input", "secondaryInput", "output", "Action")} for entry in told]


def _copy(action: Copy, source: str, remote: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"src": source, "dest": action.dest, **_owner(action.owner)}
    if action.parents:
        # What stands before /./ is not kept; the rest is a pattern below it.
        before, _, after = source.rpartition("/./") if "/./" in source else ("", "", source.lstrip("/"))
        body["src"] = before or "/"
        body["include_patterns"] = [after]
        body["required_paths"] = [f"{before}/{after}"]
    body["mode"] = int(action.mode, 8) if action.mode.isdigit() else -1
    if action.mode and not action.mode.isdigit():
        body["modeStr"] = action.mode
    if not remote:
        body.update(followSymlink=True, dirCopyContents=True)
        if action.unpack is not False:
            body["attemptUnpackDockerCompatibility"] = True
    body["createDestPath"] = True
    if not remote:
        body.update(allowWildcard=True, allowEmptyWildcard=True)
    if action.exclude:
        body["exclude_patterns"] = list(action.exclude)
    body["timestamp"] = -1
    return body


def _file(action: Copy, inline: Inline) -> dict[str, Any]:
    path = action.dest if not action.dest.endswith("/") else action.dest + inline.name
    mode = int(action.mode, 8) if action.mode.isdigit() else inline.mode
    return {
        "path": path,
        "mode": mode,
        "data": b64encode(inline.data).decode(),
        **_owner(action.owner),
        "timestamp": -1,
    }


def _owner(text: str) -> dict[str, Any]:
    if not text:
        return {}
    user, _, group = text.partition(":")
    parts = {"user": user, "group": group}
    return {"owner": {name: _account(part) for name, part in parts.items() if part}}


def _account(text: str) -> dict[str, Any]:
    return {
        "User": {"byId": int(text)}
        if text.isdigit() and int(text)
        else {}
        if text.isdigit()
        else {"byName": {"name": text}}
    }
