"""Stacks of layers, rooted resolution."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shiplap.errors import TreeError
from shiplap.trees.root import find, resolve
from shiplap.trees.tree import Tree


def names(tree: Tree, path: str = "/") -> list[str]:
    return [entry.name for entry in resolve(tree, path).directory().entries()]


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    """bottom: a/{x,y}, b/z, link -> a.   top: a/y whited out, a/new, b opaque with b/only."""
    bottom, top = tmp_path / "bottom", tmp_path / "top"
    for path in (bottom / "a", bottom / "b", top / "a", top / "b"):
        path.mkdir(parents=True)
    (bottom / "a/x").write_text("x")
    (bottom / "a/y").write_text("y")
    (bottom / "b/z").write_text("z")
    (bottom / "link").symlink_to("a")
    os.mknod(top / "a/y", stat.S_IFCHR, 0)
    (top / "a/new").write_text("new")
    os.setxattr(top / "b", "trusted.overlay.opaque" if os.geteuid() == 0 else "user.overlay.opaque", b"y")
    (top / "b/only").write_text("only")
    return [str(top), str(bottom)]


def test_layers_merge_as_overlayfs_shows_them(layers: list[str]) -> None:
    with Tree(layers) as tree:
        assert names(tree) == ["a", "b", "link"]
        assert names(tree, "/a") == ["new", "x"]
        assert names(tree, "/b") == ["only"]
        assert find(tree, "/a/y") is None
        assert find(tree, "/b/z") is None


def test_links_are_followed_inside(layers: list[str]) -> None:
    with Tree(layers) as tree:
        assert resolve(tree, "/link/new").path == "a/new"
        assert resolve(tree, "link").path == "a"
        assert resolve(tree, "link", follow=False).path == "link"


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/etc", "etc"), ("../../../etc", "etc"), ("/../etc", "etc"), ("./etc/../etc/.", "etc"), ("/", ""), ("..", "")],
)
def test_links_that_point_out_stay_in(tmp_path: Path, target: str, expected: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "link").symlink_to(target)
    with Tree((str(tmp_path),)) as tree:
        assert resolve(tree, "/link").path == expected


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with Tree((str(tmp_path),)) as tree, pytest.raises(TreeError, match="too many links"):
        resolve(tree, "/a")


def test_paths_that_only_lengthen_end(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("l/" + "x/" * 100)
    with Tree((str(tmp_path),)) as tree, pytest.raises(TreeError):
        resolve(tree, "/l/x")


def test_missing_leaf_and_missing_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Tree((str(tmp_path),)) as tree:
        assert resolve(tree, "/nope").entry is None
        with pytest.raises(TreeError) as missing:
            resolve(tree, "/no/pe")
        assert missing.value.code == "not-found"
        with pytest.raises(TreeError) as through:
            resolve(tree, "/file/x")
        assert through.value.code == "not-a-directory"


def test_dot_dot_goes_up_from_where_a_link_led(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/sibling").write_text("")
    (tmp_path / "link").symlink_to("a/b")
    with Tree((str(tmp_path),)) as tree:
        assert resolve(tree, "/link/../sibling").path == "a/sibling"
        assert resolve(tree, "/link/..").path == "a"


def test_a_live_tree_does_not_descend_through_a_swapped_link(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with Tree((str(tmp_path),), live=True) as tree:
        entry = tree.root().lookup("d")
        assert entry is not None
        (tmp_path / "d").rmdir()
        (tmp_path / "d").symlink_to("/etc")
        with pytest.raises(TreeError):
            tree.root().child(entry)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    for name in (b"\xff", b"a\nb", b"-x", "ä".encode(), b"\x01"):
        (Path(os.fsdecode(os.fsencode(str(tmp_path)) + b"/" + name))).write_text("")
    with Tree((str(tmp_path),)) as tree:
        found = [os.fsencode(entry.name) for entry in tree.root().entries()]
    assert found == sorted([b"\xff", b"a\nb", b"-x", "ä".encode(), b"\x01"])
