"""A build that is answered from its record: the same as the long way gives, and never when anything has changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kit import Shiplap

DOCKERFILE = "FROM scratch AS a\nCOPY src /src\nCOPY one.txt *.md /\nFROM a\nCOPY --from=a /src/f /g\nLABEL v=1\n"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One for each test, made at once, so that only once is waited for them to be old enough."""
    made = [_context(tmp_path_factory.mktemp("context")) for _ in range(32)]
    settle(made[-1])
    return made


@pytest.fixture
def context(contexts: list[Path]) -> Path:
    return contexts.pop()


def _context(path: Path) -> Path:
    (path / "src/sub").mkdir(parents=True)
    (path / "src/f").write_text("f")
    (path / "src/link").symlink_to("f")
    (path / "one.txt").write_text("one")
    (path / "a.md").write_text("a")
    (path / "junk").write_text("junk")
    (path / ".dockerignore").write_text("junk*\n")
    (path / "Dockerfile").write_text(DOCKERFILE)
    return path


def settle(path: Path) -> None:
    """Let everything be old enough to be remembered: ctime cannot be set, so time has to pass."""
    youngest = max(p.lstat().st_ctime for p in [path, *path.rglob("*")])
    time.sleep(max(0.0, youngest + 2.05 - time.time()))


def build(shiplap: Shiplap, context: Path, out: Path, *flags: str) -> tuple[str, bool]:
    """The digest of the image, and whether it came from a record (then nothing of the solver was imported)."""
    told = shiplap.run(
        "build", "--progress=plain", "-o", f"type=oci,dest={out}", *flags, str(context), PYTHONPROFILEIMPORTTIME="1"
    )
    digest = next(line.split()[1] for line in told.stderr.splitlines() if line.startswith("image "))
    return digest.rstrip(","), "shiplap.solver.machine" not in told.stderr


