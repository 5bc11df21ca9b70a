"""Drives a solver: carries its instructions out on threads and feeds back what came of them."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec

from shiplap.errors import Interrupted, ShiplapError
from shiplap.events.facts import StepFinished, StepStarted
from shiplap.graph.node import Node, walk
from shiplap.graph.operations import (
    NO_INPUT,
    Copy,
    FileChange,
    GitSource,
    HttpSource,
    ImageSource,
    LocalSource,
    Merge,
    Run,
)
from shiplap.ops.local import open_context
from shiplap.ops.workbench import Workbench
from shiplap.solver.keys import Key, chosen_inputs, content_inputs
from shiplap.solver.machine import Digest, Execute, Hit, Instruction, Look, Solver
from shiplap.store.results import FileMemory, Result
from shiplap.store.snapshots import EMPTY
from shiplap.trees.digest import selection_digest
from shiplap.trees.once import ReadOnce
from shiplap.trees.tree import Tree

LIVE = "live"
"""The result of a local source, which has no snapshot: its tree is opened where it lies."""


class _GetReady(msgspec.Struct, frozen=True):
    """Start what isolates steps beside the first other work: 60 ms until a RUN could begin. ``network``: it needs one."""

    network: bool


_Work = Instruction | _GetReady


class Driver:
    """Gets the results of nodes. One for a build; ``solve`` may be called once."""

    def __init__(self, targets: Iterable[Node], bench: Workbench, parallel: int) -> None:
        self._targets = list(targets)
        self._bench = bench
        self._parallel = parallel
        self._solver = Solver(self._targets)
        self._as_files = needed_as_files(self._targets)
        self._answers: queue.Queue[Callable[[], list[Instruction]] | BaseException] = queue.Queue()
        self._memories: dict[str, FileMemory] = {}
        self._hits: dict[str, str] = {}
        """Keys that were found or made, and the snapshots they led to: what prune shall count as used now."""
        self._once: defaultdict[str, ReadOnce] = defaultdict(ReadOnce)
        """Of each local source, what was read of it."""
        self._memory_lock = threading.Lock()
        self._unready = any(isinstance(node.operation, Run) for node in walk(self._targets))
        """There are RUNs, and nobody has begun to get ready for one."""

    @property
    def used(self) -> Mapping[str, str]:
        """The keys under which results were found or kept, and their snapshots."""
        return self._hits

    @property
    def ran(self) -> list[Node]:
        """Nodes that were run, in the order in which they ended."""
        return self._solver.ran

    @property
    def reused(self) -> list[Node]:
        """Nodes whose earlier result was taken."""
        return self._solver.reused

    def solve(self) -> None:
        """Get every target's result. The first error stops the build, once what is running has stopped, and is raised."""
        fault: BaseException | None = None
        pending = 0
        with _Pool(self._work, self._parallel, self._bench.cancel.set) as pool:
            todo = deque(self._solver.start() if self._targets else [])
            while todo or pending:
                while todo:
                    instruction = todo.popleft()
                    if fault is not None:
                        continue
                    if isinstance(instruction, Look):
                        try:
                            todo.extend(self._solver.looked(instruction.node, self._look(instruction)))
                        except BaseException as error:  # noqa: BLE001  raised below, when all threads have ended
                            fault = error
                            self._bench.cancel.set()
                        continue
                    for work in (*self._ready_before(instruction), instruction):
                        pending += 1
                        pool.submit(work)
                if not pending:
                    break
                try:
                    answer = self._answers.get(timeout=0.5)
                except queue.Empty:
                    continue
                except KeyboardInterrupt as error:
                    # A program's own Ctrl-C: it goes on its way once what is running has stopped.
                    fault = error
                    self._bench.cancel.set()
                    continue
                pending -= 1
                if isinstance(answer, BaseException):
                    if fault is None or (isinstance(fault, Interrupted) and not isinstance(answer, Interrupted)):
                        fault = answer
                    self._bench.cancel.set()
                elif fault is None:
                    todo.extend(answer())
        for memory in self._memories.values():
            memory.save()
        self._bench.store.results.touch(self._hits)
        if fault is not None:
            raise fault

    def _ready_before(self, instruction: Instruction) -> list[_GetReady]:
        """What to begin beside ``instruction``: at the first work that a RUN waits for, its sandbox."""
        if not self._unready or not isinstance(instruction, Execute):
            return []
        steps = [node.operation for node in self._solver.missing if isinstance(node.operation, Run)]
        self._unready = not steps
        return [_GetReady(any(step.network == "default" for step in steps))] if steps else []

    def unmade(self) -> list[Node]:
        """Nodes that ``solve`` would make, as far as the cache and the contexts tell without anything being made."""
        todo = deque(self._solver.start())
        while todo:
            instruction = todo.popleft()
            if isinstance(instruction, Look):
                todo.extend(self._solver.looked(instruction.node, self._known(instruction.key.digest)))
            elif isinstance(instruction, Digest):
                contents = {number: self._digest(instruction.node, number) for number in instruction.inputs}
                todo.extend(self._solver.digested(instruction.node, contents))
            elif isinstance(instruction.node.operation, LocalSource):
                todo.extend(self._solver.executed(instruction.node, LIVE))
        return self._solver.missing

    def result(self, node: Node) -> str:
        """The snapshot of ``node``, which must be a target."""
        return self._solver.result(node)

    def results(self) -> dict[str, str]:
        """Snapshots by digest of the node, of all that had to be had (not of sources that are read where they lie)."""
        return {digest: result for digest, result in self._solver.results().items() if result != LIVE}

    # -- carrying instructions out

    def _work(self, instruction: _Work) -> None:
        try:
            self._bench.check()
            if isinstance(instruction, Digest):
                contents = {number: self._digest(instruction.node, number) for number in instruction.inputs}
                self._answers.put(lambda: self._solver.digested(instruction.node, contents))
            elif isinstance(instruction, _GetReady):
                with suppress(ShiplapError):  # which the RUN itself raises, at its place in the Dockerfile
                    runtime = self._bench.runtime()
                    if instruction.network:
                        runtime.outlet()
                self._answers.put(list)
            elif isinstance(instruction, Execute):
                result, reused = self._execute(instruction.node, instruction.keys)
                self._answers.put(lambda: self._solver.executed(instruction.node, result, reused=reused))
        except BaseException as error:  # noqa: BLE001  every fault travels to the driving thread, which raises it
            if isinstance(error, ShiplapError) and not isinstance(instruction, _GetReady):
                about = instruction.node.about
                error.where = about.place if error.where is None else error.where
                error.platform = error.platform or about.platform
            self._answers.put(error)

    def _look(self, instruction: Look) -> Hit | None:
        node = instruction.node
        hit = self._known(instruction.key.digest)
        if hit is not None:
            self._tell_cached(node)
        return hit

    def _tell_cached(self, node: Node) -> None:
        at = time.time()
        place = node.about.place
        file, line = (place.file or "", place.line or 0) if place is not None else ("", 0)
        self._bench.sink(StepStarted(node.digest, node.about.name, at, True, file, line, node.about.stage))
        self._bench.sink(StepFinished(node.digest, at, 0.0, cached=True))

    def _known(self, key: str) -> Hit | None:
        found = self._bench.store.results.get(key)
        if found is None or not (found.snapshot == EMPTY or self._bench.store.snapshots.whole(found.snapshot)):
            return None
        self._hits[key] = found.snapshot
        return Hit(found.snapshot, found.canonical)

    def _execute(self, node: Node, keys: tuple[Key, ...]) -> tuple[str, bool]:
        """The result of ``node``, and whether another process made it while this one waited to."""
        if not keys:
            return self._bring(node), False
        store = self._bench.store
        with store.once(keys[-1].digest, self._bench.check):
            # Another process may have done it while we waited, unless we were told to do it anew.
            hit = None if node.about.no_cache else self._known(keys[-1].digest)
            if hit is None:
                with self._bench.telling(node):
                    snapshot = self._make(node)
            else:
                self._tell_cached(node)
                snapshot = hit.result
            self._record(node, keys, snapshot)
        return snapshot, hit is not None

    def _bring(self, node: Node) -> str:
        """The result of a source without a key: of a remote one the snapshot, fetched if it is not here or has changed."""
        operation = node.operation
        if not isinstance(operation, HttpSource | GitSource):
            return LIVE
        known = self._bench.fetched.get(node.digest)
        if known is None:
            with self._bench.telling(node):
                if isinstance(operation, HttpSource):
                    from shiplap.ops.http import fetch_http

                    known = fetch_http(operation, self._bench, node.digest)
                else:
                    from shiplap.ops.git import fetch_git

                    known = fetch_git(operation, self._bench)
            self._bench.fetched[node.digest] = known
        return known.snapshot

    def _record(self, node: Node, keys: tuple[Key, ...], snapshot: str) -> None:
        canonical = self._solver.canonical_for(node, snapshot)
        for key in keys:
            self._bench.store.results.put(key.digest, Result(snapshot, canonical), key.parts, node.about.name)
            self._hits[key.digest] = snapshot

    def _make(self, node: Node) -> str:
        operation = node.operation
        inputs = [self._solver.result(child) for child in node.inputs]

        def open_tree(number: int) -> Tree:
            return self._tree(node.inputs[number])

        # Imported here: a build that finds everything in the cache needs none of it.
        if isinstance(operation, Run):
            from shiplap.ops.run import run_step

            return run_step(operation, node, inputs, open_tree, self._bench)
        if isinstance(operation, FileChange):
            from shiplap.ops.file import change_files

            as_files = node.digest in self._as_files
            return change_files(operation, inputs, open_tree, self._bench, node.about.name, as_files=as_files)
        if isinstance(operation, ImageSource):
            from shiplap.ops.image import make_image

            return make_image(operation, node.digest, self._bench)
        if isinstance(operation, Merge):
            from shiplap.ops.merge import merge

            return merge(inputs, self._bench, node.about.name)
        raise TypeError(f"no way to run {type(operation).__name__}")

    def _tree(self, node: Node) -> Tree:
        if isinstance(node.operation, LocalSource):
            return open_context(node.operation, self._bench, self._once[node.digest])
        return self._bench.store.snapshots.tree(self._solver.result(node))

    # -- content digests

    def _digest(self, node: Node, number: int) -> str:
        """The digest of what ``node`` chooses from its input ``number``."""
        child = node.inputs[number]
        choices = _choices(node, number)
        remembered = ""
        if not isinstance(child.operation, LocalSource):
            remembered = f"{self._solver.result(child)} {choices!r}"
            known = self._bench.store.results.digest(remembered)
            if known is not None:
                return known
        memory = self._memory(child.operation) if isinstance(child.operation, LocalSource) else None
        with self._tree(child) as tree:
            digest = " ".join(selection_digest(tree, choice, memory) for choice in choices)
        if remembered:
            self._bench.store.results.put_digest(remembered, digest)
        return digest

    def _memory(self, operation: LocalSource) -> FileMemory | None:
        context = self._bench.contexts.get(operation.name)
        if context is None:
            return None
        with self._memory_lock:
            if operation.name not in self._memories:
                self._memories[operation.name] = self._bench.store.file_memory(str(context.path))
            return self._memories[operation.name]


