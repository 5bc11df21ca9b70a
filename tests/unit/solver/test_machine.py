"""The solver without any I/O: events in, instructions out."""

from __future__ import annotations

from collections.abc import Callable

from shiplap.graph.node import About, Node
from shiplap.graph.operations import Copy, FileChange, ImageSource, LocalSource, Mount, Run
from shiplap.solver.machine import Digest, Execute, Hit, Instruction, Look, Solver

BASE = Node(ImageSource("docker.io/library/base:latest", "sha256:" + "1" * 64, "linux/amd64"), (), About("base"))
CONTEXT = Node(LocalSource("context"), (), About("context"))


def run(parent: Node, command: str, **about: object) -> Node:
    return Node(Run((command,), (), "/", "linux/amd64"), (parent,), About(command, **about))  # type: ignore[arg-type]


def copy(parent: Node, source: Node, path: str = "/x") -> Node:
    operation = FileChange((Copy(1, (path,), "/y"),))
    return Node(operation, (parent, source), About(f"copy {path}"))


class World:
    """Plays the rest of shiplap: a cache, contents, and a log of what was asked."""

    def __init__(self, cache: dict[str, Hit] | None = None, contents: Callable[[Node, int], str] | None = None) -> None:
        self.cache = {} if cache is None else cache
        self.contents = contents or (lambda node, number: f"content of {node.inputs[number].about.name}")
        self.log: list[str] = []
        self.made = 0

    def solve(self, *targets: Node) -> Solver:
        solver = Solver(targets)
        todo: list[Instruction] = solver.start()
        while todo:
            one = todo.pop(0)
            if isinstance(one, Look):
                todo += solver.looked(one.node, self.cache.get(one.key.digest))
            elif isinstance(one, Digest):
                self.log.append(f"digest {one.node.about.name}")
                todo += solver.digested(one.node, {n: self.contents(one.node, n) for n in one.inputs})
            else:
                assert isinstance(one, Execute)
                self.made += 1
                result = f"result-{self.made}"
                if one.keys:
                    self.log.append(f"run {one.node.about.name}")
                for key in one.keys:
                    self.cache[key.digest] = Hit(result, solver.canonical_for(one.node, result))
                todo += solver.executed(one.node, result)
        assert solver.finished
        return solver


def test_runs_inputs_before_what_uses_them() -> None:
    world = World()
    world.solve(run(run(BASE, "one"), "two"))
    assert world.log == ["run base", "run one", "run two"]


def test_a_known_result_needs_nothing_above_it() -> None:
    world = World()
    target = run(run(BASE, "one"), "two")
    world.solve(target)
    world.log.clear()
    solver = world.solve(target)
    assert world.log == []
    assert [node.about.name for node in solver.reused] == ["base", "one", "two"]
    assert solver.result(target) == "result-3"


def test_a_cached_step_does_not_pull_its_evicted_base() -> None:
    world = World()
    target = run(run(BASE, "one"), "two")
    world.solve(target)
    # Only the last result is left, as after a prune of all else.
    world.cache = {key: hit for key, hit in world.cache.items() if hit.result == "result-3"}
    world.log.clear()
    world.solve(target)
    assert world.log == []


def test_a_changed_command_runs_and_what_follows_too() -> None:
    world = World()
    world.solve(run(run(BASE, "one"), "two"))
    world.log.clear()
    world.solve(run(run(BASE, "changed"), "two"))
    assert world.log == ["run changed", "run two"]


def test_early_cut_off_an_equal_rebuild_of_a_stage_is_still_a_hit() -> None:
    world = World(contents=lambda node, number: "the same binary")
    world.solve(run(copy(BASE, run(BASE, "build v1")), "test"))
    world.log.clear()
    world.solve(run(copy(BASE, run(BASE, "build v2")), "test"))
    assert world.log == ["run build v2", "digest copy /x"]


def test_a_copy_whose_stage_is_unchanged_is_found_without_digesting() -> None:
    world = World()
    target = copy(BASE, run(BASE, "build"))
    world.solve(target)
    assert "digest copy /x" in world.log
    world.log.clear()
    world.solve(target)
    assert world.log == []


