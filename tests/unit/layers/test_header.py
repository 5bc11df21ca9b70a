"""Tar headers, against Python's tarfile, GNU tar's reading, and Go's choices that diff ids depend on."""

from __future__ import annotations

import io
import tarfile

import pytest

from shiplap.errors import ImageError
from shiplap.layers import header as tar
from shiplap.layers.header import Header, checksum, decode_block, decode_records, encode_header
from shiplap.layers.reader import TarReader


def read_back(data: bytes) -> tarfile.TarInfo:
    with tarfile.open(fileobj=io.BytesIO(data + tar.END)) as archive:
        return archive.getmembers()[0]


@pytest.mark.parametrize(
    "name",
    ["a", "a" * 100, "a" * 101, "d/" * 60 + "f", "ä/ö", "x" * 255, "new\nline", "\udcff"],
)
def test_names_survive(name: str) -> None:
    data = encode_header(Header(name, mode=0o644))
    assert read_back(data).name == name
    assert next(iter(TarReader(io.BytesIO(data + tar.END)))).name == name


def test_a_plain_header_is_one_block() -> None:
    assert len(encode_header(Header("a/b", mode=0o644, size=3))) == 512


def test_go_writes_a_pax_record_rather_than_a_prefix() -> None:
    data = encode_header(Header("d/" * 60 + "f"))
    assert data[156:157] == b"x" and b"path=" in data


def test_the_pax_name_is_gos() -> None:
    data = encode_header(Header("some/ä"))
    assert data[:100].rstrip(b"\0") == b"some/PaxHeaders.0"


@pytest.mark.parametrize("size", [0, 1, 0o77777777777, 0o77777777777 + 1, 1 << 40])
def test_sizes_beyond_octal_get_a_record(size: int) -> None:
    header = Header("a", size=size)
    data = encode_header(header)
    if size > 0o77777777777:
        assert f"size={size}\n".encode() in data
    else:
        assert decode_block(data[:512]).size == size


def test_big_ids_and_times_before_1970() -> None:
    member = read_back(encode_header(Header("a", uid=1 << 30, gid=0o7777777, mtime=-5)))
    assert (member.uid, member.gid, member.mtime) == (1 << 30, 0o7777777, -5)


def test_a_record_counts_its_own_digits() -> None:
    for length in range(1, 1100):
        value = b"v" * length
        assert decode_records(tar._record(b"k", value)) == {"k": value}


def test_whiteouts_are_empty_files_without_mode_or_time() -> None:
    block = decode_block(encode_header(Header("d/.wh.x")))
    assert (block.mode, block.mtime, block.size, block.kind) == (0, 0, 0, tar.REGULAR)


@pytest.mark.parametrize("made_by", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_others_write(made_by: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=made_by) as archive:
        for name in ("short", "l" * 80 + "/" + "n" * 90):
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.mtime = 5, 1234, 1_700_000_000
            archive.addfile(member, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 90
        archive.addfile(link)
    out.seek(0)
    reader = TarReader(out)
    found = [(m.name, m.size, m.uid, m.mtime, m.link, b"".join(reader.chunks())) for m in reader]
    assert found == [
        ("short", 5, 1234, 1_700_000_000, "", b"hello"),
        ("l" * 80 + "/" + "n" * 90, 5, 1234, 1_700_000_000, "", b"hello"),
        ("link", 0, 0, 0, "t" * 90, b""),
    ]


def _damaged(change: dict[int, bytes]) -> bytes:
    block = bytearray(encode_header(Header("a", size=3)))
    for position, value in change.items():
        block[position : position + len(value)] = value
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"abc".ljust(512, b"\0") + tar.END


@pytest.mark.parametrize(
    "change",
    [{124: b"junk"}, {124: b"\xff" * 12}, {124: b"\xbf" + b"\xff" * 11}, {108: b"\xff" * 8}],
    ids=["octal junk", "negative size", "2^95 size", "negative uid"],
)
def test_bad_numbers_are_refused(change: dict[int, bytes]) -> None:
    with pytest.raises(ImageError):
        list(TarReader(io.BytesIO(_damaged(change))))


def test_a_wrong_checksum_is_refused() -> None:
    data = bytearray(encode_header(Header("a")))
    data[0] = ord("b")
    with pytest.raises(ImageError, match="checksum"):
        list(TarReader(io.BytesIO(bytes(data))))


def test_a_huge_extended_header_is_refused_before_it_is_read() -> None:
    class Endless(io.RawIOBase):
        served = 0

        def read(self, size: int = -1) -> bytes:  # type: ignore[override]
            first = self.served == 0
            self.served += size
            assert self.served < 4 << 20
            return tar._block(b"x", b"", Header("", tar.PAX, size=1 << 30)) if first else b"0" * size

    with pytest.raises(ImageError) as error:
        list(TarReader(Endless()))
    assert error.value.code == "tar-header-too-large"


@pytest.mark.parametrize("cut", [100, 512, 700, 1023])
def test_a_truncated_archive_is_refused(cut: int) -> None:
    data = encode_header(Header("a", size=512)) + b"x" * 512
    with pytest.raises(ImageError, match="unexpected EOF"):
        for _ in (reader := TarReader(io.BytesIO(data[:cut]))):
            list(reader.chunks())


@pytest.mark.parametrize("fill", [0, 1, 127, 128, 255, -1])
def test_the_checksum_is_the_sum_of_the_bytes(fill: int) -> None:
    block = bytes([fill]) * 512 if fill >= 0 else bytes(range(256)) * 2
    assert checksum(block) == sum(block)
    assert checksum(block[:300] + b"\xff" * 212) == sum(block[:300]) + 255 * 212