class _Pool:
    """Threads that are started when there is work for them, and joined at the end (concurrent.futures costs 10 ms)."""

    def __init__(self, work: Callable[[_Work], None], most: int, broken_off: Callable[[], None]) -> None:
        self._work = work
        self._most = most
        self._broken_off = broken_off
        self._threads: list[threading.Thread] = []
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._broken_off()  # a KeyboardInterrupt between two instructions: nobody waits for a step to end by itself
        for _thread in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def submit(self, instruction: _Work) -> None:
        self._queue.put(instruction)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=f"shiplap-step-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        while (instruction := self._queue.get()) is not None:
            self._work(instruction)
            self._idle.release()


def needed_as_files(targets: Iterable[Node]) -> set[str]:
    """Digests of the nodes whose results somebody reads as files: a RUN over or beside them, or a COPY out of them.

    All others are only packed into the image: their layers need never be files on disk.
    """
    needed: set[str] = set()
    for node in reversed(list(walk(targets))):
        for number, child in enumerate(node.inputs):
            reads = isinstance(node.operation, Run) or number in chosen_inputs(node.operation)
            if reads or node.digest in needed:
                needed.add(child.digest)
    return needed


def _choices(node: Node, number: int) -> list[Copy]:
    """What ``node`` chooses from input ``number``, each as a COPY would."""
    assert number in content_inputs(node.operation)
    if isinstance(node.operation, FileChange):
        return [action for action in node.operation.actions if isinstance(action, Copy) and action.input == number]
    assert isinstance(node.operation, Run)
    reset = isinstance(node.inputs[number].operation, LocalSource)
    sources = tuple(mount.source for mount in node.operation.mounts if mount.input == number != NO_INPUT)
    return [Copy(number, sources, "/", reset_owner=reset)]