def test_the_second_time_nothing_is_planned(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    first = build(shiplap, context, tmp_path / "1.tar")
    assert first[1] is False
    again = build(shiplap, context, tmp_path / "1.tar")
    assert again == (first[0], True)


def test_the_archive_is_the_same_to_the_byte(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    build(shiplap, context, out)
    written = out.read_bytes()
    out.unlink()
    assert build(shiplap, context, out)[1]
    assert out.read_bytes() == written


def test_what_is_shown_is_what_the_long_way_shows(shiplap: Shiplap, context: Path) -> None:
    flags = ("build", "--progress=plain", "-t", "x:1", str(context))
    shiplap.run(*flags)
    long = shiplap.run(*flags, "--no-cache-filter", "nothing").stderr
    short = shiplap.run(*flags).stderr

    def steady(text: str) -> list[str]:
        return [line for line in text.splitlines() if "DONE" not in line and not line.startswith("built ")]

    assert steady(short) == steady(long)
    assert "0 steps run, 3 reused" in short


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file": lambda c: (c / "src/f").write_text("F"),
    "a file, size and mtime kept": lambda c: _same_stat(c / "src/f"),
    "a new file": lambda c: (c / "src/sub/new").write_text("n"),
    "a file gone": lambda c: (c / "src/f").rename(c / "junk2"),
    "a mode": lambda c: (c / "src/f").chmod(0o600),
    "a link": lambda c: ((c / "src/link").unlink(), (c / "src/link").symlink_to("sub")),
    "a match of the wildcard": lambda c: (c / "b.md").write_text("b"),
    "the Dockerfile": lambda c: (c / "Dockerfile").write_text(DOCKERFILE + "LABEL w=2\n"),
    "the ignore file": lambda c: (c / ".dockerignore").write_text("junk*\nsrc/sub\n"),
    "an ignore file of the Dockerfile's own": lambda c: (c / "Dockerfile.dockerignore").write_text("a.md\n"),
}


def _same_stat(path: Path) -> None:
    before = path.stat()
    path.write_text("x" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_takes_the_long_way(shiplap: Shiplap, context: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "x.tar"
    if change == "a file gone":
        (context / "Dockerfile").write_text(DOCKERFILE.replace("COPY --from=a /src/f /g\n", ""))
        settle(context)
    build(shiplap, context, out)
    assert build(shiplap, context, out)[1]
    CHANGES[change](context)
    told, short = build(shiplap, context, out)
    assert not short
    fresh, _ = build(shiplap, context, tmp_path / "y.tar", "--root", str(tmp_path / "other"))
    assert _shape(out) == _shape(tmp_path / "y.tar"), (told, fresh)


def _shape(archive: Path) -> object:
    """The config less its times."""
    import tarfile

    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]

        def blob(descriptor: dict[str, str]) -> dict[str, object]:
            return dict(json.load(tar.extractfile("blobs/" + descriptor["digest"].replace(":", "/"))))  # type: ignore[arg-type]

        config = blob(blob(index["manifests"][0])["config"])  # type: ignore[arg-type]
    return config["rootfs"], config["config"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--build-arg", "A=1"),
        ("--label", "a=b"),
        ("--target", "a"),
        ("-t", "y:2"),
        ("--no-cache",),
        ("--platform", "linux/arm64"),
    ],
)
def test_another_question_has_another_answer(
    shiplap: Shiplap, context: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    out = tmp_path / "x.tar"
    build(shiplap, context, out)
    assert build(shiplap, context, out)[1]
    assert not build(shiplap, context, out, *flags)[1]


def test_what_the_ignore_file_hides_may_change(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY src /src\n")
    settle(context)
    build(shiplap, context, tmp_path / "x.tar")
    (context / "junk").write_text("other")
    assert build(shiplap, context, tmp_path / "x.tar")[1]


def test_what_was_pruned_is_built_again(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    build(shiplap, context, out)
    assert build(shiplap, context, out)[1]
    shiplap.run("prune", "--all", "--force")
    assert not build(shiplap, context, out)[1]


def test_a_damaged_blob_never_reaches_the_archive(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    build(shiplap, context, out)
    good = out.read_bytes()
    blobs = sorted((shiplap.root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    damaged = bytearray(blobs[-1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    blobs[-1].write_bytes(damaged)
    told = shiplap.run("build", "-q", "-o", f"type=oci,dest={out}", str(context), check=False)
    if told.returncode == 0:
        assert _shape(out)  # repaired on the way
    else:
        assert "blob-corrupt" in told.stderr
        assert out.read_bytes() == good
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".x.tar")]


def test_a_name_that_means_another_image_now(shiplap: Shiplap, context: Path) -> None:
    flags = ("build", "-q", "-t", "moved:1", str(context))
    digest = shiplap.run(*flags).stdout
    shiplap.run("build", "-q", "-t", "moved:1", "--label", "x=y", str(context))
    assert shiplap.run(*flags).stdout == digest
    assert digest.strip() in shiplap.run("inspect", "moved:1").stdout


def test_a_young_file_is_not_trusted(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    (context / "one.txt").write_text("two")
    build(shiplap, context, out)
    assert not build(shiplap, context, out)[1]


def test_an_unreadable_record_costs_only_time(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.tar"
    digest, _ = build(shiplap, context, out)
    (record,) = (shiplap.root / "repeats").iterdir()
    for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"files": 1}', record.read_bytes()[:-50]):
        record.write_bytes(content)
        assert build(shiplap, context, out) == (digest, False)


def test_patterns_that_take_back_are_not_witnessed(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    (context / ".dockerignore").write_text("src\n!src/f\n")
    settle(context)
    build(shiplap, context, tmp_path / "x.tar")
    assert not build(shiplap, context, tmp_path / "x.tar")[1]


def test_metadata_tells_what_is_asked_for_now(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    for wanted, keys in (("disabled", 0), ("min", 3), ("max", 5), ("disabled", 0), ("max", 5)):
        shiplap.run("build", "-q", "--metadata-file", tmp_path / "m", context, BUILDX_METADATA_PROVENANCE=wanted)
        told = json.loads((tmp_path / "m").read_text()).get("buildx.build.provenance", {})
        assert ("metadata" in told, "buildConfig" in told, bool(told)) == (keys == 5, keys == 5, keys > 0), wanted
