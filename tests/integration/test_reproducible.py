"""--reproducible: one digest on different days, by different users, in different places; verify: what differs, and where."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.kit import Shiplap

from shiplap.oci.platform import native_platform

EPOCH = 315_532_800
DOCKERFILE = """\
FROM busybox AS build
WORKDIR /w/x
RUN echo hi >a && mkdir d && ln a d/b && ln -s a l && mkfifo f && chmod 2751 d && chown 12:34 a
COPY --chmod=750 f data/
COPY <<EOF /here/text
text
EOF
RUN rm l && touch c && mkdir /tmp/x && rmdir /tmp/x
FROM busybox
COPY --from=build /w /v
COPY --from=build --link /here /here
ADD files.tar /t/
RUN rm -r /v/x/d && echo more >>/v/x/data/f
ENV A=b
"""
DIFFERENT = """\
FROM busybox
RUN echo same >/same
RUN mkdir /d && cat /proc/sys/kernel/random/uuid >/d/different && echo x >/d/equal
COPY f /f
"""


def context_of(directory: Path, dockerfile: str = DOCKERFILE, mtime: int = 1_700_000_000) -> Path:
    import io
    import tarfile

    directory.mkdir(parents=True)
    (directory / "Dockerfile").write_text(dockerfile)
    (directory / "f").write_text("f\n")
    with tarfile.open(directory / "files.tar", "w") as archive:
        member = tarfile.TarInfo("in")
        member.size, member.mtime = 3, 1
        archive.addfile(member, io.BytesIO(b"in\n"))
    for path in directory.iterdir():
        path.chmod(0o644)
        os.utime(path, (mtime, mtime))
    directory.chmod(0o755)
    return directory


def digest_of(shiplap: Shiplap, context: Path, *flags: str, **env: str) -> str:
    out = shiplap.root.parent / "metadata.json"
    shiplap.run("build", "-q", "--reproducible", *flags, "--metadata-file", out, context, **env)
    return str(json.loads(out.read_text())["containerimage.digest"])


def test_one_digest(shiplap: Shiplap, rootless: Shiplap, single: Shiplap, tmp_path: Path) -> None:
    one = digest_of(shiplap, context_of(tmp_path / "one"))
    elsewhere = context_of(tmp_path / "deep/er/two", mtime=1_000_000_000)
    assert digest_of(shiplap, elsewhere, "--no-cache", TZ="Asia/Tokyo", LANG="C", TMPDIR=str(tmp_path)) == one
    assert digest_of(shiplap, elsewhere, "--no-cache", "--isolation=oci") == one
    assert digest_of(shiplap, elsewhere) == one, "from the cache"
    copying = Shiplap(tmp_path / "copying", shiplap.env, tmp_path)
    assert digest_of(copying, elsewhere, SHIPLAP_SNAPSHOTS="copy") == one
    for user in (rootless, single):
        context = user.root.parent / "context"
        context_of(context, mtime=1_500_000_000)
        assert digest_of(user, context) == one


def test_attestations_too(shiplap: Shiplap, tmp_path: Path) -> None:
    flags = ["--provenance=mode=max", "--sbom=true", "--platform=linux/amd64,linux/arm64"]
    small = "FROM --platform=$BUILDPLATFORM busybox AS b\nRUN echo x >/x\nFROM scratch\nCOPY --from=b /x /\n"
    one = digest_of(shiplap, context_of(tmp_path / "one", small), *flags)
    other = Shiplap(tmp_path / "other/store", shiplap.env, tmp_path)
    assert digest_of(other, context_of(tmp_path / "two", small, 1), *flags) == one


def test_all_times_are_the_epochs(shiplap: Shiplap, tmp_path: Path) -> None:
    out = tmp_path / "t.tar"
    context = context_of(tmp_path / "c")
    for env, epoch in (({}, EPOCH), ({"SOURCE_DATE_EPOCH": "1600000000"}, 1_600_000_000)):
        shiplap.run("build", "-q", "--reproducible", "-t", "it", context, **env)
        told = json.loads(shiplap.run("inspect", "it").stdout)[0]["Image"]
        times = {entry["created"] for entry in told["history"][-5:]}
        assert times == {told["created"]}
        assert told["created"].startswith("1980-01-01T00:00:00" if epoch == EPOCH else "2020-09-13")
        shiplap.run("save", "-o", out, "it")
        assert _layer_times(out)[1:] == [{epoch}] * 4


def _layer_times(archive: Path) -> list[set[int]]:
    import io
    import tarfile

    with tarfile.open(archive) as outer:
        names = json.load(outer.extractfile("manifest.json"))[0]["Layers"]  # type: ignore[arg-type]
        found = []
        for name in names:
            with tarfile.open(fileobj=io.BytesIO(outer.extractfile(name).read())) as layer:  # type: ignore[union-attr]
                found.append({int(member.mtime) for member in layer if ".wh." not in member.name})
    return found


def test_bytes_do_not_hang_on_the_processor(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c")
    plain = digest_of(shiplap, context)
    assert digest_of(shiplap, context, "-o", "type=image,compression=gzip,compression-level=6") == plain
    assert digest_of(shiplap, context, "-o", "type=image,compression=gzip,compression-level=9") != plain


def test_rewriting_needs_an_epoch(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c")
    told = shiplap.run("build", "-o", "type=image,rewrite-timestamp=true", context).stderr
    assert "rewrite-timestamp is specified, but no source-date-epoch was found" in told


@pytest.mark.parametrize("damage", [False, True], ids=["whole", "pruned"])
def test_rewritten_layers_are_kept_and_made_again(shiplap: Shiplap, tmp_path: Path, damage: bool) -> None:
    context = context_of(tmp_path / "c")
    one = digest_of(shiplap, context)
    if damage:
        shutil.rmtree(shiplap.root / "blobs")
        shiplap.run("fsck", "--repair", check=False)
    assert digest_of(shiplap, context) == one
    assert shiplap.run("fsck").returncode == 0


def test_verify_says_the_same(shiplap: Shiplap, tmp_path: Path) -> None:
    done = shiplap.run("verify", "-q", context_of(tmp_path / "c"))
    assert done.stdout.startswith("reproducible: sha256:")
    told = json.loads(shiplap.run("verify", "-q", "--format=json", tmp_path / "c").stdout)
    assert told["same"] and told["digests"][0] == told["digests"][1] and not told["differences"]


def test_verify_names_file_and_step(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", DIFFERENT)
    done = shiplap.run("verify", "-q", context, check=False)
    assert done.returncode == 1
    assert "/d/different" in done.stdout
    assert "cat /proc/sys/kernel/random/uuid" in done.stdout
    assert "/same" not in done.stdout.replace("echo same", "") and "/d/equal" not in done.stdout.replace(
        ">/d/equal", ""
    )
    told = json.loads(shiplap.run("verify", "-q", "--format=json", context, check=False).stdout)
    (difference,) = told["differences"]
    assert [file["path"] for file in difference["files"]] == ["d/different"]


@pytest.mark.parametrize("flag", ["--platform=linux/amd64,linux/arm64", "--provenance=mode=max", "--sbom=true"])
def test_verify_finds_the_images_of_an_index(flag: str, shiplap: Shiplap, tmp_path: Path) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM busybox AS b\nARG TARGETARCH\n"
        "RUN cat /proc/sys/kernel/random/uuid > /$TARGETARCH\nFROM scratch\nCOPY --from=b /*64 /d/\n"
    )
    done = shiplap.run("verify", "-q", flag, context_of(tmp_path / "c", text), check=False)
    assert (done.returncode, done.stderr) == (1, "")
    found = [name for name in ("amd64", "arm64") if f"~ /d/{name}  content  (step 1)" in done.stdout]
    assert found == (["amd64", "arm64"] if "platform" in flag else [native_platform().architecture])


def test_verify_pushes_and_writes_nothing(shiplap: Shiplap, tmp_path: Path) -> None:
    context = context_of(tmp_path / "c", "FROM scratch\nCOPY f /f\n")
    out = tmp_path / "out"
    shiplap.run("verify", "-q", "-t", "127.0.0.1:1/never:1", "--push", "-o", out, context)
    assert not out.exists()
    assert "never" not in shiplap.run("images").stdout


def test_verify_in_trouble(shiplap: Shiplap, tmp_path: Path) -> None:
    done = shiplap.run("verify", context_of(tmp_path / "c", "FROM busybox\nRUN false\n"), check=False)
    assert done.returncode == 2
    assert "exit code: 1" in done.stderr
