"""Small archives that become large: an error in time, with bounded memory and disk (security reference, V29, V31)."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.runner import Runner
from tests.kit import Shiplap
from tests.layouts import write_layout

from shiplap.errors import ImageError
from shiplap.layers import reader as tar_reader
from shiplap.layers.compression import zstd_module
from shiplap.layers.header import DIRECTORY, END, GNU_LONGNAME, PAX, REGULAR, Header, encode_header
from shiplap.layers.reader import TarReader

GIBIBYTE = 1 << 30
MEMORY = 256 << 20


def zeros(path: Path, head: bytes, size: int, tail: bytes = END) -> None:
    """``head``, ``size`` zeros and ``tail`` as gzip: about a thousandth of it."""
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(head)
        block = bytes(16 << 20)
        for _ in range(size // len(block)):
            out.write(block)
        out.write(tail)


def long_window(path: Path) -> None:
    zstd = zstd_module()
    parameter = zstd.CompressionParameter
    options = {parameter.window_log: 31, parameter.enable_long_distance_matching: 1, parameter.compression_level: 1}
    packer = zstd.ZstdCompressor(options=options)
    # One block more than the window limit: decoding it would take all of the window.
    pieces = [packer.compress(encode_header(Header("x", size=GIBIBYTE)))]
    pieces += [packer.compress(bytes(16 << 20)) for _ in range(64)]
    path.write_bytes(b"".join(pieces) + packer.flush())


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a PAX header of 1 GiB": (
        lambda path: zeros(path, encode_header(Header("x", PAX, size=GIBIBYTE)), GIBIBYTE),
        "tar-header-too-large",
    ),
    "a long name of 1 GiB": (
        lambda path: zeros(path, encode_header(Header("x", GNU_LONGNAME, size=GIBIBYTE)), GIBIBYTE),
        "tar-header-too-large",
    ),
    "a file of 1 GiB": (
        lambda path: zeros(path, encode_header(Header("x", REGULAR, size=GIBIBYTE)), GIBIBYTE),
        "store-full",
    ),
    "a zstd window of 2 GiB": (long_window, "corrupt-stream"),
    "a file of 4 TiB in an archive of 1 GiB": (
        lambda path: zeros(path, encode_header(Header("x", REGULAR, size=1 << 42)), GIBIBYTE),
        "store-full",
    ),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as running:
        yield running


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_bomb_ends_in_a_clear_error(name: str, tmp_path: Path, runner: Runner) -> None:
    make, code = BOMBS[name]
    make(tmp_path / "bomb")
    bomb = (tmp_path / "bomb").read_bytes()
    assert len(bomb) < 12 << 20
    write_layout(tmp_path / "evil", [bomb], ["sha256:" + "0" * 64], "zstd" if bomb[:1] == b"\x28" else "gzip")
    (tmp_path / "Dockerfile").write_text("FROM evil\nWORKDIR /x\n")
    store = Shiplap(tmp_path / "store")
    began = time.monotonic()
    ran = runner.run(
        [
            *store.command,
            "build",
            "--max-used-space",
            "200m",
            "--build-context",
            f"evil=oci-layout://{tmp_path}/evil",
            "-o",
            "type=cacheonly",
            str(tmp_path),
        ],
        {**store.setting()["env"]},
    )
    assert ran.status == 1, ran.said
    assert f"[{code}]" in ran.said
    assert "Traceback" not in ran.said
    assert ran.memory < MEMORY, f"{ran.memory >> 20} MiB"
    assert time.monotonic() - began < 30
    used = int(subprocess.run(["du", "-s", "-B1", store.root], capture_output=True, text=True).stdout.split()[0])
    assert used < 250 << 20


def test_a_large_file_passes_within_the_memory(tmp_path: Path, runner: Runner) -> None:
    zeros(tmp_path / "large.tar", encode_header(Header("x", REGULAR, size=GIBIBYTE // 2)), GIBIBYTE // 2)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nADD large.tar /\n")
    store = Shiplap(tmp_path / "store")
    out = tmp_path / "out.tar"
    command = [*store.command, "build", "-o", f"type=oci,dest={out}", str(tmp_path)]
    ran = runner.run(command, {**store.setting()["env"]})
    assert ran.status == 0, ran.said
    assert ran.memory < MEMORY, f"{ran.memory >> 20} MiB"
    shutil.rmtree(store.root)


def test_members_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_reader, "ENTRY_LIMIT", 1000)
    data = b"".join(encode_header(Header(f"d{number}/", DIRECTORY)) for number in range(1001)) + END
    with pytest.raises(ImageError) as error:
        for _ in TarReader(io.BytesIO(data)):
            pass
    assert error.value.code == "too-many-entries"


def test_a_million_records_in_a_header(tmp_path: Path) -> None:
    body = b"".join(b"%d a%d=\n" % (6 + len(str(n)) + 1, n) for n in range(200_000))
    data = encode_header(Header("x", PAX, size=len(body))) + body
    with pytest.raises(ImageError) as error:
        next(iter(TarReader(io.BytesIO(data + END))))
    assert error.value.code == "tar-header-too-large"


def test_an_archive_in_an_archive_is_a_file(tmp_path: Path) -> None:
    inner = gzip.compress(gzip.compress(bytes(64 << 20)))
    (tmp_path / "x.gz").write_bytes(inner)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nADD x.gz /\n")
    Shiplap(tmp_path / "store").run("build", "-o", f"type=tar,dest={tmp_path}/out.tar", tmp_path)
    with tarfile.open(tmp_path / "out.tar") as tar:
        member = tar.extractfile("x.gz")
        assert member is not None
        assert member.read() == inner
