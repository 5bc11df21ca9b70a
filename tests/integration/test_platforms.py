"""Several platforms in one build: what runs once, what each output holds, what a registry is given, what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.kit import Shiplap, program
from tests.registries import Served

DOCKERFILE = """\
FROM --platform=$BUILDPLATFORM busybox AS build
RUN echo once >/once
ARG TARGETPLATFORM
RUN echo $TARGETPLATFORM >/out
FROM scratch
COPY --from=build /out /once /
"""
BOTH = "--platform=linux/amd64,linux/arm64"


def context_of(directory: Path, dockerfile: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "Dockerfile").write_text(dockerfile)
    return directory


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return context_of(tmp_path / "c", DOCKERFILE)


def test_what_is_the_same_runs_once(shiplap: Shiplap, context: Path) -> None:
    told = shiplap.run("build", BOTH, "--platform", "arm/v6", "-t", "a", context).stderr
    assert told.count("RUN echo once") == 1
    assert told.count("COPY --from=build") == 3
    for platform, text in (("linux/amd64", "linux/amd64"), ("linux/arm64", "linux/amd64->arm64")):
        assert f"[{text} build 3/3] RUN echo {platform} >/out" in told
    assert shiplap.run("build", "-q", BOTH, context).stdout.startswith("sha256:")


def test_the_index_in_a_registry(shiplap: Shiplap, context: Path, real: Served) -> None:
    name = f"{real.host}/several/app:1"
    real.known_to(shiplap)
    built = shiplap.run("build", "-q", BOTH, "-t", name, "--push", context).stdout.strip()
    index = json.loads(real.skopeo("inspect", "--raw", f"docker://{name}"))
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]
    for architecture in ("amd64", "arm64"):
        told = real.skopeo("--override-arch", architecture, "inspect", "--config", f"docker://{name}")
        assert json.loads(told)["architecture"] == architecture
    # What was pushed is a base for either.
    child = context_of(context.parent / "child", f"FROM {name}\n")
    out = context.parent / "out"
    shiplap.run("build", "-q", "--pull", BOTH, "-o", out, child)
    assert (out / "linux_arm64/out").read_text() == "linux/arm64\n"
    assert built.startswith("sha256:")


def test_docker_media_types(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "layout"
    shiplap.run("build", "-q", BOTH, "-o", f"type=oci,dest={out},tar=false,oci-mediatypes=false", context)
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    assert entry["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    index = json.loads((out / "blobs" / entry["digest"].replace(":", "/")).read_text())
    assert {item["mediaType"] for item in index["manifests"]} == {
        "application/vnd.docker.distribution.manifest.v2+json"
    }


def test_folders_of_local_and_tar(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out, tar = tmp_path / "out", tmp_path / "out.tar"
    shiplap.run("build", "-q", BOTH, "-o", out, "-o", f"type=tar,dest={tar}", context)
    assert {path.name for path in out.iterdir()} == {"linux_amd64", "linux_arm64"}
    assert (out / "linux_arm64/out").read_text() == "linux/arm64\n"
    with tarfile.open(tar) as archive:
        assert archive.getnames() == [
            f"linux_{arch}{rest}" for arch in ("amd64", "arm64") for rest in ("", "/once", "/out")
        ]
    one = tmp_path / "one"
    shiplap.run("build", "-q", "-o", f"type=local,dest={one},platform-split=true", context)
    assert [path.name for path in one.iterdir()] == ["linux_amd64"]
    told = shiplap.run("build", BOTH, "-o", f"type=local,dest={tmp_path}/no,platform-split=false", context, check=False)
    assert "cannot overwrite once from linux/amd64 with linux/arm64 when split option is disabled" in told.stderr
    assert "[platforms-clash]" in told.stderr
    assert not (tmp_path / "no").exists()
    same = context_of(tmp_path / "same", "FROM scratch AS a\nARG TARGETARCH\nCOPY $TARGETARCH /d/$TARGETARCH\n")
    for name in ("amd64", "arm64"):
        (same / name).write_text(name)
    shiplap.run("build", "-q", BOTH, "-o", f"type=local,dest={tmp_path}/both,platform-split=false", same)
    assert {path.name for path in (tmp_path / "both/d").iterdir()} == {"amd64", "arm64"}


def test_attestations_beside_files(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shiplap.run("build", "-q", BOTH, "--provenance=mode=min", "--sbom=true", "-o", out, context)
    assert {path.name for path in (out / "linux_arm64").iterdir()} == {
        "out",
        "once",
        "provenance.json",
        "sbom.spdx.json",
    }
    told = json.loads((out / "linux_arm64/provenance.json").read_text())
    assert [subject["name"] for subject in told["subject"]] == ["once", "out"]
    one = context_of(tmp_path / "one", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /$TARGETARCH\n")
    for name in ("amd64", "arm64"):
        (one / name).write_text(name)
    flags = ["--attest=type=provenance,filename=p.json", f"type=local,dest={tmp_path}/flat,platform-split=false"]
    shiplap.run("build", "-q", BOTH, flags[0], "-o", f"{flags[1]},attestation-prefix=x-", one)
    names = {path.name for path in (tmp_path / "flat").iterdir()}
    assert names == {"amd64", "arm64", "x-p.linux_amd64.json", "x-p.linux_arm64.json"}


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["-o", "type=docker,dest=d.tar"], 2, "docker exporter does not support exporting manifest lists"),
        (["--platform", "linux/s390x/v1/x"], 2, "invalid platform"),
        (["--annotation", "manifest[linux/s390x]:a=b"], 2, "no platform linux/s390x found in source"),
    ],
)
def test_refused_before_anything_is_built(
    shiplap: Shiplap, context: Path, flags: list[str], status: int, message: str
) -> None:
    told = shiplap.run("build", BOTH, *flags, context, check=False)
    assert told.returncode == status
    assert message in told.stderr
    assert "RUN" not in told.stderr


def test_a_platform_that_the_base_lacks(shiplap: Shiplap, context: Path, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/several/two:1"
    shiplap.run("build", "-q", BOTH, "-t", name, "--push", context)
    child = context_of(tmp_path / "child", f"FROM {name}\n")
    told = shiplap.run("build", "--pull", "--platform=linux/amd64,linux/s390x", child, check=False)
    assert told.returncode == 1
    assert "linux/s390x" in told.stderr
    assert "linux/amd64, linux/arm64" in told.stderr


def test_a_repeated_platform_is_kept_twice(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    out = tmp_path / "layout"
    told = shiplap.run("build", "--platform=linux/arm64,arm64", "-o", f"type=oci,dest={out},tar=false", context).stderr
    assert 'Duplicate platform result requested "linux/arm64"' in told
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    index = json.loads((out / "blobs" / entry["digest"].replace(":", "/")).read_text())
    assert len(index["manifests"]) == 2


def test_the_library_tells_of_each(
    shiplap: Shiplap, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shiplap as library

    for name, value in shiplap.env.items():
        monkeypatch.setenv(name, value)
    result = library.build(context, platform=("linux/amd64", "linux/arm64"), root=tmp_path / "root", describe="max")
    assert result.platform == "linux/amd64,linux/arm64"
    assert [image.platform for image in result.images] == ["linux/amd64", "linux/arm64"]
    assert result.media_type == "application/vnd.oci.image.index.v1+json"
    assert result.config_digest == ""
    assert set(result.provenance) == {"linux/amd64", "linux/arm64"}


def test_attestations_as_referrers(shiplap: Shiplap, context: Path, real: Served, tmp_path: Path) -> None:
    """Neither has the referrers API: they are found by the tag (distribution-spec 1.1, "Unavailable ...")."""
    name = f"{real.host}/several/referred:1"
    real.known_to(shiplap)
    flags = ["--provenance=mode=min", "--sbom=true", "-t", name, "-o", "type=registry,referrers=true"]
    metadata = tmp_path / "m.json"
    shiplap.run("build", "-q", *flags, "--metadata-file", metadata, context)
    told = json.loads(metadata.read_text())["containerimage.descriptor"]
    assert told["mediaType"] == "application/vnd.oci.image.manifest.v1+json"

    def raw(reference: str) -> dict[str, Any]:
        return dict(json.loads(real.skopeo("inspect", "--raw", f"docker://{reference}")))

    repository = name.rpartition(":")[0]
    assert "layers" in raw(name)
    (referrer,) = raw(f"{repository}:{told['digest'].replace(':', '-')}")["manifests"]
    assert referrer["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
    manifest = raw(f"{repository}@{referrer['digest']}")
    assert manifest["subject"]["digest"] == told["digest"]
    assert {layer["annotations"]["in-toto.io/predicate-type"] for layer in manifest["layers"]} == {
        "https://slsa.dev/provenance/v1",
        "https://spdx.dev/Document",
    }
    refused = shiplap.run(
        "build", "--sbom=true", "-o", f"type=oci,dest={tmp_path}/o,referrers=true", context, check=False
    )
    assert refused.returncode == 2
    assert "referrers=true is for images that are pushed" in refused.stderr


def test_into_docker(shiplap: Shiplap, context: Path, dockerd: str, tmp_path: Path) -> None:
    shiplap.run("build", "-q", "-t", "into-docker:1", "-o", "type=docker", context, DOCKER_HOST=dockerd)
    listed = subprocess.run([program("docker"), "-H", dockerd, "images", "-q", "into-docker"], capture_output=True)
    assert listed.stdout.strip()
    shiplap.run("build", "-q", BOTH, "-t", "loaded:1", "--load", context, DOCKER_HOST=dockerd)
    listed = subprocess.run([program("docker"), "-H", dockerd, "images", "-q", "loaded"], capture_output=True)
    assert listed.stdout.strip(), "of several platforms this machine's"
    assert "loaded:1" in shiplap.run("images").stdout
    alone = shiplap.run("build", "--load", "-t", "alone:1", context, XDG_RUNTIME_DIR=str(tmp_path)).stderr
    assert "ERROR" not in alone
    refused = shiplap.run("build", "--load", context, check=False, DOCKER_HOST="unix:///nowhere.sock")
    assert "[no-engine]" in refused.stderr, "who names an engine wants it"
    none = shiplap.run("build", "-o", "type=docker", context, check=False, DOCKER_HOST="unix:///nowhere.sock")
    assert "[no-engine]" in none.stderr


def test_others_read_an_index_with_attestations(
    shiplap: Shiplap, context: Path, tmp_path: Path, containerd: list[str]
) -> None:
    archive, layout = tmp_path / "a.tar", tmp_path / "layout"
    outputs = ["-o", f"type=oci,dest={archive}", "-o", f"type=oci,dest={layout},tar=false"]
    shiplap.run("build", "-q", BOTH, "--provenance=true", "--sbom=true", "-t", "it:1", *outputs, context)

    def run(*command: str | Path) -> str:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    run(program("skopeo"), "copy", "--all", f"oci-archive:{archive}", f"dir:{tmp_path}/dir")
    assert len(json.loads((tmp_path / "dir/manifest.json").read_text())["manifests"]) == 4
    for architecture in ("amd64", "arm64"):
        inspected = run(program("skopeo"), "--override-arch", architecture, "inspect", f"oci:{layout}:1")
        assert json.loads(inspected)["Architecture"] == architecture
        target = f"oci:{tmp_path}/{architecture}:1"
        run(program("skopeo"), "--override-arch", architecture, "copy", f"oci:{layout}:1", target)
        run(program("umoci"), "unpack", "--image", f"{tmp_path}/{architecture}:1", tmp_path / f"bundle-{architecture}")
        assert (tmp_path / f"bundle-{architecture}/rootfs/out").read_text() == f"linux/{architecture}\n"
    run(*containerd, "images", "import", "--all-platforms", archive)
    listed = run(*containerd, "images", "ls")
    assert "linux/amd64,linux/arm64" in listed
    storage = ["--root", tmp_path / "root", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    name = run(program("buildah"), *storage, "from", f"oci-archive:{archive}").strip()
    mounted = run(program("buildah"), *storage, "mount", name).strip()
    assert Path(mounted, "out").read_text() == "linux/amd64\n"
    run(program("buildah"), *storage, "rm", name)


@pytest.mark.parametrize(
    ("dockerfile", "told"),
    [
        ("FROM busybox\nARG TARGETARCH\nRUN test $TARGETARCH = amd64\n", "linux/arm64"),
        (DOCKERFILE + "FROM build\nRUN grep amd64 /out\n", "linux/amd64->arm64"),
        ("FROM scratch AS x-amd64\nCOPY . /\nFROM x-$TARGETARCH\n", "linux/arm64"),
        ("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n", "linux/amd64"),
    ],
)
def test_a_failure_names_the_platform(shiplap: Shiplap, tmp_path: Path, dockerfile: str, told: str) -> None:
    context = context_of(tmp_path / "c", dockerfile)
    (context / "arm64").touch()
    failed = shiplap.run("build", BOTH, "-o", "type=cacheonly", context, check=False)
    assert failed.returncode == 1
    assert re.search(rf"^  --> Dockerfile:\d+, for {told}$", failed.stderr, re.MULTILINE), failed.stderr
    alone = shiplap.run("build", "--platform", "linux/arm64", "-o", "type=cacheonly", context, check=False)
    assert ", for " not in alone.stderr


def test_an_attestation_takes_the_place_of_a_file_of_its_name(shiplap: Shiplap, tmp_path: Path) -> None:
    """As in BuildKit's tar; a link that lies there is not followed."""
    context = context_of(tmp_path / "c", "FROM scratch\nCOPY d /\nCOPY d/provenance.json /below/\n")
    (context / "d").mkdir()
    (context / "d/provenance.json").write_text("mine")
    (context / "d/sbom").symlink_to(tmp_path / "outside")
    out = tmp_path / "out"
    shiplap.run(
        "build", "--provenance=true", "--attest=type=sbom,filename=sbom", "-o", f"type=tar,dest={out}.tar",
        "-o", f"type=local,dest={out}", context,
    )  # fmt: skip
    with tarfile.open(f"{out}.tar") as archive:
        assert sorted(archive.getnames()) == ["below", "below/provenance.json", "provenance.json", "sbom"]
        assert archive.getmember("sbom").isfile()
        assert b"predicateType" in (archive.extractfile("provenance.json") or pytest.fail()).read()
    assert b"predicateType" in (out / "provenance.json").read_bytes()
    assert b"predicateType" in (out / "sbom").read_bytes()
    assert (out / "below/provenance.json").read_text() == "mine"
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["..", ".", "a/.."])
def test_attestations_have_names_of_files(shiplap: Shiplap, context: Path, tmp_path: Path, name: str) -> None:
    flag = f"--attest=type=provenance,filename={name}"
    failed = shiplap.run("build", flag, "-o", f"type=local,dest={tmp_path / 'o'}", context, check=False)
    assert failed.returncode == 2
    assert "invalid-attestation" in failed.stderr
