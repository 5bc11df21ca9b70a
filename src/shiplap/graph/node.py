"""Nodes: an operation and its inputs, named by the digest of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from shiplap.errors import Place
from shiplap.graph.operations import Operation, identity


class About:
    """What people want to know of a node and what never changes its result."""

    __slots__ = ("instruction", "name", "no_cache", "place", "platform", "stage")

    def __init__(
        self,
        name: str,
        *,
        stage: str = "",
        instruction: str = "",
        place: Place | None = None,
        no_cache: bool = False,
        platform: str = "",
    ) -> None:
        self.name = name
        """As progress shows it: ``[build 2/5] RUN make``."""
        self.stage = stage
        self.instruction = instruction
        self.place = place
        self.no_cache = no_cache
        """Do not look for an earlier result (``--no-cache``, ``--no-cache-filter``)."""
        self.platform = platform
        """In a build for several platforms: that of the step, ``linux/amd64->arm64`` if what it makes is for another."""


class Node:
    """An operation with its inputs. Two nodes of equal ``digest`` do the same work."""

    __slots__ = ("about", "digest", "inputs", "operation")

    def __init__(self, operation: Operation, inputs: tuple[Node, ...], about: About) -> None:
        self.operation = operation
        self.inputs = inputs
        self.about = about
        hasher = hashlib.sha256(identity(operation))
        for node in inputs:
            hasher.update(b"\0" + node.digest.encode())
        self.digest: str = "sha256:" + hasher.hexdigest()

    def __repr__(self) -> str:
        return f"Node({self.about.name!r}, {self.digest[7:19]})"


def walk(targets: Iterable[Node]) -> Iterator[Node]:
    """Every node that ``targets`` reach, each digest once, inputs before what uses them. No recursion: graphs may be deep."""
    seen: set[str] = set()
    stack: list[tuple[Node, bool]] = [(node, False) for node in reversed(list(targets))]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
            continue
        if node.digest in seen:
            continue
        seen.add(node.digest)
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.inputs) if child.digest not in seen)
