"""Nodes: what is in a digest, what is not, and the order of a walk."""

from __future__ import annotations

import msgspec
import pytest

from shiplap.errors import Place
from shiplap.graph.node import About, Node, walk
from shiplap.graph.operations import (
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
    Operation,
    Run,
    identity,
)

DIGEST = "sha256:" + "a" * 64
RUN = Run(("make",), ("A=1",), "/", "linux/amd64")


def node(operation: Operation, *inputs: Node, name: str = "it") -> Node:
    return Node(operation, inputs, About(name))


def test_equal_work_has_equal_digests_whatever_it_is_called() -> None:
    one = Node(RUN, (), About("[1/2] RUN make", stage="build", place=Place("Dockerfile", 3), no_cache=True))
    other = Node(Run(("make",), ("A=1",), "/", "linux/amd64"), (), About("[7/9] RUN make"))
    assert one.digest == other.digest


def test_the_registry_of_an_image_is_not_in_its_digest() -> None:
    one = node(ImageSource("docker.io/library/x:1", DIGEST, "linux/amd64"))
    mirrored = node(ImageSource("mirror.example/x:2", DIGEST, "linux/amd64"))
    assert one.digest == mirrored.digest
    assert node(ImageSource("docker.io/library/x:1", "sha256:" + "b" * 64, "linux/amd64")).digest != one.digest


CHANGED = {
    "args": ("make", "all"),
    "env": ("A=2",),
    "cwd": "/src",
    "platform": "linux/arm64",
    "user": "me",
    "rootfs": -1,
    "mounts": (Mount("tmpfs", "/tmp"),),
    "files": (Inline("EOF", b"x"),),
    "network": "none",
    "security": "insecure",
    "hostname": "other",
    "extra_hosts": ("a=1.2.3.4",),
    "shm_size": 1,
    "ulimits": ("nofile=1:1",),
}


def test_the_table_of_changes_has_every_field_of_run() -> None:
    assert set(CHANGED) == {field.name for field in msgspec.structs.fields(Run)}


@pytest.mark.parametrize("field", CHANGED)
def test_every_field_of_run_is_in_the_digest(field: str) -> None:
    changed = Run(**(msgspec.structs.asdict(RUN) | {field: CHANGED[field]}))
    assert node(changed).digest != node(RUN).digest


def test_kinds_of_operation_are_told_apart() -> None:
    operations: list[Operation] = [
        LocalSource("x"),
        HttpSource("x", ""),
        GitSource("x"),
        Merge(),
        FileChange(()),
        FileChange((MakeDirectory("x"),)),
        FileChange((Copy(0, ("x",), "/"),)),
    ]
    assert len({node(operation).digest for operation in operations}) == len(operations)


def test_inputs_and_their_order_are_in_the_digest() -> None:
    a, b = node(LocalSource("a")), node(LocalSource("b"))
    digests = {node(Merge(), *inputs).digest for inputs in ((), (a,), (b,), (a, b), (b, a), (a, a))}
    assert len(digests) == 6


def test_bytes_that_are_no_text_have_an_identity() -> None:
    odd = identity(FileChange((Copy(0, ("/\udcff",), "/"),)))
    assert odd != identity(FileChange((Copy(0, ("/\udcfe",), "/"),)))
    assert odd == identity(FileChange((Copy(0, ("/\udcff",), "/"),)))


def test_walk_yields_inputs_first_and_each_digest_once() -> None:
    base = node(LocalSource("base"), name="base")
    left = node(Run(("l",), (), "/", "linux/amd64"), base, name="left")
    right = node(Run(("r",), (), "/", "linux/amd64"), base, name="right")
    twin = node(Run(("l",), (), "/", "linux/amd64"), node(LocalSource("base")), name="twin of left")
    top = node(Merge(), left, right, twin, name="top")
    assert [found.about.name for found in walk([top, right])] == ["base", "left", "right", "top"]


def test_walk_yields_nothing_that_no_target_reaches() -> None:
    base = node(LocalSource("base"))
    node(RUN, base)  # stands on base, and is not asked for
    assert list(walk([base])) == [base]
    assert list(walk([])) == []


def test_walk_goes_deeper_than_recursion_could() -> None:
    top = node(LocalSource("base"))
    for number in range(5000):
        top = node(Run((str(number),), (), "/", "linux/amd64"), top)
    assert sum(1 for _ in walk([top])) == 5001