def test_context_files_count_by_content_only() -> None:
    content = {"now": "v1"}
    world = World(contents=lambda node, number: content["now"])
    target = run(copy(BASE, CONTEXT), "make")
    world.solve(target)
    world.log.clear()
    world.solve(target)
    assert world.log == ["digest copy /x"]
    content["now"] = "v2"
    world.log.clear()
    world.solve(target)
    assert world.log == ["digest copy /x", "run copy /x", "run make"]


def test_a_renamed_source_with_equal_content_hits() -> None:
    world = World(contents=lambda node, number: "same")
    world.solve(copy(BASE, CONTEXT, "/old"))
    world.log.clear()
    world.solve(copy(BASE, CONTEXT, "/new"))
    assert world.log == ["digest copy /new"]


def test_equal_operations_of_two_stages_run_once() -> None:
    world = World()
    left, right = run(BASE, "install"), run(BASE, "install")
    world.solve(copy(run(left, "a"), run(right, "b")))
    assert world.log.count("run install") == 1


def test_both_stages_of_a_copy_may_run_at_once() -> None:
    """The further stages are begun while the first one's result, needed for a key, is still awaited."""
    meeting = copy(copy(BASE, run(BASE, "a"), "/a"), run(BASE, "b"), "/b")
    solver = Solver([run(copy(meeting, run(BASE, "c"), "/c"), "last")])
    running: list[str] = []
    todo = solver.start()
    while todo:
        one = todo.pop(0)
        if isinstance(one, Look):
            todo += solver.looked(one.node, None)
        elif isinstance(one, Execute) and one.node is BASE:
            todo += solver.executed(one.node, "base")
        else:
            running.append(one.node.about.name)
    assert sorted(running) == ["a", "b", "c"]


def test_no_cache_runs_again_and_so_does_what_is_built_on_it() -> None:
    world = World(contents=lambda node, number: "same")
    target = run(run(BASE, "one"), "two")
    world.solve(target)
    world.log.clear()
    fresh = run(run(BASE, "one", no_cache=True), "two")
    world.solve(fresh)
    assert world.log == ["run one", "run two"]
    # The next build with cache takes the fresh results.
    world.log.clear()
    assert world.solve(target).result(target) == "result-5"
    assert world.log == []


def test_no_cache_still_cuts_off_by_content() -> None:
    world = World(contents=lambda node, number: "same")
    world.solve(run(copy(BASE, run(BASE, "build")), "test"))
    world.log.clear()
    world.solve(run(copy(BASE, run(BASE, "build", no_cache=True)), "test"))
    assert world.log == ["run build", "digest copy /x"]


def test_several_targets() -> None:
    world = World()
    one, two = run(BASE, "one"), run(BASE, "two")
    solver = world.solve(one, two)
    assert {solver.result(one), solver.result(two)} == {"result-2", "result-3"}


def test_a_deep_graph_needs_no_deep_stack() -> None:
    node = BASE
    for number in range(3000):
        node = run(node, f"step {number}")
    world = World()
    solver = world.solve(node)
    assert len(solver.ran) == 3001


def test_a_copy_out_of_its_own_base_goes_by_the_base() -> None:
    """``FROM a`` and ``COPY --from=a /f /g``: an equal ``/f`` says nothing of the rest of ``a``."""
    world = World(contents=lambda node, number: "the same file")

    def target(command: str) -> Node:
        base = run(BASE, command)
        return Node(FileChange((Copy(0, ("/f",), "/g"),)), (base,), About("copy"))

    first = world.solve(target("v1")).result(target("v1"))
    assert world.solve(target("v2")).result(target("v2")) != first
    other = Node(FileChange((Copy(0, ("/e",), "/g"),)), target("v1").inputs, About("copy"))
    assert world.solve(other).result(other) != first


def test_a_mount_of_its_own_base_goes_by_the_base() -> None:
    world = World(contents=lambda node, number: "the same file")

    def target(command: str) -> Node:
        mounted = Run(("make",), (), "/", "linux/amd64", mounts=(Mount("bind", "/m", input=0, source="/f"),))
        return Node(mounted, (run(BASE, command),), About("make"))

    first = world.solve(target("v1")).result(target("v1"))
    assert world.solve(target("v2")).result(target("v2")) != first
