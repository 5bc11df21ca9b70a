"""The solver: what to look up, digest and run next. Events in, instructions out; it never does anything itself.

The bet: keys first, work last. A node's key is made of its inputs' keys; where the cache knows it, nothing above it is
needed any more. Where it does not, and the node uses chosen files of an input (COPY --from), that input is made and the
digest of those files gives a second key: so an equal rebuild of an earlier stage is still a hit (early cut-off).

A node goes NEW -> KEYING -> (LOOKING -> [DIGESTING -> LOOKING]) -> KEYED -> RUNNING -> DONE.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum

import msgspec

from shiplap.graph.node import Node, walk
from shiplap.graph.operations import ImageSource
from shiplap.solver.keys import LIVE, Key, content_inputs, make_key, node_key, source_key


class Look(msgspec.Struct, frozen=True):
    """Look ``key`` up in the cache; answer with ``looked``."""

    node: Node
    key: Key


class Digest(msgspec.Struct, frozen=True):
    """Digest the files that ``node`` chooses from its ``inputs`` (whose results are known); answer with ``digested``."""

    node: Node
    inputs: tuple[int, ...]


class Execute(msgspec.Struct, frozen=True):
    """Run ``node`` (all inputs have results) and remember the result under ``keys``; answer with ``executed``."""

    node: Node
    keys: tuple[Key, ...]


Instruction = Look | Digest | Execute


class Hit(msgspec.Struct, frozen=True):
    """An earlier result: what it is, and the key that stands for it in the keys of what follows."""

    result: str
    canonical: str


class State(Enum):
    """Where a node stands."""

    NEW = 0
    KEYING = 1
    LOOKING = 2
    DIGESTING = 3
    KEYED = 4
    RUNNING = 5
    DONE = 6


class _Task:
    """What is known of one node."""

    __slots__ = (
        "canonical",
        "contents",
        "dependents",
        "eager",
        "keys",
        "live",
        "node",
        "result",
        "reused",
        "state",
        "wanted",
    )

    def __init__(self, node: Node) -> None:
        self.node = node
        self.live = isinstance(node.operation, LIVE)
        self.state = State.NEW
        self.wanted = False
        """The result itself is needed, not only the key."""
        self.eager = False
        """What is wanted waits for this node's key: work that its key waits for may begin early."""
        self.keys: list[Key] = []
        self.canonical: str | None = None
        self.contents: dict[int, str] = {}
        self.result: str | None = None
        self.reused = False
        self.dependents: list[_Task] = []


