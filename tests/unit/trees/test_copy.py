"""COPY, row by row as BuildKit did it (dockerfile semantics, section 9)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.errors import TreeError
from shiplap.trees.change import ChangeTree
from shiplap.trees.copy import Copier, CopyRule
from shiplap.trees.root import resolve
from shiplap.trees.tree import Directory, Tree


class Case:
    """A context (f, g, d/{x, lx -> x, sub/y}, e1) and a base (/w, /ed, /ef, /sl -> ed)."""

    def __init__(self, path: Path) -> None:
        self.context, self.base, self.layer = path / "context", path / "base", path / "layer"
        for directory in (self.context / "d/sub", self.context / "e1", self.base / "w", self.base / "ed", self.layer):
            directory.mkdir(parents=True)
        for name in ("f", "g", "d/x", "d/sub/y"):
            (self.context / name).write_text(name)
        (self.context / "d/lx").symlink_to("x")
        (self.base / "ef").write_text("ef")
        (self.base / "ed/old").write_text("old")
        (self.base / "sl").symlink_to("/ed")

    def copy(self, *sources: str, dest: str, **rule: object) -> list[str]:
        with (
            Tree((str(self.context),), live=True) as tree,
            Tree((str(self.base),)) as base,
            ChangeTree(str(self.layer), base) as target,
        ):
            copier = Copier(tree, target, CopyRule(owner=(0, 0), **rule), 10**18)  # type: ignore[arg-type]
            for source in sources:
                copier.copy(source, dest)
        return self.listing()

    def listing(self) -> list[str]:
        with Tree((str(self.layer), str(self.base))) as tree:
            found = list(self._walk(tree.root()))
        known = {"w/", "ed/", "ed/old=old", "ef=ef", "sl -> /ed"}
        return [line for line in found if line not in known]

    def _walk(self, directory: Directory) -> Iterator[str]:
        for entry in directory.entries():
            path = directory.where(entry.name)
            if entry.is_dir:
                yield path + "/"
                yield from self._walk(directory.child(entry))
            elif entry.is_link:
                yield f"{path} -> {directory.read_link(entry)}"
            else:
                with open(directory.open_file(entry)) as file:
                    yield f"{path}={file.read()}"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


D = ["t/", "t/lx -> x", "t/sub/", "t/sub/y=d/sub/y", "t/x=d/x"]


@pytest.mark.parametrize(
    ("sources", "dest", "expected"),
    [
        (["f"], "/t", ["t=f"]),
        (["f"], "/t/", ["t/", "t/f=f"]),
        (["f"], "/t/.", ["t/", "t/f=f"]),
        (["f"], "/ed", ["ed/f=f"]),
        (["f"], "/w/n/", ["w/n/", "w/n/f=f"]),
        (["f"], "/a/b/c", ["a/", "a/b/", "a/b/c=f"]),
        (["d"], "/t", D),
        (["d/"], "/t/", D),
        (["d/."], "/t", D),
        (["d/*"], "/t/", ["t/", "t/lx=d/x", "t/x=d/x", "t/y=d/sub/y"]),
        (["f", "g"], "/t", ["t=g"]),
        (["e1"], "/t", ["t/"]),
        (["../f"], "/t", ["t=f"]),
        (["/f"], "/t", ["t=f"]),
        (["./d/../f"], "/t", ["t=f"]),
        (["zz*"], "/t", []),
        (["[fg]"], "/t/", ["t/", "t/f=f", "t/g=g"]),
        (["f"], "/sl/x", ["ed/x=f"]),
        (["f"], "/sl", ["ed/f=f"]),
        (["d/lx"], "/t", ["t=d/x"]),
        (["d/lx"], "/t/", ["t/", "t/lx=d/x"]),
        (["f"], "/", ["f=f"]),
        (["d/sub"], "/", ["y=d/sub/y"]),
    ],
)
def test_where_things_land(case: Case, sources: list[str], dest: str, expected: list[str]) -> None:
    assert case.copy(*sources, dest=dest) == expected


@pytest.mark.parametrize(
    ("source", "dest", "message"),
    [
        ("f", "/ef/", "mkdir /ef: not a directory"),
        ("f", "/ef/z", "mkdir /ef: not a directory"),
        ("d", "/ef", "cannot copy to non-directory: /ef"),
        ("d/*", "/t", "cannot copy to non-directory: /t"),
        ("zz", "/t", '"/zz": not found'),
        ("d/zz", "/t", '"/d/zz": not found'),
    ],
)
def test_conflicts(case: Case, source: str, dest: str, message: str) -> None:
    with pytest.raises(TreeError) as error:
        case.copy(source, dest=dest)
    assert error.value.message == message


@pytest.mark.parametrize(
    ("source", "dest", "expected"),
    [
        ("d/sub/y", "/t", ["t/", "t/d/", "t/d/sub/", "t/d/sub/y=d/sub/y"]),
        ("./d/./sub/y", "/t/", ["t/", "t/sub/", "t/sub/y=d/sub/y"]),
        ("d/**/y", "/t/", ["t/", "t/d/", "t/d/sub/", "t/d/sub/y=d/sub/y"]),
        ("f", "/t", ["t/", "t/f=f"]),
    ],
)
def test_parents(case: Case, source: str, dest: str, expected: list[str]) -> None:
    assert case.copy(source, dest=dest, parents=True) == expected


def test_parents_of_what_is_not_there(case: Case) -> None:
    with pytest.raises(TreeError, match='"/d/zz": not found'):
        case.copy("d/zz", dest="/t", parents=True)


@pytest.mark.parametrize(
    ("source", "exclude", "expected"),
    [
        ("d", ("sub",), ["t/", "t/lx -> x", "t/x=d/x"]),
        ("d", ("d",), D),
        ("f", ("f",), ["t=f"]),
        ("d", ("**", "!sub/y"), ["t/", "t/sub/", "t/sub/y=d/sub/y"]),
        ("d", ("*", "!x"), ["t/", "t/x=d/x"]),
    ],
)
def test_exclude_is_relative_to_each_source(
    case: Case, source: str, exclude: tuple[str, ...], expected: list[str]
) -> None:
    assert case.copy(source, dest="/t", exclude=exclude) == expected


def test_octal_mode_is_for_files_directories_and_made_parents(case: Case) -> None:
    case.copy("d", dest="/p/t", mode="0600")
    for path in ("p", "p/t", "p/t/x", "p/t/sub"):
        assert (case.layer / path).stat().st_mode & 0o7777 == 0o600


def test_symbolic_mode_leaves_made_parents(case: Case) -> None:
    (case.context / "f").chmod(0o600)
    case.copy("f", dest="/p/t", mode="u=rwX,go=rX")
    assert (case.layer / "p").stat().st_mode & 0o7777 == 0o755
    assert (case.layer / "p/t").stat().st_mode & 0o7777 == 0o644


def test_an_existing_directory_keeps_its_mode_and_takes_the_time(case: Case) -> None:
    (case.base / "ed").chmod(0o700)
    (case.context / "d").chmod(0o777)
    os.utime(case.context / "d", ns=(10**18, 10**18))
    case.copy("d", dest="/ed")
    made = (case.layer / "ed").stat()
    assert (made.st_mode & 0o7777, made.st_mtime_ns) == (0o700, 10**18)


def test_nested_existing_directories_take_the_sources_mode(case: Case) -> None:
    (case.base / "ed/sub").mkdir(mode=0o700)
    (case.context / "d/sub").chmod(0o751)
    case.copy("d", dest="/ed")
    assert (case.layer / "ed/sub").stat().st_mode & 0o7777 == 0o751


def test_hard_links_within_one_source_stay_linked(case: Case) -> None:
    os.link(case.context / "d/x", case.context / "d/hard")
    case.copy("d", dest="/t")
    assert (case.layer / "t/x").stat().st_ino == (case.layer / "t/hard").stat().st_ino


def test_times_are_kept_to_the_nanosecond(case: Case) -> None:
    os.utime(case.context / "f", ns=(123456789, 123456789))
    case.copy("f", dest="/t")
    assert (case.layer / "t").stat().st_mtime_ns == 123456789


def test_a_socket_arrives_as_an_empty_file(case: Case) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(case.context)
        server.bind("s")
        assert case.copy("s", dest="/t") == ["t="]


def test_a_fifo_without_a_writer_does_not_hang(case: Case) -> None:
    import stat

    os.mkfifo(case.context / "pipe")
    with (
        Tree((str(case.context),), live=True) as tree,
        Tree((str(case.base),)) as base,
        ChangeTree(str(case.layer), base) as target,
    ):
        Copier(tree, target, CopyRule(owner=(0, 0)), 0).copy("pipe", "/t")
    assert stat.S_ISFIFO((case.layer / "t").stat().st_mode)


def test_a_link_in_the_context_cannot_reach_the_host(case: Case, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    (case.context / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(TreeError, match="not found"):
        case.copy("out", dest="/t")


def test_an_inline_file(case: Case) -> None:
    with Tree(()) as nothing, Tree((str(case.base),)) as base, ChangeTree(str(case.layer), base) as target:
        Copier(nothing, target, CopyRule(), 10**18).place_file("EOF", b"text", 0o644, "/ed/")
    with Tree((str(case.layer),)) as tree:
        assert resolve(tree, "/ed/EOF").entry is not None
