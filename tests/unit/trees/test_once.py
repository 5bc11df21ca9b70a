"""Small files are read once, from their digest to the layer; one that changed in between is read anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shiplap.errors import TreeError
from shiplap.graph.operations import Copy
from shiplap.trees import part
from shiplap.trees.change import ChangeTree
from shiplap.trees.copy import Copier, CopyRule
from shiplap.trees.digest import selection_digest
from shiplap.trees.once import SMALL, ReadOnce
from shiplap.trees.planned import PlannedTree
from shiplap.trees.tree import Tree

COPY = Copy(0, (".",), "/", reset_owner=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    (path / "below").mkdir(parents=True)
    (path / "a").write_bytes(b"a" * 100)
    (path / "below/b").write_bytes(b"b" * 100)
    (path / "big").write_bytes(b"c" * (SMALL + 1))
    os.setxattr(path / "a", "user.note", b"1")
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were opened to be read."""
    names: list[str] = []
    real = part.LivePart.open

    def noting(self: part.LivePart, name: str) -> int:
        names.append(name)
        return real(self, name)

    monkeypatch.setattr(part.LivePart, "open", noting)
    return names


def digested(source: Path, once: ReadOnce | None) -> str:
    with Tree((str(source),), live=True, once=once) as tree:
        return selection_digest(tree, COPY)


def copied(source: Path, target: Path, once: ReadOnce | None) -> dict[str, bytes]:
    target.mkdir()
    with Tree((str(source),), live=True, once=once) as tree, ChangeTree(str(target), None) as change:
        Copier(tree, change, CopyRule(owner=(0, 0)), 0).copy(".", "/")
    return {str(file.relative_to(target)): file.read_bytes() for file in target.rglob("*") if file.is_file()}


def planned(source: Path, once: ReadOnce | None) -> dict[str, bytes]:
    with Tree((str(source),), live=True, once=once) as tree, PlannedTree(None, 0) as change:
        Copier(tree, change, CopyRule(owner=(0, 0)), 0).copy(".", "/")
        table = change.table()
        with Tree((table,)) as layer:
            root = layer.root()
            below = root.child(next(entry for entry in root.entries() if entry.is_dir))
            return {
                directory.where(entry.name): directory.read_file(entry)
                for directory in (root, below)
                for entry in directory.entries()
                if entry.is_file
            }


@pytest.mark.parametrize("as_files", [True, False])
def test_each_small_file_is_opened_once(source: Path, tmp_path: Path, opened: list[str], as_files: bool) -> None:
    once = ReadOnce()
    plain = digested(source, None)
    opened.clear()
    assert digested(source, once) == plain
    assert sorted(opened) == ["a", "b", "big"]
    opened.clear()
    got = copied(source, tmp_path / "target", once) if as_files else planned(source, once)
    assert opened == ["big"]
    assert got == {"a": b"a" * 100, "below/b": b"b" * 100, "big": b"c" * (SMALL + 1)}
    if as_files:
        assert os.getxattr(tmp_path / "target/a", "user.note") == b"1"
    assert digested(source, once) == plain


@pytest.mark.parametrize("as_files", [True, False])
def test_what_changed_is_read_anew(source: Path, tmp_path: Path, opened: list[str], as_files: bool) -> None:
    once = ReadOnce()
    digested(source, once)
    (source / "a").write_bytes(b"A" * 100)
    os.utime(source / "a", ns=(1, 1))
    (source / "below/b").unlink()
    (source / "below/b").write_bytes(b"longer than it was" * 10)
    got = copied(source, tmp_path / "target", once) if as_files else planned(source, once)
    assert (got["a"], got["below/b"]) == (b"A" * 100, b"longer than it was" * 10)


def test_room_is_bounded_and_given_back(source: Path, opened: list[str]) -> None:
    once = ReadOnce(150)
    digested(source, once)
    opened.clear()
    planned(source, once)
    assert sorted(opened) == ["b", "big"]
    assert once._left == 150
    assert once._files == {}


def test_a_file_cut_short_after_it_was_seen(source: Path) -> None:
    with Tree((str(source),), live=True) as tree:
        root = tree.root()
        entry = root.lookup("a")
        assert entry is not None
        (source / "a").write_bytes(b"short")
        with pytest.raises(TreeError) as caught:
            root.read_file(entry)
    assert caught.value.code == "changed-while-read"
