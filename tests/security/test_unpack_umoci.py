"""What images really do, unpacked by umoci and by shiplap: the same tree, entry by entry."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.kit import program
from tests.layouts import write_layout
from tests.security.test_unpack_vectors import LEGITIMATE, PACKINGS, Member, directory, file, hard, link, node, tar_of

import shiplap

MORE: dict[str, list[Member | bytes]] = {
    "whiteouts": [directory("d"), file("d/a"), file("d/b"), file("c"), file("d/.wh.a"), file(".wh.c"), file("e")],
    "opaque": [directory("d"), file("d/a"), directory("d/s"), file("d/s/b"), file("d/.wh..wh..opq"), file("d/new")],
    "whiteout of a directory": [directory("d"), file("d/a"), file(".wh.d"), directory("x")],
    "nodes": [
        node("null", tarfile.CHRTYPE, 1, 3),
        node("disk", tarfile.BLKTYPE, 8, 1),
        node("pipe", tarfile.FIFOTYPE),
        node("large", tarfile.CHRTYPE, 4000, 1_000_000),
    ],
    "modes and owners": [
        file("s", mode=0o6755),
        directory("t", 0o1777),
        Member("u", owner=(1000, 65534)),
        Member("v", owner=(3_000_000, 3_000_000)),
    ],
    "times": [Member("old", mtime=1), Member("new", mtime=1 << 33), Member("part", pax={"mtime": "12345.678"})],
    "names": [
        file("n" * 255),
        file("/".join(["deep"] * 100)),
        file("new\nline"),
        file("-dash"),
        file("back\\slash"),
        file("quote'\" "),
        file("ünïcödé"),
    ],
    "capability": [
        Member("ping", pax={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00 \x00\x00" + "\x00" * 12})
    ],
    # In one layer: to link to a file of a layer beneath copies it up, and over overlayfs that is another file.
    "hard links of several": [
        file("a", b"data"),
        *(hard(f"l{n}", "a") for n in range(20)),
        hard("t", "l3"),
        link("s", "a"),
    ],
    # An entry that is a hard link says mode and owner again; containerd goes by the last, umoci by the first. So: the same.
    "setuid and a hard link": [file("a", b"data", mode=0o4755), hard("b", "a")._replace(mode=0o4755)],
    "a file under many kinds": [file("x"), link("x", "y"), file("x", b"again"), hard("z", "x")],
}
CASES = {name: members for name, (members, _) in LEGITIMATE.items()} | MORE


@pytest.mark.parametrize("packing", ["gzip", ""], ids=["gzip", "plain"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", list(CASES))
def test_the_same_tree_as_umoci(name: str, layers: int, packing: str, tmp_path: Path) -> None:
    umoci = program("umoci")
    if os.geteuid() != 0:
        pytest.skip("needs root: owners and nodes")
    members = CASES[name]
    if name in ("whiteouts", "opaque", "whiteout of a directory"):
        # A whiteout deletes what lies in layers beneath, never in its own.
        first = next(n for n, m in enumerate(members) if isinstance(m, Member) and ".wh." in m.name)
        parts = [members[:first], members[first:]]
    else:
        parts = [members] if layers == 1 else [members[:-1], members[-1:]]
    tars = [tar_of(part, str) for part in parts]
    diff_ids = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
    write_layout(tmp_path / "image", [PACKINGS[packing](tar) for tar in tars], diff_ids, packing)
    bundle = tmp_path / "bundle"
    subprocess.run([umoci, "unpack", "--image", f"{tmp_path}/image:latest", bundle], check=True, capture_output=True)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM image\nWORKDIR /unpacked-by-us\n")
    shiplap.build(
        context,
        output=f"type=tar,dest={tmp_path}/ours.tar",
        root=tmp_path / "store",
        build_contexts={"image": f"oci-layout://{tmp_path}/image"},
        environ={"HOME": str(tmp_path)},
    )
    (tmp_path / "ours").mkdir()
    keep = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    subprocess.run(["tar", *keep, "-xf", tmp_path / "ours.tar", "-C", tmp_path / "ours"], check=True)
    ours, theirs = listing(tmp_path / "ours"), listing(bundle / "rootfs")
    del ours["unpacked-by-us"]
    assert "\n".join(map(str, ours.items())) == "\n".join(map(str, theirs.items()))


def listing(root: Path) -> dict[str, list[object]]:
    """Every path: mode, owner, size, mtime in seconds, content or target, device, attributes, and its hard links."""
    found: dict[str, list[object]] = {}
    inodes: dict[int, str] = {}
    for directory_path, directories, files in os.walk(os.fsencode(root)):
        for leaf in sorted([*directories, *files]):
            path = os.path.join(directory_path, leaf)
            name = os.path.relpath(path, os.fsencode(root)).decode("utf-8", "backslashreplace")
            st = os.lstat(path)
            kind = stat.S_IFMT(st.st_mode)
            content = ""
            if kind == stat.S_IFREG:
                content = Path(os.fsdecode(path)).read_bytes().hex()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path).decode("utf-8", "backslashreplace")
            attributes = {
                n: os.getxattr(path, n, follow_symlinks=False).hex() for n in os.listxattr(path, follow_symlinks=False)
            }
            attributes.pop("user.rootlesscontainers", None)
            same = inodes.setdefault(st.st_ino, name) if kind != stat.S_IFDIR else ""
            size = st.st_size if kind == stat.S_IFREG else 0
            device = [os.major(st.st_rdev), os.minor(st.st_rdev)]
            found[name] = [
                oct(st.st_mode),
                st.st_uid,
                st.st_gid,
                size,
                _time(st, kind),
                content,
                device,
                attributes,
                same,
            ]
    return dict(sorted(found.items()))


def _time(st: os.stat_result, kind: int) -> int:
    # umoci dates parents that no layer names at the time of unpacking; we at 0, which is the same in each build.
    return 0 if kind == stat.S_IFDIR else int(st.st_mtime // 1)
