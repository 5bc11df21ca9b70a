"""A tree laid flat, changed at random, and the changes taken: the layer over the base is what the directory had become."""

from __future__ import annotations

import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from shiplap.layers.difference import changes
from shiplap.trees.flat import lay_flat, take_changes
from shiplap.trees.tree import Directory, Tree

Shown = dict[str, tuple[object, ...]]


def shown(directory: Directory) -> Shown:
    """Path to all that a layer says of a file."""
    found: Shown = {}
    for entry in directory.entries():
        data: object = b""
        if entry.is_link:
            data = directory.read_link(entry)
        elif entry.is_file:
            fd = directory.open_file(entry)
            data = os.read(fd, 1 << 16)
            os.close(fd)
        found[directory.where(entry.name)] = (entry.mode, entry.uid, entry.gid, entry.mtime, entry.rdev, data)
        if entry.is_dir:
            found |= shown(directory.child(entry))
    return found


def fill(root: Path, chosen: random.Random, names: list[str], depth: int = 0) -> None:
    for name in names:
        path = root / name
        kind = chosen.choice(["dir", "file", "link", "fifo", "dir" if depth < 3 else "file"])
        if kind == "dir" and depth < 3:
            path.mkdir(mode=chosen.choice([0o755, 0o700, 0o2775]))
            fill(path, chosen, chosen.sample("abcdef", 3), depth + 1)
        elif kind == "link":
            path.symlink_to(chosen.choice(["a", "/b", "../c", "none"]))
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.write_text(chosen.choice(["", "x", "longer\n" * 9]))
        os.utime(path, (chosen.randrange(10**9), chosen.randrange(10**9)), follow_symlinks=False)


def change(root: Path, chosen: random.Random) -> None:
    paths = sorted(root.rglob("*"))
    path = chosen.choice([root, *paths])
    action = chosen.choice(["remove", "make", "write", "mode", "rename", "replace", "time", "link"])
    if action == "remove" and path != root:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif action == "make" and path.is_dir() and not path.is_symlink():
        fresh = path / f"new{chosen.randrange(100)}"
        if not fresh.exists():
            fresh.mkdir()
            fill(fresh, chosen, ["x", "y"], 2)
    elif action == "write" and path.is_file() and not path.is_symlink():
        info = path.stat()
        path.write_text(chosen.choice(["X", "same length"]))
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    elif action == "mode" and not path.is_symlink():
        path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o040)
    elif action == "rename" and path != root:
        path.rename(root / f"moved{chosen.randrange(1000)}")
    elif action == "replace" and path != root:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        path.mkdir() if chosen.random() < 0.5 else path.write_text("replaced")
    elif action == "time":
        os.utime(path, (5, 5), follow_symlinks=False)
    elif action == "link" and path.is_file() and not path.is_symlink():
        os.link(path, root / f"name{chosen.randrange(1000)}")


def base_of(directory: Path, chosen: random.Random) -> list[str]:
    """Two layers, the upper one made by hand: it hides and replaces some of the lower."""
    lower, upper = directory / "lower/diff", directory / "upper/diff"
    for path in (lower, upper):
        path.mkdir(parents=True)
    fill(lower, chosen, ["a", "b", "c", "d", "e"])
    fill(upper, chosen, ["c", "f"])
    return [str(upper), str(lower)]


@pytest.mark.parametrize("seed", range(12))
def test_layer_over_base_is_what_was_made(seed: int, tmp_path: Path) -> None:
    chosen = random.Random(seed)
    layers = base_of(tmp_path, chosen)
    flat, layer = tmp_path / "work/root", tmp_path / "new/diff"
    flat.mkdir(parents=True)
    layer.mkdir(parents=True)
    with Tree(layers) as base:
        since = lay_flat(base.root(), base.root_entry(), str(flat), lambda: None)
        with Tree((str(flat),)) as copy:
            assert shown(copy.root()) == shown(base.root())
        for _ in range(chosen.randrange(12)):
            change(flat, chosen)
        with Tree((str(flat),)) as changed:
            expected = shown(changed.root())
        take_changes(str(flat), base, since, str(layer))
    with Tree((str(layer), *layers)) as merged:
        assert shown(merged.root()) == expected


def test_nothing_changed_is_an_empty_layer(tmp_path: Path) -> None:
    layers = base_of(tmp_path, random.Random(1))
    flat, layer = tmp_path / "work/root", tmp_path / "new/diff"
    flat.mkdir(parents=True)
    layer.mkdir(parents=True)
    with Tree(layers) as base:
        since = lay_flat(base.root(), base.root_entry(), str(flat), lambda: None)
        take_changes(str(flat), base, since, str(layer))
        with Tree((str(layer),)) as made:
            assert list(changes(made, base)) == []
    assert os.listdir(layer) == []


def test_names_of_one_file_part_as_with_overlay(tmp_path: Path) -> None:
    """overlayfs copies one name up and leaves the other behind."""
    lower, flat, layer = (tmp_path / name / "diff" for name in ("lower", "work", "new"))
    for path in (lower, flat, layer):
        path.mkdir(parents=True)
    (lower / "one").write_text("1")
    os.link(lower / "one", lower / "two")
    with Tree((str(lower),)) as base:
        since = lay_flat(base.root(), base.root_entry(), str(flat), lambda: None)
        (flat / "one").write_text("changed")
        os.link(flat / "one", flat / "three")
        take_changes(str(flat), base, since, str(layer))
    assert sorted(os.listdir(layer)) == ["one", "three"]
    assert (layer / "one").stat().st_ino == (layer / "three").stat().st_ino
