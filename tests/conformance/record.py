"""Writes down what a BuildKit makes of each case: run it when BuildKit changes, and read the difference.

    python tests/conformance/record.py --addr ADDRESS --registry HOST:PORT [--buildctl PATH] [case ...]

The BuildKit at ADDRESS must take docker.io's images from the registry (http) at HOST:PORT, as ``buildkitd.toml`` says it:

    [registry."docker.io"]
      mirrors = ["HOST:PORT"]
    [registry."HOST:PORT"]
      http = true

The base image of the tests is pushed there as ``library/base``, and those of ``images/*.Dockerfile`` under their names. A
case is a directory with ``Dockerfile``, maybe ``Dockerfile.dockerignore``, ``context.txt`` and ``context.NAME.txt`` for
named contexts (see context.py), ``options.json`` (see ``case.py``), and ``expected.json``, which is written here: ``error``,
or ``config``, ``history`` and ``layers``. What a case fetches from ``http://web/`` is served by ``site.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples"), str(HERE.parent)]

import bases  # noqa: E402
import shape  # noqa: E402
from case import CASES, IMAGES, Case  # noqa: E402
from site_of_cases import Site, served  # noqa: E402


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


def push_image(file: Path, registry: str, buildctl: list[str]) -> None:
    """Build an image that cases begin with, and push it."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "Dockerfile").write_bytes(file.read_bytes())
        output = f"--output=type=image,name={registry}/library/{file.stem},push=true,registry.insecure=true"
        command = [*buildctl, "build", "--frontend=dockerfile.v0", output]
        command += [f"--local={name}={scratch}" for name in ("context", "dockerfile")]
        subprocess.run(command, capture_output=True, timeout=300, check=True)


def record(case: Case, buildctl: list[str], base: dict[str, Any], site: Site) -> None:
    """Build ``case`` with BuildKit and write its expected.json."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        case.prepare(work, site)
        forget_context(buildctl, work)
        made = work / "image.tar"
        command = [*buildctl, "build", "--frontend=dockerfile.v0", "--progress=plain"]
        command += [*arguments(case, work, site), f"--output=type=oci,dest={made}"]
        command.append(f"--opt=build-arg:BUILDKIT_CACHE_MOUNT_NS={uuid.uuid4().hex}")  # caches outlive no-cache
        environment = {**os.environ, **case.options.get("secret_env", {})}
        with case.agent(work):
            fresh = f"--opt=no-cache={','.join(case.options.get('no_cache_filter', ()))}"
            done = subprocess.run(
                [*command, fresh], capture_output=True, text=True, timeout=300, check=False, env=environment
            )
            if done.returncode:
                # What a file lacks is said in other words when nothing may come from the cache: ask as people do.
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=300, check=False, env=environment
                )
        if done.returncode:
            expected: dict[str, Any] = {"error": shape.error(done.stderr.rpartition("failed to solve: ")[2])}
        else:
            expected = read_archive(made, base)
    (case.path / "expected.json").write_text(json.dumps(site.back(expected), indent=1, ensure_ascii=False) + "\n")


def arguments(case: Case, work: Path, site: Site) -> list[str]:
    """What a case asks for, as buildctl and the Dockerfile frontend call it."""
    options = case.options
    opts = {f"build-arg:{key}": value for key, value in options.get("build_args", {}).items()}
    opts |= {f"label:{key}": value for key, value in options.get("labels", {}).items()}
    opts |= {key: options[key] for key in ("target", "platform") if key in options}
    opts |= {
        name: ",".join(options[key])
        for key, name in (("add_hosts", "add-hosts"), ("ulimits", "ulimit"))
        if key in options
    }
    if "shm_size" in options:
        opts["shm-size"] = str(options["shm_size"])
    if "network" in options:
        opts["force-network-mode"] = options["network"]
    if "file" in options:
        opts["filename"] = options["file"]
    local = {"context": work / "context", "dockerfile": work / "dockerfile"}
    if "stdin" in options:
        data = (work / "context" / options["stdin"]).read_bytes()
        if case.path.joinpath("Dockerfile").exists():
            raise ValueError(f"{case.path.name}: a Dockerfile beside a context on standard input")
        if options["stdin"] == "Dockerfile":
            # The client puts a Dockerfile into a directory, and sends an empty one for the context.
            (work / "dockerfile/Dockerfile").write_bytes(data)
            local["context"] = work / "nothing"
            local["context"].mkdir()
        else:
            # The client serves an archive to BuildKit as a web page.
            opts["context"] = site.page("/stdin", data)
            local = {}
    elif "context" in options:
        opts["context"] = site.there(options["context"])
        local = {"dockerfile": local["dockerfile"]} if (work / "dockerfile/Dockerfile").exists() else {}
        if local:
            opts["dockerfilekey"] = "dockerfile"
    for name, value in options.get("contexts", {}).items():
        if value == "directory":
            key = name.partition("::")[0]
            local[key] = work / "contexts" / key
            value = f"local:{key}"
        opts[f"context:{name}"] = site.there(value)
    command = [f"--opt={key}={value}" for key, value in opts.items()]
    command += [f"--local={key}={path}" for key, path in local.items()]
    secrets = [case.secret(key, site) for key in options.get("secrets", {})]
    command += [f"--secret=id={key},src={work / 'secrets' / key}" for key in secrets]
    command += [f"--secret=id={key},env={key}" for key in options.get("secret_env", {})]
    command += [f"--ssh={name}={work / 'agent'}" for name in options.get("ssh", ())]
    command += [f"--allow={what}" for what in options.get("allow", ())]
    return command


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
    buildctl = [args.buildctl, "--addr", args.addr]
    with tempfile.TemporaryDirectory() as work:
        base = push_base(args.registry, Path(work))
    for file in sorted(IMAGES.glob("*.Dockerfile")):
        push_image(file, args.registry, buildctl)
    with served() as site:
        for case in CASES:
            if not args.cases or case.name in args.cases:
                record(case, buildctl, base, site)
                print(case.name, flush=True)


if __name__ == "__main__":
    main()
