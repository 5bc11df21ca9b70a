"""Writes down what BuildKit makes of each case: run it when BuildKit changes, and read the difference.

    python tests/golden/record.py --buildctl PATH --addr ADDRESS [case ...]

Each case is a file ``cases/NAME.txt`` with a section ``Dockerfile``, maybe ``options.json`` (target, build_args, labels,
platform, no_cache_filter, contexts), maybe ``context/PATH`` files, and ``expected.json``, which is written here: ``error``,
or ``steps`` (from the graph that BuildKit would run) with ``config`` and ``history`` (of an image that it did make), and
``warnings`` (from its checks). The base images beside busybox are made from ``images/*.Dockerfile``; their configs, and
busybox's, stand in ``images.json`` and have to be those that the asked BuildKit sees under docker.io. Cases that only
BuildKit's graph is wanted of say ``"build": false``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

try:
    from txtar import read_txtar, write_txtar
except ImportError:
    from golden.txtar import read_txtar, write_txtar

CASES = Path(__file__).parent / "cases"
VOLATILE = re.compile(r"@sha256:[0-9a-f]{64}")


def run(command: list[str], directory: Path) -> tuple[int, str, str]:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def frontend_options(options: dict[str, Any]) -> list[str]:
    out = []
    for name, value in options.get("build_args", {}).items():
        out += ["--opt", f"build-arg:{name}={value}"]
    for name, value in options.get("labels", {}).items():
        out += ["--opt", f"label:{name}={value}"]
    for name, value in options.get("contexts", {}).items():
        if value == "local":
            out += ["--local", f"{name}=.", "--opt", f"context:{name}=local:{name}"]
        else:
            out += ["--opt", f"context:{name}={value}"]
    if options.get("target"):
        out += ["--opt", f"target={options['target']}"]
    if options.get("platform"):
        out += ["--opt", f"platform={options['platform']}"]
    return out


def error_of(stderr: str) -> str:
    text = stderr.rpartition("error: failed to solve: ")[2].strip()
    return VOLATILE.sub("", text)


class Graph:
    """BuildKit's graph as the test sees ours."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.ops = answer["def"]
        self.meta = answer.get("metadata", {})

    def name(self, digest: str) -> str:
        return self.meta.get(digest, {}).get("description", {}).get("llb.customname", "")

    def steps(self) -> list[list[Any]]:
        found = []
        for digest, op in self.ops.items():
            name = VOLATILE.sub("", self.name(digest))
            if "exec" in op:
                found.append([name, self.exec(op)])
            elif "file" in op and "preparing inline document" not in name and "cache mount permissions" not in name:
                found.append([name, {"files": [self.action(op, action) for action in op["file"]["actions"]]}])
            elif "merge" in op:
                found.append([name, {"merge": len(op["merge"]["inputs"])}])
            elif op.get("source", {}).get("identifier", "").startswith("docker-image://"):
                found.append([name.rpartition("] ")[2], {"image": VOLATILE.sub("", op["source"]["identifier"][15:])}])
        return sorted(found, key=lambda step: (step[0], json.dumps(step[1])))

    def exec(self, op: dict[str, Any]) -> dict[str, Any]:
        made = op["exec"]
        meta = made["meta"]
        shape: dict[str, Any] = {"args": meta["args"], "env": meta.get("env", []), "cwd": meta["cwd"]}
        if meta.get("user"):
            shape["user"] = meta["user"]
        if made.get("network"):
            shape["network"] = {"HOST": "host", "NONE": "none"}.get(str(made["network"]), str(made["network"]))
        if made.get("security"):
            shape["security"] = str(made["security"]).lower()
        mounts = [self.mount(mount) for mount in made["mounts"] if mount["dest"] != "/"]
        for secret in made.get("secretenv", []):
            mounts.append({"kind": "secret", "env": secret.get("name", ""), "id": secret["ID"]})
        if mounts:
            shape["mounts"] = sorted(mounts, key=lambda mount: json.dumps(mount, sort_keys=True))
        return shape

    def mount(self, mount: dict[str, Any]) -> dict[str, Any]:
        kind = str(mount.get("mountType", "bind")).lower()
        shape: dict[str, Any] = {"kind": kind, "target": mount["dest"]}
        if mount.get("selector") and mount["selector"] != "/cache":
            shape["source"] = mount["selector"]
        if mount.get("readonly"):
            shape["readonly"] = True
        if kind == "cache":
            shape["id"] = mount["cacheOpt"]["ID"]
            shape["sharing"] = str(mount["cacheOpt"].get("sharing", "SHARED")).lower()
        if kind in ("secret", "ssh"):
            options = mount[f"{'secret' if kind == 'secret' else 'SSH'}Opt"] if kind == "secret" else mount["SSHOpt"]
            shape["id"] = options.get("ID", "") or "default"
            shape["mode"] = options.get("mode", 0)
            shape["required"] = not options.get("optional", False)
        return shape

    def action(self, op: dict[str, Any], action: dict[str, Any]) -> dict[str, Any]:
        if "mkdir" in action:
            return {"mkdir": action["mkdir"]["path"]}
        copy = action["copy"]
        source = copy["src"]
        if copy.get("includePatterns"):
            source = f"{source.rstrip('/')}/./{copy['includePatterns'][0]}"
        index = int(action.get("secondaryInput", 0))
        if 0 <= index < len(op["inputs"]) and "inline document" in self.name(op["inputs"][index]["digest"]):
            source = "<<" + source.strip("/")
        shape = {"copy": source, "dest": copy["dest"]}
        if copy.get("excludePatterns"):
            shape["exclude"] = copy["excludePatterns"]
        if copy.get("attemptUnpackDockerCompatibility"):
            shape["unpack"] = True
        return shape


