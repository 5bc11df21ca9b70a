"""Layers that try to get out (security reference, 1C): each in gzip and plain, in one layer and split over two.

The host's sentinel tree must be as it was, whatever the outcome; where the reference names an outcome, that too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from shiplap.errors import ImageError
from shiplap.layers.compression import Decompressed
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


def file(name: str, data: bytes = b"evil", mode: int = 0o777) -> Member:
    return Member(name, data=data, mode=mode)


def link(name: str, target: str) -> Member:
    return Member(name, tarfile.SYMTYPE, target)


def hard(name: str, target: str) -> Member:
    return Member(name, tarfile.LNKTYPE, target, mode=0o777)


def directory(name: str, mode: int = 0o777) -> Member:
    return Member(name, tarfile.DIRTYPE, mode=mode)


LONG = "l" * 247
CHAIN = [
    *(directory("/".join([LONG] * depth)) for depth in range(1, 17)),
    link("/".join([LONG] * 16 + ["up"]), "../" * 16),
    link("escape", "/".join([LONG] * 16 + ["up", "..", "victim"])),
    file("escape/new"),
    hard("grab", "escape/file"),
    file("grab"),
]

# {victim} is the absolute path of the sentinel; {rel} leads there from the unpacked root by "..".
VECTORS: dict[str, list[Member]] = {
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
    "V28 beyond PATH_MAX": CHAIN,
    "V29 pax path": [Member("x", pax={"path": "../victim/new"}), Member("y", pax={"linkpath": "../victim"})],
    "V36 modes": [file("s", mode=0o7777), directory("t", 0o7777)],
    "V37 kinds change": [file("a"), directory("a"), link("a", "{victim}"), file("a"), file("a/b")],
}
REFUSED = {
    "V1 dotdot", "V3 slash dotdot", "V4 named dotdot", "V14 hard link missing", "V19 whiteout of dot",
    "V20 whiteout of dotdot", "V21 whiteout of dot below", "V22 whiteout of dotdot below", "V29 pax path",
    "V13 hard link to a directory", "V10 hard link out", "V11 hard link absolute", "V12 hard link by link dir",
    "V25 whiteout with a dead parent", "V28 beyond PATH_MAX", "V37 kinds change",
}  # fmt: skip


def tar_of(members: list[Member], fill: Callable[[str], str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(fill(member.name))
            info.type, info.linkname, info.mode, info.size = (
                member.kind,
                fill(member.link),
                member.mode,
                len(member.data),
            )
            info.pax_headers = dict(member.pax)
            archive.addfile(info, io.BytesIO(member.data))
    return out.getvalue()


def fingerprint(path: Path) -> list[object]:
    rows: list[object] = []
    for entry in sorted([path, *path.rglob("*")]):
        st = entry.lstat()
        data = hashlib.sha256(entry.read_bytes()).hexdigest() if entry.is_file() else ""
        rows.append((str(entry), st.st_mode, st.st_uid, st.st_mtime_ns, st.st_nlink, st.st_size if data else 0, data))
    return rows


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.mkdir()
    (path / "file").write_text("precious")
    (path / "file").chmod(0o400)
    return path


@pytest.mark.parametrize("packing", [gzip.compress, bytes], ids=["gzip", "plain"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", VECTORS)
def test_nothing_gets_out(
    name: str, layers: int, packing: Callable[[bytes], bytes], tmp_path: Path, victim: Path
) -> None:
    def fill(text: str) -> str:
        return text.replace("{victim}", str(victim)).replace("{rel}", "../" * 3)

    members = VECTORS[name]
    before = fingerprint(victim)
    listing = sorted(os.listdir(tmp_path))
    parts = [members] if layers == 1 else [members[:-1], members[-1:]]
    refused = False
    below: list[str] = []
    for number, part in enumerate(parts):
        root = tmp_path / "store" / str(number) / "diff"
        root.mkdir(parents=True)
        stream = Decompressed(io.BytesIO(packing(tar_of(part, fill))))
        try:
            with Tree(below) as base, ChangeTree(str(root), base if below else None) as target:
                unpack(stream, target)
        except ImageError:
            refused = True
            break
        below.insert(0, str(root))
    assert fingerprint(victim) == before
    assert sorted(os.listdir(tmp_path)) == sorted([*listing, "store"])
    assert refused == (name in REFUSED)


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
