"""Record what ``buildx imagetools`` answers and pushes: ``record_imagetools.py DOCKER-BUILDX``.

Images come from a registry in memory (``imagetools_images.py``); ``{host}`` stands for it, ``{AMD64}`` for a digest.
What is recorded of a push is the manifest under the tag and the digests of all that its repository then has.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.golden.imagetools_images import Images

from shiplap.registry.memory import MemoryRegistry

HERE = Path(__file__).resolve().parent / "imagetools"
NAMES = ("a:plain", "a:attested", "a:single", "a:noted", "d:list", "d:single")
FORMATS = (
    *("{{json .Manifest}}", "{{json .Image}}", "{{json .}}", "{{.Name}}", "{{.Manifest.Digest}}", "{{.Manifest}}"),
    *("{{json .Provenance}}", "{{json .SBOM}}", "{{.Manifest.MediaType}} {{.Manifest.Size}}"),
    "{{range .Manifest.Manifests}}{{.Digest}} {{if .Platform}}{{.Platform.OS}}/{{.Platform.Architecture}}{{end}}\n{{end}}",
    '{{range $i, $m := .Manifest.Manifests}}{{if $i}}, {{end}}{{printf "%d=%s" $i $m.Platform.Architecture}}{{end}}',
    '{{with index .Image "linux/amd64"}}{{.Created}} {{.Author}} {{json .Config.Env}} {{end}}',
    '{{range $p, $i := .Image}}{{$p}}: {{len $i.RootFS.DiffIDs}} {{index $i.Config.Labels "z"}}\n{{end}}',
    "{{.Image.Config.Env}} {{.Image.Config.Cmd}} {{json .Image.History}} {{.Image.Architecture}}",
    "{{json .Provenance.SLSA}}{{json .SBOM.SPDX}}",
    '{{- /* nothing */ -}} x {{- " y " -}} {{eq .Manifest.Size 1}} {{ne 1 2}} {{and true ""}}|{{or 0 `r`}} {{not 1}}',
    '{{print 1 2 "a" 3}} {{$d := .Manifest.Digest}}{{if lt 1 2 | not}}no{{else if ge 2 2}}{{$d}}{{end}} {{println 1}}',
    "{{range .Manifest.Annotations}}{{.}}{{else}}none{{end}} {{with .Nothing}}{{end}}",
    '{{(index .Image "linux/arm64").Config.Labels.a}}{{range .Manifest.Manifests}}{{end}}',
    "{{.Manifest.Digest",
    "{{if true}}",
    "{{frobnicate 1}}",
)
CREATIONS: dict[str, list[str]] = {
    "of-a-single": ["{host}/a:single"],
    "of-a-single-not-preferring": ["--prefer-index=false", "{host}/a:single"],
    "of-an-index": ["{host}/a:plain"],
    "of-an-attested-index": ["{host}/a:attested"],
    "of-dockers-list": ["{host}/d:list"],
    "of-dockers-single": ["{host}/d:single"],
    "of-two-repositories": ["{host}/a:single", "{host}/b:riscv"],
    "of-both-kinds": ["{host}/d:list", "{host}/b:riscv"],
    "of-digests-in-one": ["-t", "{host}/a:new", "{AMD64}", "{ARM64}"],
    "of-a-digest-and-a-name": ["{host}/a:single", "{ARM64}"],
    "of-the-same-twice": ["{host}/a:attested", "{host}/a:plain"],
    "of-a-descriptor": [
        "-t",
        "{host}/a:new",
        '{"digest": "{AMD64}", "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}}',
    ],
    "of-a-descriptor-file": ["-t", "{host}/a:new", "-f", "{file}", "{ARM64}"],
    "with-annotations": [
        *("--annotation", "index:a=b & c", "--annotation", "manifest-descriptor:who=me"),
        *("--annotation", "manifest-descriptor[linux/arm64/v8],index:where=there", "{host}/a:plain"),
    ],
    "with-annotations-on-one": ["--annotation", "index:x=y", "{host}/a:single"],
    "with-annotations-on-docker": ["--annotation", "index:x=y", "{host}/d:list"],
    "with-a-platform": ["--platform", "linux/amd64", "{host}/a:attested"],
    "with-two-platforms": ["-p", "linux/arm64,linux/riscv64", "{host}/a:plain", "{host}/b:riscv"],
    "with-all-platforms": ["--platform", "linux/amd64,linux/arm64/v8", "{host}/a:plain"],
    "with-no-such-platform": ["--platform", "linux/ppc64le", "{host}/a:plain"],
    "with-another-platform-alone": ["--prefer-index=false", "--platform", "linux/ppc64le", "{host}/a:single"],
    "append": ["--append", "-t", "{host}/a:plain", "{host}/b:riscv"],
    "no-source": [],
    "many-repositories": ["-t", "{host}/c:new", "{host}/a:single", "{ARM64}"],
    "no-repository": ["{AMD64}"],
    "bad-annotation": ["--annotation", "nothing", "{host}/a:plain"],
    "bad-annotation-type": ["--annotation", "layer:a=b", "{host}/a:plain"],
    "annotation-of-a-manifest": ["--annotation", "manifest:a=b", "{host}/a:plain"],
    "annotation-without-a-type": ["--annotation", "a=b", "{host}/a:plain"],
    "bad-source": ["{host}/A:plain"],
    "manifest-for-a-descriptor": ["-t", "{host}/a:new", '{"schemaVersion": 2, "digest": "{AMD64}"}'],
    "wrong-size": ["-t", "{host}/a:new", '{"digest": "{AMD64}", "size": 3}'],
}
PUSHES: dict[str, list[str]] = {
    "one": ["-t", "{host}/new:1", "{host}/a:attested"],
    "to-several": [
        "-t",
        "{host}/new:1",
        "-t",
        "{host}/new:2",
        "-t",
        "{host}/other:1",
        "{host}/a:single",
        "{host}/b:riscv",
    ],
    "a-copy": ["--prefer-index=false", "-t", "{host}/new:1", "{host}/a:single"],
    "docker": ["-t", "{host}/new:1", "{host}/d:list"],
    "a-platform": ["--platform", "linux/arm64", "-t", "{host}/new:1", "{host}/a:attested"],
}


def filled(text: str, names: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: names.get(match[1], match[0]), text)


def emptied(text: str, names: dict[str, str]) -> str:
    """``text`` without what differs between two runs."""
    return text.replace(names["host"], "{host}").replace(names["file"], "{file}")


def names_of(registry: MemoryRegistry, directory: Path) -> dict[str, str]:
    """What the placeholders stand for, once the registry is filled."""
    names = {"host": registry.host, "file": str(directory / "descriptor.json"), **Images(registry).fill()}
    Path(names["file"]).write_text(
        filled('{"digest": "{AMD64}", "size": {AMD64_SIZE}, "annotations": {"from": "file"}}', names)
    )
    return names


def pushed(registry: MemoryRegistry) -> dict[str, object]:
    """What is in the repositories that were not there at first."""
    found: dict[str, object] = {}
    for path, repository in sorted(registry.repositories.items()):
        if path in ("a", "b", "d"):
            continue
        found[path] = {
            "tags": {tag: repository.manifests[digest][1].decode() for tag, digest in sorted(repository.tags.items())},
            "manifests": sorted(repository.manifests),
            "blobs": sorted(repository.blobs),
        }
    return found


def main(buildx: str) -> None:
    def ask(arguments: list[str], names: dict[str, str]) -> dict[str, object]:
        command = [buildx, "imagetools", *(filled(word, names) for word in arguments)]
        told = subprocess.run(command, capture_output=True, text=True)
        error = told.stderr.strip().splitlines()[-1] if told.returncode else ""
        return {"exit": told.returncode, "stdout": emptied(told.stdout, names), "error": emptied(error, names)}

    with tempfile.TemporaryDirectory() as directory, MemoryRegistry() as registry:
        names = names_of(registry, Path(directory))
        inspected = {
            f"{name} {form}": ask(["inspect", *(["--format", form] if form else []), f"{{host}}/{name}"], names)
            for name in NAMES
            for form in ("", *(FORMATS if name != "a:noted" else ()))
        }
        raws = {f"{name} raw": ask(["inspect", "--raw", f"{{host}}/{name}"], names) for name in NAMES}
        created = {key: ask(["create", "--dry-run", *words], names) for key, words in CREATIONS.items()}
        write("inspect.json", inspected | raws)
        write("create.json", created)
    pushes = {}
    for key, words in PUSHES.items():
        with tempfile.TemporaryDirectory() as directory, MemoryRegistry() as registry:
            names = names_of(registry, Path(directory))
            metadata = Path(directory) / "metadata.json"
            answer = ask(["create", "--progress=plain", "--metadata-file", str(metadata), *words], names)
            pushes[key] = {
                "exit": answer["exit"],
                "metadata": json.loads(emptied(metadata.read_text(), names)),
                "pushed": pushed(registry),
            }
    write("push.json", pushes)


def write(name: str, answers: object) -> None:
    HERE.mkdir(exist_ok=True)
    (HERE / name).write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
