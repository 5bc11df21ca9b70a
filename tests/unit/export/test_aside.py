"""Files that a user names: written whole, and never in place of a device or a link."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from shiplap.errors import ExportError
from shiplap.export.aside import writing


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    null = tmp_path / "null"
    if os.geteuid() == 0:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    else:
        null = Path("/dev/null")
    with writing(null) as out:
        out.write(b"gone")
    assert stat.S_ISCHR(null.lstat().st_mode)
    assert [path for path in tmp_path.iterdir() if path != null] == []


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with writing(pipe) as out:
        out.write(b"data")
    reader.join(10)
    assert read == [b"data"]
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_leads_to_is_written(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "below" / "target"
    target.parent.mkdir()
    if there:
        target.write_bytes(b"old")
    (tmp_path / "second").symlink_to("below/target")
    link = tmp_path / "link"
    link.symlink_to("second")
    with writing(link) as out:
        out.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_an_open_file_goes_on_where_it_is(tmp_path: Path, name: str) -> None:
    file = tmp_path / "file"
    with file.open("wb", buffering=0) as opened:
        opened.write(b"before ")
        inode = file.stat().st_ino
        with writing(Path(name.format(opened.fileno()))) as out:
            out.write(b"after")
    assert file.read_bytes() == b"before after"
    assert file.stat().st_ino == inode


def test_links_in_a_circle_and_full_devices_are_errors(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(ExportError, match="levels of symbolic links"), writing(loop):
        pass
    with pytest.raises(OSError, match="No space left"), writing(Path("/dev/full")) as out:
        out.write(b"x" * 100_000)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