class Solver:
    """Decides how to get the results of ``targets``. Feed it events until ``finished``.

    ``executed`` tells also which nodes were reused (``reused``) and run (``ran``), by digest.
    """

    def __init__(self, targets: Iterable[Node]) -> None:
        self._targets = [node.digest for node in targets]
        self._tasks: dict[str, _Task] = {}
        self._out: list[Instruction] = []
        self._agenda: deque[_Task] = deque()
        self.ran: list[Node] = []
        self.reused: list[Node] = []
        nodes = list(walk(targets))
        for node in nodes:
            self._tasks[node.digest] = _Task(node)
        for node in nodes:
            for digest in dict.fromkeys(child.digest for child in node.inputs):
                self._tasks[digest].dependents.append(self._tasks[node.digest])

    @property
    def finished(self) -> bool:
        """True when every target has a result."""
        return all(self._tasks[digest].result is not None for digest in self._targets)

    @property
    def missing(self) -> list[Node]:
        """Nodes whose results are needed, as far as is known by now, and not there yet."""
        return [task.node for task in self._tasks.values() if task.wanted and task.result is None]

    def result(self, node: Node) -> str:
        """The result of ``node``; KeyError if it has none yet."""
        result = self._tasks[node.digest].result
        if result is None:
            raise KeyError(node.digest)
        return result

    def results(self) -> dict[str, str]:
        """The results that were needed and are known, by digest of the node."""
        return {digest: task.result for digest, task in self._tasks.items() if task.result is not None}

    # -- events

    def start(self) -> list[Instruction]:
        """The first instructions."""
        for digest in self._targets:
            self._want(self._tasks[digest])
        return self._drain()

    def looked(self, node: Node, hit: Hit | None) -> list[Instruction]:
        """The cache was asked."""
        task = self._tasks[node.digest]
        if hit is not None:
            task.canonical, task.result, task.reused = hit.canonical, hit.result, True
            task.state = State.DONE
            self.reused.append(node)
            self._changed(task)
        elif self._undigested(task):
            task.state = State.DIGESTING
            self._agenda.append(task)
        else:
            self._key_is_known(task)
        return self._drain()

    def digested(self, node: Node, contents: Mapping[int, str]) -> list[Instruction]:
        """The chosen files of some inputs were digested."""
        task = self._tasks[node.digest]
        task.contents.update(contents)
        task.state = State.KEYING if not task.keys else State.DIGESTING
        self._agenda.append(task)
        return self._drain()

    def executed(self, node: Node, result: str, *, reused: bool = False) -> list[Instruction]:
        """The node was run, or (``reused``) the result taken that somebody else had made by then; ``result`` names it."""
        task = self._tasks[node.digest]
        task.result, task.state = result, State.DONE
        if not task.live:
            (self.reused if reused else self.ran).append(node)
            task.canonical = self.canonical_for(node, result)
        self._changed(task)
        return self._drain()

    def canonical_for(self, node: Node, result: str) -> str:
        """The key that will stand for ``node`` in the keys of what follows, now that it was run and gave ``result``.

        For a node that was run without looking (no cache) it is a fresh one: what was once made from an earlier result
        of the same work must not be taken for what follows from this one.
        """
        task = self._tasks[node.digest]
        return task.canonical or make_key({"fresh": result, "of": task.keys[-1].digest}).digest

    # -- decisions

    def _drain(self) -> list[Instruction]:
        while self._agenda:
            self._advance(self._agenda.popleft())
        out, self._out = self._out, []
        return out

    def _changed(self, task: _Task) -> None:
        self._agenda.extend(dependent for dependent in task.dependents if dependent.state is not State.NEW)

    def _want(self, task: _Task) -> None:
        if not task.wanted:
            task.wanted = True
            self._agenda.append(task)

    def _want_key(self, task: _Task) -> None:
        if task.state is State.NEW:
            task.state = State.KEYING
            self._agenda.append(task)

    def _advance(self, task: _Task) -> None:
        if task.state is State.NEW:
            task.state = State.KEYING
        if task.live:
            self._advance_live(task)
        elif task.state is State.KEYING:
            self._advance_keying(task)
        elif task.state is State.DIGESTING:
            self._advance_digesting(task)
        elif task.state is State.KEYED and task.wanted:
            self._advance_running(task)

    def _advance_live(self, task: _Task) -> None:
        if task.state is State.KEYING:
            task.state = State.RUNNING
            self._out.append(Execute(task.node, ()))

    def _advance_keying(self, task: _Task) -> None:
        inputs = self._inputs(task)
        for child in inputs:
            self._want_key(child)
        chosen = content_inputs(task.node.operation)
        live = tuple(number for number in sorted(chosen) if inputs[number].live and number not in task.contents)
        if live and all(inputs[number].result is not None for number in live):
            task.state = State.LOOKING
            self._out.append(Digest(task.node, live))
            return
        keys = {number: child.canonical for number, child in enumerate(inputs) if number not in task.contents}
        if live or any(key is None for key in keys.values()):
            self._begin_early(task, inputs)
            return
        self._have_key(task, {number: key for number, key in keys.items() if key is not None})

    def _begin_early(self, task: _Task, inputs: list[_Task]) -> None:
        # The keys of some inputs wait for work. Those that are known to be no hits will have to be made: begin now, so
        # that two stages whose outputs meet are built at the same time.
        if task.wanted or task.eager or task.node.about.no_cache:
            for child in inputs:
                if child.state is State.KEYED:
                    self._want(child)
                elif child.result is None and not child.eager:
                    child.eager = True
                    self._agenda.append(child)

    def _have_key(self, task: _Task, inputs: Mapping[int, str]) -> None:
        operation = task.node.operation
        key = (
            source_key(operation) if isinstance(operation, ImageSource) else node_key(task.node, inputs, task.contents)
        )
        task.keys.append(key)
        if task.node.about.no_cache and not isinstance(operation, ImageSource):
            self._key_is_known(task, fresh=True)
        else:
            task.state = State.LOOKING
            self._out.append(Look(task.node, key))

    def _undigested(self, task: _Task) -> tuple[int, ...]:
        return tuple(n for n in sorted(content_inputs(task.node.operation)) if n not in task.contents)

    def _advance_digesting(self, task: _Task) -> None:
        inputs = self._inputs(task)
        missing = self._undigested(task)
        if not missing:
            self._have_key(task, {n: c.canonical for n, c in enumerate(inputs) if c.canonical is not None})
            return
        for number in missing:
            self._want(inputs[number])
        if all(inputs[number].result is not None for number in missing):
            task.state = State.LOOKING
            self._out.append(Digest(task.node, missing))

    def _key_is_known(self, task: _Task, fresh: bool = False) -> None:
        task.state = State.KEYED
        if fresh:
            self._want(task)
            self._agenda.append(task)
        else:
            task.canonical = task.keys[-1].digest
            if task.wanted:
                self._agenda.append(task)
        self._changed(task)

    def _advance_running(self, task: _Task) -> None:
        inputs = self._inputs(task)
        for child in inputs:
            self._want(child)
        if all(child.result is not None for child in inputs):
            task.state = State.RUNNING
            self._out.append(Execute(task.node, tuple(task.keys)))

    def _inputs(self, task: _Task) -> list[_Task]:
        return [self._tasks[child.digest] for child in task.node.inputs]
