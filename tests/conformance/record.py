"""Writes down what a BuildKit makes of each case: run it when BuildKit changes, and read the difference.

    python tests/conformance/record.py --addr ADDRESS --registry HOST:PORT [--buildctl PATH] [case ...]

The BuildKit at ADDRESS must take docker.io's images from the registry (http) at HOST:PORT, as ``buildkitd.toml`` says it:

    [registry."docker.io"]
      mirrors = ["HOST:PORT"]
    [registry."HOST:PORT"]
      http = true

The base image of the tests is pushed there as ``library/base``. A case is a directory with ``Dockerfile``, maybe
``context.txt`` (see context.py), ``options.json`` (target, build_args, labels, platform, secrets),
``Dockerfile.dockerignore``, and ``expected.json``, which is written here: ``error``, or ``config``, ``history`` and ``layers``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CASES = HERE / "cases"
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

import bases  # noqa: E402
import context  # noqa: E402
import shape  # noqa: E402


def push_base(registry: str, work: Path) -> dict[str, Any]:
    """Push the base image, and return its config."""
    bases.busybox_rootfs(work / "root")
    shiplap = [str(Path(sys.executable).with_name("shiplap"))]
    env = {"SHIPLAP_ROOT": str(work / "store"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(work)}
    settings = [f"ENV PATH={bases.PATH}", 'CMD ["sh"]']
    changes = [word for setting in settings for word in ("-c", setting)]
    for command in (
        ["import", *changes, str(work / "root"), f"{registry}/library/base"],
        ["push", "-q", f"{registry}/library/base"],
    ):
        subprocess.run([*shiplap, *command], env=env, check=True, capture_output=True)
    said = subprocess.run(
        [*shiplap, "inspect", f"{registry}/library/base"], env=env, check=True, capture_output=True
    ).stdout
    config: dict[str, Any] = json.loads(said)[0]["Image"]
    return config


def record(case: Path, buildctl: list[str], base: dict[str, Any]) -> None:
    """Build ``case`` with BuildKit and write its expected.json."""
    options = json.loads((case / "options.json").read_text()) if (case / "options.json").exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "context"
        directory.mkdir()
        listing = case / "context.txt"
        context.make_context(listing.read_text() if listing.exists() else "", directory)
        written = Path(scratch) / "dockerfile"
        written.mkdir()
        for file in case.glob("Dockerfile*"):
            shutil.copy(file, written)
        forget_context(buildctl, Path(scratch))
        command = [*buildctl, "build", "--frontend=dockerfile.v0", "--progress=plain", "--opt=no-cache="]
        command.append(f"--opt=build-arg:BUILDKIT_CACHE_MOUNT_NS={uuid.uuid4().hex}")  # caches outlive --no-cache
        command += [f"--local=context={directory}", f"--local=dockerfile={written}"]
        command += [f"--opt=build-arg:{key}={value}" for key, value in options.get("build_args", {}).items()]
        command += [f"--opt=label:{key}={value}" for key, value in options.get("labels", {}).items()]
        command += [f"--opt={key}={options[key]}" for key in ("target", "platform") if key in options]
        for key, value in options.get("secrets", {}).items():
            (Path(scratch) / key).write_text(value)
            command.append(f"--secret=id={key},src={Path(scratch) / key}")
        made = Path(scratch) / "image.tar"
        command.append(f"--output=type=oci,dest={made}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            # What a file lacks is said in other words when nothing may come from the cache: ask as people do.
            done = subprocess.run(
                [word for word in command if word != "--opt=no-cache="],
                capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
        if done.returncode:
            expected: dict[str, Any] = {"error": shape.error(done.stderr.rpartition("failed to solve: ")[2])}
        else:
            expected = read_archive(made, base)
    (case / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


def forget_context(buildctl: list[str], scratch: Path) -> None:
    """Build from an empty context: BuildKit sends only what differs from the last, and overlooks some differences."""
    empty = scratch / "empty"
    (empty / "context").mkdir(parents=True)
    (empty / "dockerfile").mkdir()
    (empty / "dockerfile/Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    command = [*buildctl, "build", "--frontend=dockerfile.v0", "--opt=no-cache="]
    command += [f"--local={name}={empty / name}" for name in ("context", "dockerfile")]
    subprocess.run(command, capture_output=True, timeout=300, check=True)


def read_archive(path: Path, base: dict[str, Any]) -> dict[str, Any]:
    """The shape of the only image in an OCI archive."""
    with tarfile.open(path) as archive:

        def read(digest: str) -> bytes:
            file = archive.extractfile(f"blobs/{digest.replace(':', '/')}" if ":" in digest else digest)
            assert file is not None
            return file.read()

        return shape.image(read, json.loads(read("index.json"))["manifests"][0]["digest"], base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addr", required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--buildctl", default="buildctl")
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        base = push_base(args.registry, Path(work))
    for case in sorted(CASES.iterdir()):
        if not args.cases or case.name in args.cases:
            record(case, [args.buildctl, "--addr", args.addr], base)
            print(case.name, flush=True)


if __name__ == "__main__":
    main()
