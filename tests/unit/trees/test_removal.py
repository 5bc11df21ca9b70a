"""Directories that go with all that is in them: deep, wide, closed, and removed by two at once."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

from shiplap.trees.change import remove_tree


def remove(path: Path) -> None:
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_tree(parent, path.name)
    finally:
        os.close(parent)


def deep(path: Path, levels: int) -> None:
    path.mkdir()
    here = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_tree_deeper_than_a_path_or_than_the_descriptors_of_a_process(tmp_path: Path) -> None:
    deep(tmp_path / "it", 1500)
    open_files = len(os.listdir("/proc/self/fd"))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 120, limit[1]))
    try:
        remove(tmp_path / "it")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_files_links_and_closed_directories_go_and_what_links_point_to_stays(tmp_path: Path) -> None:
    (tmp_path / "stays").mkdir()
    (tmp_path / "stays/f").write_text("here")
    for number in range(300):
        (tmp_path / f"it/{number}/below").mkdir(parents=True)
        (tmp_path / f"it/{number}/below/f").write_text("x")
        (tmp_path / f"it/{number}/link").symlink_to("../../stays")
        (tmp_path / f"it/{number}").chmod(number & 0o7)
    remove(tmp_path / "it")
    remove(tmp_path / "it")
    assert os.listdir(tmp_path) == ["stays"]
    assert (tmp_path / "stays/f").read_text() == "here"


def test_two_at_once(tmp_path: Path) -> None:
    for _ in range(2):
        for number in range(40):
            deep(tmp_path / f"it/{number}" if number else tmp_path / "it", 5)
        faults: list[BaseException] = []

        def attempt(faults: list[BaseException] = faults) -> None:
            try:
                remove(tmp_path / "it")
            except BaseException as error:  # noqa: BLE001  whatever it is, the test has failed
                faults.append(error)

        threads = [threading.Thread(target=attempt) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert os.listdir(tmp_path) == []
