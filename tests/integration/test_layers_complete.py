"""Everything a layer can hold, and every way to pack it, through whole builds and other people's readers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from kit import Shiplap, program


def blobs(archive: Path) -> dict[str, bytes]:
    """The blobs of an OCI archive by digest."""
    with tarfile.open(archive) as tar:
        return {
            "sha256:" + member.name.rpartition("/")[2]: (tar.extractfile(member) or pytest.fail()).read()
            for member in tar
            if member.isfile() and member.name.startswith("blobs/")
        }


def manifest_of(archive: Path) -> dict[str, object]:
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json") or pytest.fail())
    return dict(json.loads(blobs(archive)[index["manifests"][0]["digest"]]))


PROFILES = [
    ("gzip", "", "gzip"),
    ("gzip", "0", "gzip"),
    ("gzip", "9", "gzip"),
    ("zstd", "", "zstd"),
    ("zstd", "19", "zstd"),
    ("uncompressed", "", ""),
]


@pytest.mark.parametrize(("compression", "level", "suffix"), PROFILES)
@pytest.mark.parametrize("force", [False, True])
def test_every_profile_is_read_by_skopeo(
    shiplap: Shiplap, tmp_path: Path, compression: str, level: str, suffix: str, force: bool
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "data").write_bytes(b"".join(b"%d " % n for n in range(400_000)))
    (context / "Dockerfile").write_text("FROM busybox\nCOPY data /data\n")
    out = tmp_path / "out.tar"
    flags = f"type=oci,dest={out},compression={compression}"
    flags += f",compression-level={level}" * bool(level) + ",force-compression=true" * force
    shiplap.run("build", "-q", "-o", flags, context)
    layers = manifest_of(out)["layers"]
    assert isinstance(layers, list)
    kinds = [layer["mediaType"].rpartition(".tar")[2].lstrip("+") for layer in layers]
    assert kinds == [suffix if force else "gzip", suffix]
    # skopeo decompresses each layer and compares it with its diff id.
    copied = tmp_path / "copied"
    command = [program("skopeo"), "copy", "--dest-decompress", f"oci-archive:{out}", f"dir:{copied}"]
    subprocess.run(command, check=True, capture_output=True)


def test_one_diff_id_and_one_digest_whatever_the_machine_has(shiplap: Shiplap, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "data").write_bytes(b"".join(b"%d " % n for n in range(1_000_000)))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")
    seen = set()
    for number, processors in enumerate(({0}, set(range(os.cpu_count() or 1)))):
        out = tmp_path / f"{number}.tar"
        command = [*shiplap.command, "build", "-q", "--root", str(tmp_path / f"store{number}"), "-o"]
        command += [f"type=oci,dest={out},compression-level=6", str(context)]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            preexec_fn=lambda wanted=processors: os.sched_setaffinity(0, wanted),
        )
        seen.add(json.dumps(manifest_of(out)["layers"]))
    assert len(seen) == 1


def test_names_of_any_bytes(shiplap: Shiplap, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "d").mkdir(parents=True)
    for byte in range(1, 256):
        if byte != ord("/"):
            Path(os.fsdecode(b"%s/d/n%s" % (os.fsencode(context), bytes([byte])))).write_bytes(bytes([byte]))
    (context / "d" / ("n" * 255)).write_text("long")
    (context / "Dockerfile").write_text("FROM scratch AS a\nCOPY d /d\nFROM scratch\nCOPY --from=a /d /e\n")
    out = tmp_path / "out.tar"
    shiplap.run("build", "-q", "-o", f"type=tar,dest={out}", context)
    with tarfile.open(out, errors="surrogateescape") as tar:
        names = {os.fsencode(member.name) for member in tar if member.isfile()}
        assert len(names) == 255
        assert {b"e/n" + bytes([byte]) for byte in range(1, 256) if byte != ord("/")} <= names
        for member in tar:
            if member.isfile() and member.size == 1:
                assert (tar.extractfile(member) or pytest.fail()).read() == os.fsencode(member.name)[-1:]


def test_a_sparse_file_of_the_context_is_its_zeros(shiplap: Shiplap, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    with (context / "sparse").open("wb") as file:
        file.truncate(200 << 20)
        file.seek(150 << 20)
        file.write(b"data")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY sparse /\n")
    out = tmp_path / "out.tar"
    shiplap.run("build", "-q", "-o", f"type=oci,dest={out}", context)
    assert out.stat().st_size < 2 << 20
    config = json.loads(blobs(out)[manifest_of(out)["config"]["digest"]])  # type: ignore[index]
    (layer,) = manifest_of(out)["layers"]  # type: ignore[misc]
    import gzip

    digest = hashlib.sha256()
    with gzip.open(io.BytesIO(blobs(out)[layer["digest"]])) as plain:
        while chunk := plain.read(1 << 20):
            digest.update(chunk)
    assert config["rootfs"]["diff_ids"] == ["sha256:" + digest.hexdigest()]


def test_hard_links_by_the_thousand(shiplap: Shiplap, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    script = "mkdir /l && echo data > /l/0 && i=1; while [ $i -lt 1000 ]; do ln /l/0 /l/$i; i=$((i+1)); done"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {script}\nRUN chmod 600 /l/7\n")
    out = tmp_path / "out.tar"
    shiplap.run("build", "-q", "-o", f"type=tar,dest={out}", context)
    with tarfile.open(out) as tar:
        members = [member for member in tar if member.name.startswith("l/")]
    # The second step changed one name of a file that lies beneath: over overlayfs that one is a file of its own then.
    assert sum(member.islnk() for member in members) == 998
    assert {member.name: member.mode for member in members if member.isreg()}["l/7"] == 0o600


def test_five_hundred_layers(shiplap: Shiplap, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "f").write_text("x")
    copies = "".join(f"COPY f /f{number}\n" for number in range(498))
    (context / "Dockerfile").write_text(f"FROM busybox\n{copies}RUN cat /f0 /f497 > /both && rm /f1\n")
    out = tmp_path / "out.tar"
    shiplap.run("build", "-q", "-o", f"type=oci,dest={out}", "-o", f"type=tar,dest={tmp_path}/tree.tar", context)
    assert len(manifest_of(out)["layers"]) == 500  # type: ignore[arg-type]
    with tarfile.open(tmp_path / "tree.tar") as tar:
        names = set(tar.getnames())
        assert (tar.extractfile("both") or pytest.fail()).read() == b"xx"
    assert "f1" not in names
    assert {"f0", "f2", "f497"} <= names
    subprocess.run([program("skopeo"), "inspect", f"oci-archive:{out}"], check=True, capture_output=True)
