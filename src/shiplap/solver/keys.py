"""Cache keys: the digest of named parts. The parts are kept, so that a miss can name its cause."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import msgspec

from shiplap.graph.node import Node
from shiplap.graph.operations import (
    NO_INPUT,
    Copy,
    FileChange,
    GitSource,
    HttpSource,
    ImageSource,
    LocalSource,
    Operation,
    Run,
    identity,
)

LIVE = (LocalSource, HttpSource, GitSource)
"""Sources with no key of their own: what they hold is asked for anew in each build, and known by content alone.

A file from a URL and a git commit become snapshots named by what they hold, so their content is digested but once.
"""


class Key(msgspec.Struct, frozen=True):
    """A cache key: ``digest`` of ``parts``, which are named: ``operation``, ``base``, ``input:1``, ``content:1``."""

    digest: str
    parts: Mapping[str, str]


def make_key(parts: Mapping[str, str]) -> Key:
    """The key of named parts; their order does not matter."""
    hasher = hashlib.sha256()
    for name in sorted(parts):
        hasher.update(f"{len(name)}:{name}={len(parts[name])}:{parts[name]}\n".encode())
    return Key("sha256:" + hasher.hexdigest(), dict(parts))


def chosen_inputs(operation: Operation) -> frozenset[int]:
    """The inputs of which an operation reads chosen files."""
    if isinstance(operation, FileChange):
        return frozenset(action.input for action in operation.actions if isinstance(action, Copy)) - {NO_INPUT}
    if isinstance(operation, Run):
        return frozenset(mount.input for mount in operation.mounts) - {NO_INPUT}
    return frozenset()


def content_inputs(operation: Operation) -> frozenset[int]:
    """The inputs of which an operation uses nothing but chosen files, so that their content may stand for them in a key.

    Not the one it goes on from: what is copied out of its own base (``FROM a``, ``COPY --from=a``) says nothing of the rest.
    """
    whole = (
        operation.base if isinstance(operation, FileChange) else operation.rootfs if isinstance(operation, Run) else 0
    )
    return chosen_inputs(operation) - {whole}


def source_key(operation: ImageSource) -> Key:
    """The key of an image: its manifest says everything."""
    return make_key({"image": operation.digest})


def operation_part(operation: Operation, contents: Collection[int]) -> str:
    """What stands for the operation itself in a key, of whose inputs ``contents`` are in the key by content.

    Where a COPY's input is, its source paths drop out: a renamed directory with equal contents is the same work. (Names
    that reach the result are part of the content digest.)
    """
    if contents and isinstance(operation, FileChange):
        operation = msgspec.structs.replace(
            operation,
            actions=tuple(
                msgspec.structs.replace(action, sources=("",) * len(action.sources), exclude=())
                if isinstance(action, Copy) and action.input in contents and action.unpack is False
                else action
                for action in operation.actions
            ),
        )
    if isinstance(operation, Run):
        operation = msgspec.structs.replace(
            operation, extra_hosts=tuple(h.partition("=")[0] for h in operation.extra_hosts)
        )
    return hashlib.sha256(identity(operation)).hexdigest()


def node_key(node: Node, inputs: Mapping[int, str], contents: Mapping[int, str]) -> Key:
    """The key of ``node``: input keys by number, or content digests in their place."""
    parts = {"operation": operation_part(node.operation, contents.keys())}
    for number in range(len(node.inputs)):
        if number in contents:
            parts[f"content:{number}"] = contents[number]
        else:
            parts[f"input:{number}"] = inputs[number]
    return make_key(parts)
