"""Paths inside a root: found, made and removed again, never outside."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.sandbox import linux
from shiplap.sandbox.rooted import open_in, reach, unmake


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[int, Path, Path]]:
    """Descriptor and path of a root, and a directory beside it that nothing may touch."""
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.mkdir()
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd, root, victim
    os.close(fd)
    assert list(victim.iterdir()) == []


def names(root: int, path: str, make: str = "") -> tuple[str, ...]:
    found = reach(root, path, make)
    try:
        return found.names
    finally:
        found.close()


@pytest.mark.parametrize(
    ("link", "target", "path", "expected"),
    [
        ("l", "/a", "l/b", ("a", "b")),
        ("l", "../../../../a", "/l/b", ("a", "b")),
        ("a/l", "../a", "a/l/b", ("a", "b")),
        ("a/l", "./b/../b/.", "a/l", ("a", "b")),
        ("l", "/", "l/l/l/a/b", ("a", "b")),
    ],
)
def test_links_are_followed_inside(
    place: tuple[int, Path, Path], link: str, target: str, path: str, expected: tuple[str, ...]
) -> None:
    fd, root, _ = place
    (root / "a/b").mkdir(parents=True)
    (root / link).symlink_to(target)
    assert names(fd, path) == expected
    by_kernel = open_in(fd, path)
    assert os.fstat(by_kernel).st_ino == (root / "a/b").stat().st_ino
    os.close(by_kernel)


def test_dots_stop_at_the_root(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    (root / "a").mkdir()
    assert names(fd, "../../../a/../../a") == ("a",)
    assert names(fd, "/..//./") == ()


def test_making_through_links_stays_inside(place: tuple[int, Path, Path]) -> None:
    fd, root, victim = place
    (root / "up").symlink_to(f"../../../../../../../..{victim}")
    (root / "abs").symlink_to(str(victim))
    for link in ("up", "abs"):
        found = names(fd, f"{link}/new", "dir")
        assert found == (*victim.parts[1:], "new")
    assert (root.joinpath(*victim.parts[1:]) / "new").is_dir()


def test_a_dangling_link_is_made_where_it_points(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    found = reach(fd, "/etc/resolv.conf", "file")
    assert (root / "run/systemd/resolve/stub-resolv.conf").is_file()
    unmake(fd, found.made)
    found.close()
    assert sorted(path.name for path in root.rglob("*")) == ["etc", "resolv.conf"]


def test_loops_end(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    with pytest.raises(OSError) as caught:
        reach(fd, "x/z", "dir")
    assert caught.value.errno == errno.ELOOP


def test_below_a_file(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    (root / "f").write_text("")
    with pytest.raises(NotADirectoryError):
        reach(fd, "f/x", "dir")
    with pytest.raises(FileNotFoundError):
        reach(fd, "missing/x")


def test_no_descriptor_is_left(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    (root / "f").write_text("")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b/c", "f/x", "missing/../f", "/"):
        try:
            found = reach(fd, path, "dir")
        except OSError:
            continue
        unmake(fd, found.made)
        found.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_unmake_restores_times(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    (root / "etc").mkdir()
    os.utime(root / "etc", (5, 5))
    os.utime(root, (6, 6))
    all_made = []
    for path in ("etc/hosts", "etc/resolv.conf", "a/b/c"):
        found = reach(fd, path, "file")
        all_made += found.made
        found.close()
    unmake(fd, all_made)
    assert [path.name for path in root.iterdir()] == ["etc"]
    assert (root / "etc").stat().st_mtime == 5 and root.stat().st_mtime == 6


def test_unmake_keeps_what_the_step_used(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    found = reach(fd, "a/b", "dir")
    found.close()
    (root / "a/mine").write_text("x")
    os.utime(root / "a", (7, 7))
    unmake(fd, found.made)
    assert [path.name for path in (root / "a").iterdir()] == ["mine"]
    assert (root / "a").stat().st_mtime == 7, "the step's own time, since the step changed it"


def test_unmake_leaves_another_inode_of_the_same_name(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    found = reach(fd, "f", "file")
    found.close()
    (root / "other").write_text("")
    (root / "other").rename(root / "f")
    unmake(fd, found.made)
    assert (root / "f").exists()


def test_unmake_leaves_a_file_with_content(place: tuple[int, Path, Path]) -> None:
    fd, root, _ = place
    found = reach(fd, "f", "file")
    found.close()
    (root / "f").write_text("now used")
    unmake(fd, found.made)
    assert (root / "f").read_text() == "now used"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EAGAIN])
def test_open_without_openat2(place: tuple[int, Path, Path], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(linux, "openat2", refuse)
    fd, root, _ = place
    (root / "a").mkdir()
    (root / "l").symlink_to("/../../a")
    found = open_in(fd, "/l")
    assert os.fstat(found).st_ino == (root / "a").stat().st_ino
    os.close(found)
