"""Large files of a directory are hashed side by side; the digest of a selection is what it is with one after the other."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from shiplap.errors import TreeError
from shiplap.graph.operations import Copy
from shiplap.trees import digest
from shiplap.trees.digest import selection_digest
from shiplap.trees.hashing import file_digests
from shiplap.trees.tree import Directory, Tree


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    (path / "below").mkdir(parents=True)
    for name in ("a", "b", "c", "below/d", "below/e", "left-out", "small"):
        (path / name).write_bytes(name.encode() * (10 if name == "small" else 200_000))
    os.setxattr(path / "b", "user.note", b"1")
    return path


def digested(source: Path, **how: object) -> str:
    with Tree((str(source),), live=True) as tree:
        return selection_digest(tree, Copy(0, (".",), "/", **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [{}, {"exclude": ("left-out",)}, {"reset_owner": True}])
def test_the_digest_is_the_same(source: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, object]) -> None:
    expected = digested(source, **how)
    hashed: list[str] = []

    def noting(directory: Directory, entries: list[object]) -> dict[str, bytes]:
        hashed.extend(entry.name for entry in entries)  # type: ignore[attr-defined]
        return file_digests(directory, entries)  # type: ignore[arg-type]

    monkeypatch.setattr(digest, "LARGE", 100_000)
    monkeypatch.setattr(digest, "file_digests", noting)
    assert digested(source, **how) == expected
    assert sorted(hashed) == ["a", "b", "c", "d", "e", *([] if "exclude" in how else ["left-out"])]
    (source / "c").write_bytes(b"x" * 200_000)
    assert digested(source, **how) != expected


@pytest.mark.parametrize("processors", [1, 2, 7])
def test_digests_of_all(source: Path, monkeypatch: pytest.MonkeyPatch, processors: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    with Tree((str(source),), live=True) as tree:
        directory = tree.root()
        entries = [entry for entry in directory.entries() if entry.is_file]
        found = file_digests(directory, entries)
    assert found == {e.name: hashlib.sha256((source / e.name).read_bytes()).digest() for e in entries}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shiplap-hash")]


def test_the_first_fault_is_told(source: Path) -> None:
    with Tree((str(source),), live=True) as tree:
        directory = tree.root()
        entries = [entry for entry in directory.entries() if entry.is_file]
        for name in ("b", "c"):
            (source / name).unlink()
        opened = os.listdir("/proc/self/fd")
        with pytest.raises(TreeError, match="b"):
            file_digests(directory, entries)
        assert os.listdir("/proc/self/fd") == opened
