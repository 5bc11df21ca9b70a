"""Sparse files of GNU tar, in all forms, written by GNU tar itself; and maps that lie."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shiplap.errors import ImageError
from shiplap.layers.compression import Decompressed
from shiplap.layers.header import Header, encode_header
from shiplap.layers.reader import TarReader
from shiplap.layers.unpack import unpack
from shiplap.trees.change import ChangeTree

FORMS = ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"]


def make(path: Path, parts: list[tuple[int, bytes]], size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in parts:
            file.seek(offset)
            file.write(data)


@pytest.mark.skipif(shutil.which("tar") is None, reason="no GNU tar")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", ["middle", "end", "hole", "many", "edges"])
def test_gnu_tar_writes_and_we_read(form: str, shape: str, tmp_path: Path) -> None:
    block = 65536
    parts, size = {
        "middle": ([(10 * block, b"m" * 5000)], 30 * block),
        "end": ([(20 * block - 3, b"end")], 20 * block),
        "hole": ([], 40 * block),
        "many": ([(n * 4 * block, b"%d" % n * 3000) for n in range(40)], 200 * block),
        "edges": ([(0, b"first"), (9 * block, b"last" * block)], 50 * block),
    }[shape]
    (tmp_path / "in").mkdir()
    make(tmp_path / "in/f", parts, size)
    (tmp_path / "in/after").write_text("after")
    formats = [form] if form.startswith("--format") else ["--format=pax", form]
    subprocess.run(["tar", "-S", *formats, "-cf", tmp_path / "x.tar", "-C", tmp_path / "in", "f", "after"], check=True)
    assert (tmp_path / "x.tar").stat().st_size < size
    (tmp_path / "out").mkdir()
    with ChangeTree(str(tmp_path / "out"), None) as target, (tmp_path / "x.tar").open("rb") as source:
        unpack(Decompressed(source), target)
    assert (tmp_path / "out/f").read_bytes() == (tmp_path / "in/f").read_bytes()
    assert (tmp_path / "out/after").read_text() == "after"
    assert (tmp_path / "out/f").stat().st_blocks * 512 < size // 2 or shape == "edges"


def archive(records: dict[str, str], data: bytes) -> bytes:
    pax = {f"GNU.sparse.{key}": value.encode() for key, value in records.items()}
    header = encode_header(Header("f", size=len(data), pax=pax))
    return header + data + bytes(-len(data) % 512) + bytes(1024)


LIES = {
    "overlap": ({"size": "100", "map": "0,10,5,10"}, b"x" * 20),
    "backwards": ({"size": "100", "map": "50,10,0,10"}, b"x" * 20),
    "past the end": ({"size": "10", "map": "5,10"}, b"x" * 10),
    "more than is there": ({"size": "100", "map": "0,50"}, b"x" * 10),
    "less than is there": ({"size": "100", "map": "0,5"}, b"x" * 10),
    "half a pair": ({"size": "100", "map": "0"}, b""),
    "no number": ({"size": "100", "map": "0,x"}, b""),
    "negative": ({"size": "100", "map": "0,-1"}, b""),
    "no size": ({"map": "0,1"}, b"x"),
    "size beyond all": ({"size": str(1 << 63), "map": "0,1"}, b"x"),
    "a count of 10^7": ({"major": "1", "minor": "0", "realsize": "9"}, b"10000000\n".ljust(1024, b"\n")),
    "no end of the map": ({"major": "1", "minor": "0", "realsize": "9"}, b"1" * 2048),
    "map without data": ({"major": "1", "minor": "0", "realsize": "9"}, b"2\n0\n".ljust(512, b"\n")),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_map_that_lies_is_refused(lie: str) -> None:
    records, data = LIES[lie]
    reader = TarReader(io.BytesIO(archive(records, data)))
    with pytest.raises(ImageError) as error:
        for _ in reader:
            for _ in reader.pieces():
                pass
    assert error.value.code in ("invalid-tar", "truncated-tar")


def test_a_hole_of_a_tebibyte_takes_no_space(tmp_path: Path) -> None:
    data = archive({"size": str(1 << 40), "map": f"{(1 << 40) - 3},3"}, b"end")
    with ChangeTree(str(tmp_path), None) as target:
        unpack(io.BytesIO(data), target)
    assert (tmp_path / "f").stat().st_size == 1 << 40
    assert (tmp_path / "f").stat().st_blocks * 512 < 1 << 20
    with (tmp_path / "f").open("rb") as file:
        os.lseek(file.fileno(), -3, os.SEEK_END)
        assert file.read() == b"end"
