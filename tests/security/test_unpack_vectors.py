"""Layers that try to get out (security reference, 1C): 37 vectors, each in gzip, zstd and plain, in one layer and split
over two, as the base of a stage, as the source of a COPY and as archives that ADD unpacks: 666 builds.

The host's sentinel tree must be as it was, whatever the outcome, and no process, mount, descriptor or file be left behind.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.layouts import write_layout

import shiplap
from shiplap.errors import ImageError, TreeError
from shiplap.layers.compression import Decompressed, zstd_module
from shiplap.layers.header import Header, encode_header
from shiplap.layers.unpack import unpack
from shiplap.trees.change import ChangeTree
from shiplap.trees.root import find
from shiplap.trees.tree import Tree


class Member(NamedTuple):
    name: str
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    data: bytes = b""
    mode: int = 0o644
    pax: dict[str, str] = {}
    device: tuple[int, int] = (0, 0)
    owner: tuple[int, int] = (0, 0)
    mtime: int = 0


def file(name: str, data: bytes = b"evil", mode: int = 0o777) -> Member:
    return Member(name, data=data, mode=mode)


def link(name: str, target: str) -> Member:
    return Member(name, tarfile.SYMTYPE, target)


def hard(name: str, target: str) -> Member:
    return Member(name, tarfile.LNKTYPE, target, mode=0o777)


def directory(name: str, mode: int = 0o777) -> Member:
    return Member(name, tarfile.DIRTYPE, mode=mode)


def node(name: str, kind: bytes, major: int = 0, minor: int = 0) -> Member:
    return Member(name, kind, device=(major, minor))


def raw(*pieces: bytes) -> bytes:
    """Bytes that no tar library would write."""
    return b"".join(piece + bytes(-len(piece) % 512) for piece in pieces)


def field(at: int, value: bytes, kind: bytes = b"0", name: str = "x") -> bytes:
    """A header with other bytes at ``at``, and a right checksum."""
    block = bytearray(encode_header(Header(name, kind)))
    block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


LONG = "l" * 247
CHAIN = [
    *(directory("/".join([LONG] * depth)) for depth in range(1, 17)),
    link("/".join([LONG] * 16 + ["up"]), "../" * 16),
    link("escape", "/".join([LONG] * 16 + ["up", "..", "victim"])),
    file("escape/new"),
    hard("grab", "escape/file"),
    file("grab"),
]

TOOLS = ("xz", "gzip", "unpigz", "zstd", "bzip2", "tar", "git", "sh", "newuidmap", "runc", "crun")


def xattr(name: str, value: str) -> dict[str, str]:
    return {f"SCHILY.xattr.{name}": value}


# {victim} is the absolute path of the sentinel; {rel} leads there from the unpacked root by "..".
VECTORS: dict[str, list[Member | bytes]] = {
    "V1 dotdot": [file("../victim/new")],
    "V2 absolute": [file("{victim}/new")],
    "V3 slash dotdot": [file("/../victim/new")],
    "V4 named dotdot": [file("..")],
    "V5 link out": [link("x", "{rel}victim"), file("x/new")],
    "V6 absolute link out": [link("x", "{victim}"), file("x/new")],
    "V7 link in a directory": [directory("dir"), link("dir/l", "../{rel}victim"), file("dir/l/newdir/f")],
    "V8 chain": [link("a", "{victim}"), link("b", "a"), link("c", "../../../b"), file("c/new")],
    "V9 two hop": [link("up", ".."), link("esc", "up/../victim"), file("esc/new")],
    "V10 hard link out": [hard("h", "../victim/file"), file("h")],
    "V11 hard link absolute": [hard("h", "{victim}/file"), file("h")],
    "V12 hard link by link dir": [link("d", "{victim}"), hard("h", "d/file"), file("h")],
    "V13 hard link to a directory": [hard("h", "{victim}"), file("h/new")],
    "V14 hard link missing": [hard("h", "nowhere")],
    "V15 overwrite through a hard link": [file("own", b"own"), hard("h", "own"), file("h", b"evil")],
    "V16 hard link to a link": [link("s", "{victim}/file"), hard("h", "s"), file("h/x")],
    "V17 directory over a link": [link("d", "{victim}"), directory("d", 0o700), file("d/new")],
    "V18 link named as the root": [
        link("./.", "{victim}"),
        link("", "{victim}"),
        link("a/..", "{victim}"),
        file("new"),
    ],
    "V19 whiteout of dot": [file(".wh..")],
    "V20 whiteout of dotdot": [file(".wh...")],
    "V21 whiteout of dot below": [directory("etc"), file("etc/.wh..")],
    "V22 whiteout of dotdot below": [directory("etc"), file("etc/.wh...")],
    "V23 whiteout by a link dir": [link("l", "{victim}"), file("l/.wh.file")],
    "V24 whiteout of a link": [link("l", "{victim}"), file(".wh.l")],
    "V25 whiteout with a dead parent": [file("no/such/.wh.x"), file(".wh.dir/file")],
    "V26 opaque in a link dir": [link("l", "{victim}"), file("l/.wh..wh..opq")],
    "V27 a volume that is a link": [link("volume", "{victim}"), file("volume/new"), file("volume/file")],
    "V28 beyond PATH_MAX": CHAIN,
    "V29 headers that lie": [
        Member("x", pax={"path": "../victim/new"}),
        Member("y", pax={"linkpath": "../victim"}),
        raw(field(124, b"%011o" % (1 << 30), b"x"), bytes(1 << 16)),
    ],
    "V30 a size that leads back": [
        file("x"),
        raw(field(124, b"\xff" * 11 + b"\x00"), field(124, b"\x80" + b"\xff" * 11)),
    ],
    "V31 an entry of 8 EiB": [file("x"), raw(field(124, b"\x80\0\0\0\x7f" + b"\xff" * 7), b"little")],
    "V32 cut short": [file("x"), raw(field(124, b"%011o" % 500_000))],
    "V33 what a builder might run": [
        directory("usr/bin"),
        *(
            file(f"{at}/{tool}", b"#!/bin/sh\ntouch {victim}/ran\n")
            for at in ("bin", "usr/bin", "sbin")
            for tool in TOOLS
        ),
        file("lib/x86_64-linux-gnu/libnss_files.so.2", b"\x7fELF"),
        file("usr/lib/python3/encodings/__init__.py", b"open('{victim}/ran', 'w')"),
        file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
    ],
    "V34 devices": [
        node("null", tarfile.CHRTYPE, 1, 3),
        node("disk", tarfile.BLKTYPE, 8, 0),
        node("deleted", tarfile.CHRTYPE, 0, 0),
        node("pipe", tarfile.FIFOTYPE),
        file("pipe/x"),
        file("null"),
    ],
    "V35 attributes": [
        Member("d", tarfile.DIRTYPE, pax=xattr("trusted.overlay.opaque", "y")),
        Member("e", tarfile.DIRTYPE, pax=xattr("trusted.overlay.redirect", "/") | xattr("user.overlay.redirect", "/")),
        Member("f", pax=xattr("user.overlay.whiteout", "y") | xattr("security.selinux", "unconfined")),
        Member("g", pax=xattr("user.large", "v" * 65536)),
        Member("h", pax={f"SCHILY.xattr.user.a{n}": "v" for n in range(2000)}),
    ],
    "V36 modes": [
        file("s", mode=0o7777),
        directory("t", 0o7777),
        Member("u", owner=(4294967295, 4294967295)),
        Member("v", mtime=-(1 << 40)),
        Member("w", pax={"mtime": str(1 << 62)}),
    ],
    "V37 kinds change": [file("a"), directory("a"), link("a", "{victim}"), file("a"), file("a/b")],
}
REFUSED = {
    "V1",
    "V3",
    "V4",
    "V10",
    "V11",
    "V12",
    "V13",
    "V14",
    "V19",
    "V20",
    "V21",
    "V22",
    "V25",
    "V28",
    "V29",
    "V30",
    "V31",
    "V32",
    "V34",
    "V36",
    "V37",
}
"""Those that no image needs: refused as the base of a stage. All else is contained."""  # fmt: skip


def tar_of(members: list[Member | bytes], fill: Callable[[str], str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, bytes):
                out.write(member)
                continue
            data = fill(member.data.decode("latin-1")).encode("latin-1")
            info = tarfile.TarInfo(fill(member.name))
            info.type, info.linkname, info.mode, info.size = member.kind, fill(member.link), member.mode, len(data)
            info.devmajor, info.devminor = member.device
            info.uid, info.gid = member.owner
            info.mtime = member.mtime
            info.pax_headers = dict(member.pax)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "zstd": lambda data: bytes(zstd_module().compress(data)),
    "": bytes,
}


def fingerprint(path: Path) -> list[object]:
    rows: list[object] = []
    for entry in sorted([path, *path.rglob("*")]):
        st = entry.lstat()
        data = hashlib.sha256(entry.read_bytes()).hexdigest() if entry.is_file() else ""
        attributes = sorted((name, os.getxattr(entry, name, follow_symlinks=False)) for name in os.listxattr(entry))
        rows.append((str(entry), st.st_mode, st.st_uid, st.st_mtime_ns, st.st_nlink, st.st_size if data else 0, data))
        rows.append(attributes)
    return rows


def surroundings() -> tuple[str, int, list[str]]:
    """Mounts, open descriptors and children of this process."""
    mounts = Path("/proc/self/mountinfo").read_text()
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return mounts, len(os.listdir("/proc/self/fd")), children


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "victim"
    path.mkdir()
    (path / "file").write_text("precious")
    (path / "file").chmod(0o400)
    before = fingerprint(path)
    listing = {"victim", "store", "evil", "context", "out.tar", "home"}
    yield path
    assert fingerprint(path) == before
    assert set(os.listdir(tmp_path)) <= listing


@pytest.mark.parametrize("way", ["FROM", "COPY", "ADD"])
@pytest.mark.parametrize("packing", list(PACKINGS), ids=["gzip", "zstd", "plain"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", VECTORS)
def test_nothing_gets_out(name: str, layers: int, packing: str, way: str, tmp_path: Path, victim: Path) -> None:
    def fill(text: str) -> str:
        return text.replace("{victim}", str(victim)).replace("{rel}", "../" * 4)

    members = VECTORS[name]
    parts = [members] if layers == 1 else [members[:-1], members[-1:]]
    tars = [tar_of(part, fill) for part in parts]
    context = tmp_path / "context"
    context.mkdir()
    contexts = {}
    if way == "ADD":
        for number, tar in enumerate(tars):
            (context / f"{number}.tar").write_bytes(PACKINGS[packing](tar))
        lines = ["FROM scratch", *(f"ADD {number}.tar /" for number in range(len(tars)))]
    else:
        diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
        layers_of = [PACKINGS[packing](tar) for tar in tars]
        write_layout(tmp_path / "evil", layers_of, diff_ids, packing, {"Volumes": {"/volume": {}}})
        contexts = {"evil": f"oci-layout://{tmp_path}/evil"}
        # WORKDIR is resolved in the base, so the base is unpacked.
        lines = ["FROM evil", "WORKDIR /some/where"] if way == "FROM" else ["FROM scratch", "COPY --from=evil / /"]
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    before = surroundings()
    refused = False
    try:
        shiplap.build(
            context,
            output=f"type=tar,dest={tmp_path}/out.tar",
            root=tmp_path / "store",
            build_contexts=contexts,
            environ={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]},
        )
    except (ImageError, TreeError) as error:
        refused = True
        assert error.code not in ("internal", "unreadable"), error
    assert surroundings() == before
    assert list((tmp_path / "store/tmp").iterdir()) == []
    if way == "FROM":
        assert refused == (name.split()[0] in REFUSED)


def test_the_matrix_is_complete() -> None:
    assert [name.split()[0] for name in VECTORS] == [f"V{number}" for number in range(1, 38)]
    assert len(VECTORS) * len(PACKINGS) * 2 * 3 == 666


# -- what must still work, and is often broken by cures of the above

LEGITIMATE: dict[str, tuple[list[Member], dict[str, str]]] = {
    "through lib -> usr/lib": ([directory("usr/lib"), link("lib", "usr/lib"), file("lib/f", b"f")], {"usr/lib/f": "f"}),
    "var/run -> /run, implied parents": (
        [link("var/run", "/run"), directory("run"), file("var/run/f", b"f")],
        {"run/f": "f"},
    ),
    "surplus dotdot in a link": (
        [directory("etc"), file("etc/certs", b"c"), link("etc/ssl", "../../../../../../../../etc/certs")],
        {"etc/ssl": "c"},
    ),
    "absolute hard link": ([file("bin/a", b"a"), hard("bin/b", "/bin/a")], {"bin/b": "a"}),
    "chain of ten links": (
        [directory("d0"), file("d0/f", b"f"), *(link(f"d{n + 1}", f"d{n}") for n in range(10))],
        {"d10/f": "f"},
    ),
    "hard link by an absolute link": ([directory("a"), file("a/f", b"f"), link("b", "/a"), hard("g", "b/f")], {"g": "f"}),
    "file replaced by a directory": ([file("x"), directory("x"), file("x/y", b"y")], {"x/y": "y"}),
    "child before its parent": ([file("p/c", b"c"), directory("p", 0o555)], {"p/c": "c"}),
    "last duplicate wins": ([file("x", b"1"), file("x", b"2")], {"x": "2"}),
}  # fmt: skip


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", LEGITIMATE)
def test_what_images_really_do(name: str, layers: int, tmp_path: Path) -> None:
    members, expected = LEGITIMATE[name]
    parts = [members] if layers == 1 else [members[:-1], members[-1:]]
    below: list[str] = []
    for number, part in enumerate(parts):
        root = tmp_path / str(number) / "diff"
        root.mkdir(parents=True)
        with Tree(below) as base, ChangeTree(str(root), base if below else None) as target:
            unpack(Decompressed(io.BytesIO(tar_of(part, str))), target)
        below.insert(0, str(root))
    with Tree(below) as tree:
        for path, content in expected.items():
            found = find(tree, path)
            assert found is not None and found.entry is not None
            with open(found.parent.open_file(found.entry)) as opened:
                assert opened.read() == content


def test_modes_and_times_of_directories_are_set_last(tmp_path: Path) -> None:
    root = tmp_path / "diff"
    root.mkdir()
    with ChangeTree(str(root), None) as target:
        unpack(Decompressed(io.BytesIO(tar_of([directory("p", 0o555), file("p/c")], str))), target)
    assert (root / "p").stat().st_mode & 0o7777 == 0o555
    assert (root / "p").stat().st_mtime == 0


@pytest.mark.parametrize(("mtime", "kept"), [(-1, 0), (-(1 << 40), 0), (1 << 33, 1 << 33), (1 << 40, 0), (1 << 62, 0)])
def test_times_out_of_range_are_1970(mtime: int, kept: int, tmp_path: Path) -> None:
    """As containerd has it (``boundTime``); umoci keeps those before 1970."""
    with ChangeTree(str(tmp_path), None) as target:
        unpack(Decompressed(io.BytesIO(tar_of([Member("f", pax={"mtime": str(mtime)})], str))), target)
    assert (tmp_path / "f").stat().st_mtime == kept
