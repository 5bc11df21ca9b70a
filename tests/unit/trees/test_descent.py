"""Walks that are deeper than Python's stack, and directories that are more than a process may hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shiplap.trees.descent import Walk, descend, flatten
from shiplap.trees.held import HELD, Held

DEEP = 10_000


def count(left: int) -> Walk[int]:
    return 1 + (yield count(left - 1)) if left else 0


def test_a_walk_returns_through_all_levels() -> None:
    assert descend(count(DEEP)) == DEEP


def test_a_walk_that_is_broken_off_is_closed_from_the_innermost_out() -> None:
    closed = []

    def walk(level: int) -> Walk[None]:
        try:
            if level == 3:
                raise KeyError(level)
            yield walk(level + 1)
        finally:
            closed.append(level)

    with pytest.raises(KeyError):
        descend(walk(0))
    assert closed == [3, 2, 1, 0]


def test_flatten_keeps_the_order_however_deep() -> None:
    def walk(level: int) -> Iterator[Any]:
        yield level
        if level < DEEP:
            yield walk(level + 1)
        yield -level

    assert list(flatten(walk(0))) == [*range(DEEP + 1), *(-level for level in range(DEEP, -1, -1))]


def test_flatten_closes_what_nobody_asks_on() -> None:
    closed = []

    def walk(level: int) -> Iterator[Any]:
        try:
            yield level
            yield walk(level + 1)
        finally:
            closed.append(level)

    asked = flatten(walk(0))
    assert [next(asked) for _ in range(3)] == [0, 1, 2]
    asked.close()  # type: ignore[attr-defined]  # a generator
    assert closed == [2, 1, 0]


def test_few_directories_are_open_and_all_can_be_asked(tmp_path: Path) -> None:
    levels = 3 * HELD
    os.makedirs(tmp_path / ("d/" * levels))
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = len(os.listdir("/proc/self/fd"))
        chain = [Held(root)]
        for _ in range(levels):
            chain.append(chain[-1].child("d"))
            assert len(os.listdir("/proc/self/fd")) <= before + HELD
        for depth, held in enumerate(chain):
            path = tmp_path / "/".join("d" * depth)
            assert os.fstat(held.fd()).st_ino == path.stat().st_ino
            assert len(os.listdir("/proc/self/fd")) <= before + HELD
        for held in reversed(chain):
            held.close()
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(root)


@pytest.mark.parametrize("how", ["directory", "link", "link to the same"])
def test_a_directory_that_was_replaced_meanwhile_is_not_taken_for_it(tmp_path: Path, how: str) -> None:
    os.makedirs(tmp_path / ("d/" * (HELD + 2)))
    (tmp_path / "other/d").mkdir(parents=True)
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        first = Held(root).child("d")
        chain = [first]
        for _ in range(HELD + 1):
            chain.append(chain[-1].child("d"))
        os.rename(tmp_path / "d", tmp_path / "moved")
        if how == "directory":
            os.rename(tmp_path / "other", tmp_path / "d")
        else:
            (tmp_path / "d").symlink_to("other" if how == "link" else "moved")
        with pytest.raises(OSError) as caught:
            first.fd()
        assert caught.value.errno == {"directory": errno.ESTALE}.get(how, errno.ENOTDIR)
        for held in chain:
            held.close()
    finally:
        os.close(root)