def record(case: Path, buildctl: str, address: str) -> None:
    sections = read_txtar(case.read_text())
    options = json.loads(sections.get("options.json", "{}"))
    expected: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "context"
        directory.mkdir()
        (directory / "Dockerfile").write_bytes(text_bytes(sections["Dockerfile"]))
        for name, text in sections.items():
            if name.startswith("context/"):
                path = directory / name[8:]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        command = [buildctl, "--addr", address, "build", "--frontend", "dockerfile.v0"]
        command += ["--local", "context=.", "--local", "dockerfile=.", *frontend_options(options)]
        code, out, err = run([*command, "--opt", "requestid=frontend.convertllb"], directory)
        if code:
            expected["error"] = error_of(err)
        else:
            # The sub-request knows nothing of the platform, so that its graph is no witness where one is asked for.
            graph = None if options.get("platform") else Graph(json.loads(out[out.index("{") :]))
            expected["steps"] = graph.steps() if graph else None
            code, out, err = run([*command, "--opt", "requestid=frontend.lint"], directory)
            warnings = [
                [rule, int(line), detail]
                for rule, detail, line in re.findall(
                    r"^WARNING: (\w+)[^\n]*\n(.*?)\nDockerfile:(\d+)$", out, re.M | re.S
                )
            ]
            if warnings:
                expected["warnings"] = [list(one) for one in sorted(set(map(tuple, warnings)))]
            if options.get("build", True):
                image = Path(scratch) / "image.tar"
                code, out, err = run([*command, "--output", f"type=oci,dest={image}"], directory)
                if code:
                    expected["error"] = error_of(err)
                else:
                    expected.update(config_of(image))
    sections["expected.json"] = json.dumps(expected, indent=1, ensure_ascii=False)
    case.write_text(write_txtar(sections))


def text_bytes(text: str) -> bytes:
    """A section as bytes; ``<CR>`` and ``<BOM>`` stand for what editors would hide."""
    return text.replace("<CR>", "\r").replace("<BOM>", "\ufeff").encode()


def config_of(image: Path) -> dict[str, Any]:
    with tarfile.open(image) as archive:

        def blob(digest: str) -> dict[str, Any]:
            file = archive.extractfile(f"blobs/sha256/{digest[7:]}")
            assert file is not None
            return json.load(file)

        index = archive.extractfile("index.json")
        assert index is not None
        manifest = blob(json.load(index)["manifests"][0]["digest"])
        config = blob(manifest["config"]["digest"])
    history = [
        [entry.get("created_by", ""), "empty" if entry.get("empty_layer") else "layer", entry.get("comment", "")]
        for entry in config.get("history") or []
    ]
    shown = {
        name: config[name]
        for name in ("architecture", "os", "variant", "author", "config")
        if config.get(name) is not None
    }
    return {"config": shown, "history": history, "layers": len(manifest.get("layers") or [])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--buildctl", required=True)
    parser.add_argument("--addr", required=True)
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    for case in sorted(CASES.glob("*.txt")):
        if not args.cases or case.stem in args.cases:
            record(case, args.buildctl, args.addr)
            print(case.stem)


if __name__ == "__main__":
    main()
