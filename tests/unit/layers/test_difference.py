"""What a layer tar holds, by BuildKit's rules (dockerfile semantics, 5.4); the upper directory is one overlayfs made."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from shiplap.layers.pack import pack_layer
from shiplap.oci.digest import EMPTY_LAYER_DIFF_ID
from shiplap.trees.tree import Tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay file system as root")


def layer_of(tmp_path: Path, script: str) -> tuple[list[str], bytes]:
    """Run ``script`` in an overlay over a small base; the names in the layer's tar, and the tar."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for path in (lower / "d/sub", lower / "e", upper, work, merged):
        path.mkdir(parents=True)
    for name in ("f", "g", "d/a", "d/b", "d/sub/c", "e/x"):
        (lower / name).write_text(name)
        os.utime(lower / name, (1000, 1000))
    mount = f"mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {merged}"
    subprocess.run(["unshare", "-m", "sh", "-ec", f"{mount}\ncd {merged}\n{script}"], check=True)
    out = io.BytesIO()
    with Tree((str(upper),)) as layer, Tree((str(lower),)) as base:
        packed = pack_layer(layer, base, out, "uncompressed")
    if not os.listdir(upper):
        assert packed.diff_id == EMPTY_LAYER_DIFF_ID
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = [member.name + ("/" if member.isdir() else "") for member in archive]
    return names, out.getvalue()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("true", []),
        ("echo 1 > n", ["n"]),
        ("echo 1 > d/n", ["d/", "d/n"]),
        ("rm f", [".wh.f"]),
        ("rm d/a; echo > d/n", ["d/", "d/.wh.a", "d/n"]),
        ("rm d/b; echo > d/a2", ["d/", "d/a2", "d/.wh.b"]),
        ("rm -r d", [".wh.d"]),
        ("echo > n; rm n", []),
        ("touch -d @1000 f", []),
        ("chmod 600 f", ["f"]),
        ("mv f t && mv t f", []),
        ("chmod 700 d/sub", ["d/", "d/sub/"]),
        ("rm f; mkdir f; echo > f/x", ["f/", "f/x"]),
        ("rm -r d; echo > d", ["d"]),
        ("rm -r d; mkdir d", ["d/", "d/.wh.a", "d/.wh.b", "d/.wh.sub"]),
        ("rm -r d; mkdir -p d/sub; echo d/a > d/a", ["d/", "d/a", "d/.wh.b", "d/sub/", "d/sub/.wh.c"]),
        ("mkdir -p x/y; echo > x/y/z; echo > x-1", ["x/", "x/y/", "x/y/z", "x-1"]),
        ("ln -s nowhere l", ["l"]),
        ("mkfifo p", ["p"]),
    ],
)
def test_members(tmp_path: Path, script: str, expected: list[str]) -> None:
    names, _ = layer_of(tmp_path, script)
    assert names == expected


def test_hard_links_become_links_to_the_first_name(tmp_path: Path) -> None:
    _, data = layer_of(tmp_path, "echo > n; ln n m; ln n d/o")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {member.name: member.linkname for member in archive if not member.isdir()}
    assert found == {"d/o": "", "m": "d/o", "n": "d/o"}


def test_owners_are_numbers_and_times_are_whole_seconds(tmp_path: Path) -> None:
    _, data = layer_of(tmp_path, "echo > n; chown 1234:70000 n; chmod 6755 n; touch -d @1700000000.9 n")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.getmember("n")
    assert (member.uid, member.gid, member.uname, member.gname) == (1234, 70000, "", "")
    assert (member.mode, member.mtime) == (0o6755, 1_700_000_000)


def test_capabilities_are_kept_and_other_attributes_dropped(tmp_path: Path) -> None:
    capability = "0sAQAAAgAgAAAAAAAAAAAAAAAAAAA="
    script = f"echo > n; setfattr -n user.x -v y n; setfattr -n security.capability -v {capability} n"
    if subprocess.run(["sh", "-c", "command -v setfattr"], stdout=subprocess.DEVNULL).returncode != 0:
        script = f"""{os.sys.executable} -c "
import os, base64
open('n', 'w').close()
os.setxattr('n', 'user.x', b'y')
os.setxattr('n', 'security.capability', base64.b64decode('{capability[2:]}'))" """
    _, data = layer_of(tmp_path, script)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert list(archive.getmember("n").pax_headers) == ["SCHILY.xattr.security.capability"]


def test_the_same_layer_packs_to_the_same_bytes(tmp_path: Path) -> None:
    layer_of(tmp_path, "mkdir x; for i in 1 2 3 4 5 6 7 8 9; do head -c 300000 /dev/zero > x/$i; done")
    digests = set()
    for _ in range(3):
        with Tree((str(tmp_path / "upper"),)) as layer, Tree((str(tmp_path / "lower"),)) as base:
            digests.add(pack_layer(layer, base, io.BytesIO()))
    assert len(digests) == 1
