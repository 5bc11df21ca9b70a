"""Our plan in the shape in which ``record.py`` writes BuildKit's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from shiplap.dockerfile.checks import Remark
from shiplap.dockerfile.options import Plan
from shiplap.graph.node import Node, walk
from shiplap.graph.operations import (
    NO_INPUT,
    Copy,
    FileAction,
    FileChange,
    GitSource,
    HttpSource,
    ImageSource,
    Merge,
    Mount,
    Run,
)
from shiplap.oci.config import encode_config

VOLATILE = re.compile(r"@sha256:[0-9a-f]{64}")


def steps(plan: Plan) -> list[list[Any]]:
    found = []
    for node in walk([plan.target] if plan.target else []):
        shape = _step(node)
        if shape is not None:
            name = VOLATILE.sub("", node.about.name)
            # Equal images of several stages are one vertex, and which stage names it is chance in BuildKit.
            found.append([name.rpartition("] ")[2] if "image" in shape else name, shape])
    return sorted(found, key=lambda step: (step[0], json.dumps(step[1])))


def _step(node: Node) -> dict[str, Any] | None:
    operation = node.operation
    if isinstance(operation, ImageSource):
        return {"image": VOLATILE.sub("", operation.reference)}
    if isinstance(operation, FileChange):
        return {"files": [shape for action in operation.actions for shape in _action(node, action)]}
    if isinstance(operation, Merge):
        return {"merge": len(node.inputs)}
    if not isinstance(operation, Run):
        return None
    shape: dict[str, Any] = {"args": list(operation.args), "env": list(operation.env), "cwd": operation.cwd}
    if operation.user:
        shape["user"] = operation.user
    if operation.network != "default":
        shape["network"] = operation.network
    if operation.security != "sandbox":
        shape["security"] = operation.security
    mounts = [shape for mount in operation.mounts for shape in _mount(mount)]
    if operation.files:
        mounts.append({"kind": "bind", "target": "/dev/pipes/", "source": "/", "readonly": True})
    if mounts:
        shape["mounts"] = sorted(mounts, key=lambda mount: json.dumps(mount, sort_keys=True))
    return shape


def _mount(mount: Mount) -> list[dict[str, Any]]:
    shape: dict[str, Any] = {"kind": mount.kind, "target": mount.target}
    if mount.kind in ("bind", "cache"):
        if mount.source != "/":
            shape["source"] = mount.source
        if mount.readonly:
            shape["readonly"] = True
    if mount.kind == "cache":
        shape["id"], shape["sharing"] = mount.id, mount.sharing
    if mount.kind not in ("secret", "ssh"):
        return [shape]
    shape.update(id=mount.id, mode=mount.mode, required=mount.required)
    found = [shape] if mount.as_file else []
    if mount.env:
        found.append({"kind": "secret", "env": mount.env, "id": mount.id})
    return found


def _action(node: Node, action: FileAction) -> list[dict[str, Any]]:
    if not isinstance(action, Copy):
        return [{"mkdir": action.path}]
    remote = action.input != NO_INPUT and isinstance(node.inputs[action.input].operation, HttpSource | GitSource)
    found = []
    for source in (*action.sources, *(f"<<{inline.name}" for inline in action.inline)):
        shape: dict[str, Any] = {"copy": source, "dest": action.dest}
        if action.exclude:
            shape["exclude"] = list(action.exclude)
        if action.unpack is True or (action.unpack is None and not remote):
            shape["unpack"] = True
        found.append(shape)
    return found


def config(plan: Plan) -> dict[str, Any]:
    made = json.loads(encode_config(plan.config))
    history = [
        [entry.get("created_by", ""), "empty" if entry.get("empty_layer") else "layer", entry.get("comment", "")]
        for entry in made["history"] or []
    ]
    shown = {name: made[name] for name in ("architecture", "os", "variant", "author", "config") if name in made}
    return {"config": shown, "history": history}


def warnings(remarks: Iterable[Remark]) -> list[list[Any]]:
    return sorted([remark.rule, remark.where.line, remark.message] for remark in remarks)
