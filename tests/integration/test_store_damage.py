"""Bits that flip, files that are cut, emptied, swapped or gone: noticed before they get into an image, and mended."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import killing
from kit import SOAK, Shiplap

KINDS = ("blob", "index", "name", "memory", "table", "snapshot", "repeat")
MUTATIONS = 100 if SOAK else 14


@pytest.fixture
def built(tmp_path: Path, mirror: Path) -> Iterator[tuple[Shiplap, Path, str]]:
    """A store in which the reference image was built (in a copy of it something is damaged), and the image's digest."""
    killing.reference_context(tmp_path / "context")
    env = {"CONTAINERS_REGISTRIES_CONF": str(mirror), "SOURCE_DATE_EPOCH": killing.EPOCH}
    shiplap = Shiplap(tmp_path / "store", env, tmp_path)
    shiplap.run(*build(tmp_path))
    time.sleep(2.1)  # only files that have not just changed are remembered
    shiplap.run(*build(tmp_path))
    wanted = killing.digest_of_file(tmp_path / "o.tar")
    shutil.copytree(shiplap.root, tmp_path / "sound", symlinks=True)
    yield shiplap, tmp_path / "sound", wanted


def build(directory: Path) -> list[str]:
    outputs = ["-o", "type=image", "-o", f"type=oci,dest={directory / 'o.tar'}"]
    return ["build", "--progress=plain", "-t", "it", *outputs, str(directory / "context")]


def restore(sound: Path, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(sound, root, symlinks=True)


def targets(root: Path) -> dict[str, list[Path]]:
    """What may be damaged, by kind."""
    snapshots = sorted((root / "snapshots").iterdir())
    return {
        "blob": sorted((root / "blobs/sha256").iterdir()),
        "index": [root / "index.sqlite"],
        "name": sorted((root / "names").iterdir()),
        "memory": sorted((root / "files").iterdir()),
        "repeat": sorted((root / "repeats").iterdir()),
        "table": [path / "contents" for path in snapshots if (path / "contents").exists()],
        "snapshot": [path / "diff" for path in snapshots if (path / "diff").exists()],
    }


def damage(path: Path, dice: random.Random, others: list[Path]) -> str:
    """Damage one thing; what was done to it."""
    if path.is_dir():
        shutil.rmtree(path if dice.random() < 0.5 else path.parent)
        return f"{path} removed"
    data = path.read_bytes()
    how = dice.choice(("flip", "flip", "flip", "cut", "empty", "remove", "swap"))
    if how == "flip":
        at, bit = dice.randrange(len(data)), dice.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        return f"bit {bit} of byte {at} of {path} flipped"
    if how == "cut":
        path.write_bytes(data[: dice.randrange(len(data))])
    elif how == "empty":
        path.write_bytes(bytes(len(data)))
    elif how == "remove" or len(others) < 2:
        path.unlink()
    else:
        other = dice.choice([one for one in others if one != path])
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    return f"{path}: {how}"


def test_no_damage_gets_into_an_image(built: tuple[Shiplap, Path, str], tmp_path: Path) -> None:
    shiplap, sound, wanted = built
    dice = random.Random(os.urandom(8) if SOAK else 1)
    mended = failed = 0
    for number in range(MUTATIONS):
        restore(sound, shiplap.root)
        kind = KINDS[number % len(KINDS)]
        choice = targets(shiplap.root)[kind]
        done = damage(dice.choice(choice), dice, choice)
        (tmp_path / "o.tar").unlink(missing_ok=True)
        first = shiplap.run(*build(tmp_path), check=False)
        try:
            if first.returncode == 0:
                mended += 1
                assert killing.digest_of_file(tmp_path / "o.tar") == wanted
            else:
                failed += 1
                assert "ERROR: " in first.stderr and "\n  try: " in first.stderr
                assert not (tmp_path / "o.tar").exists()
                shiplap.run(*build(tmp_path))
                assert killing.digest_of_file(tmp_path / "o.tar") == wanted
            shiplap.run("fsck", "--repair")
            killing.assert_sound(shiplap)
            shiplap.run(*build(tmp_path))
            assert killing.digest_of_file(tmp_path / "o.tar") == wanted
            killing.assert_sound(shiplap)
        except BaseException as error:
            error.add_note(f"{done}\n{first.stderr}")
            raise
    print(f"{mended} mended at once, {failed} by the second build")
    assert failed <= MUTATIONS // 4


def test_fsck_finds_all_damage_of_what_is_kept(built: tuple[Shiplap, Path, str], tmp_path: Path) -> None:
    """Everything but a memory that is gone, which is no damage, and what hits unused bytes of the index."""
    shiplap, sound, _ = built
    dice = random.Random(os.urandom(8) if SOAK else 2)
    kinds = ("blob", "name", "table", "snapshot", "memory", "repeat")
    for number in range(MUTATIONS if SOAK else 10):
        restore(sound, shiplap.root)
        kind = kinds[number % len(kinds)]
        choice = targets(shiplap.root)[kind]
        path = dice.choice(choice)
        done = damage(path, dice, choice)
        if kind in ("memory", "repeat", "name") and not path.exists():
            continue
        report = json.loads(shiplap.run("fsck", "--format", "json", check=False).stdout)
        assert report["findings"] and not report["clean"], f"not found: {done}"
        again = json.loads(shiplap.run("fsck", "--format", "json", check=False).stdout)
        assert again["findings"] == report["findings"], "fsck without --repair changes nothing"
        assert shiplap.run("fsck", "--repair").returncode == 0
        killing.assert_sound(shiplap)


def test_a_file_of_a_snapshot_that_changed_is_found(built: tuple[Shiplap, Path, str]) -> None:
    shiplap, _, _ = built
    base = next(path for path in (shiplap.root / "snapshots").iterdir() if (path / "diff/bin/busybox").exists())
    victim = base / "diff/bin/busybox"
    data = bytearray(victim.read_bytes())
    data[1000] ^= 4
    victim.chmod(0o755)
    stamp = victim.stat()
    victim.write_bytes(data)
    os.utime(victim, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    done = shiplap.run("fsck", check=False)
    assert done.returncode == 1
    assert "/bin/busybox is not what it was [snapshot-changed]" in done.stdout
    assert "all repaired" in shiplap.run("fsck", "--repair").stdout
    killing.assert_sound(shiplap)


def test_what_leaves_the_store_is_looked_at(shiplap: Shiplap, tmp_path: Path, registry: str) -> None:
    """By save and by push too: the error names the blob, and the next build makes it again."""
    dockerfile = b"FROM busybox\nRUN head -c 300000 /dev/urandom > /x\n"
    name = f"{registry}/damaged/it"
    for leave in (["save", "-o", tmp_path / "it.tar", name], ["push", "-q", name]):
        shiplap.run("build", "-q", "--no-cache", "-t", name, "-", stdin=dockerfile)
        manifest = json.loads(shiplap.run("inspect", name).stdout)[0]["Manifest"]
        layer = manifest["layers"][-1]["digest"].partition(":")[2]
        path = shiplap.root / "blobs/sha256" / layer
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        done = shiplap.run(*leave, check=False)
        assert done.returncode == 1
        assert layer in done.stderr and "[blob-corrupt]" in done.stderr and "build or pull again" in done.stderr
        shiplap.run("build", "-q", "-t", name, "-", stdin=dockerfile)
        shiplap.run(*leave)
