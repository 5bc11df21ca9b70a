"""The commit of a build context: told where it is wanted, and git is asked for nothing otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.kit import Shiplap

NAMES = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(directory: Path, *words: str) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "GIT_CONFIG_SYSTEM": "/dev/null", **NAMES}
    return subprocess.run(
        ["git", *words], cwd=directory, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "Dockerfile").write_text("FROM scratch\nCOPY f /\n")
    (path / "f").write_text("f")
    git(path, "init", "-q")
    git(path, "add", ".")
    git(path, "commit", "-qm", "one")
    return path


@pytest.fixture
def watched(shiplap: Shiplap, tmp_path: Path) -> Path:
    """A list of how git was called from now on."""
    calls = tmp_path / "calls"
    calls.touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(f'#!/bin/sh\necho "$@" >>{calls}\nPATH={os.environ["PATH"]} exec git "$@"\n')
    (programs / "git").chmod(0o755)
    shiplap.env["PATH"] = f"{programs}:{os.environ['PATH']}"
    return calls


def revision(shiplap: Shiplap, context: Path, metadata: Path, *flags: str) -> tuple[str, bool]:
    """What the metadata file tells, and whether it was answered from a record."""
    told = shiplap.run(
        "build", "--progress=plain", "--metadata-file", metadata, *flags, context, PYTHONPROFILEIMPORTTIME="1"
    )
    args = found(metadata)["invocation"]["parameters"].get("root", {}).get("request", {}).get("args", {})
    return args.get("vcs:revision", ""), "shiplap.solver.machine" not in told.stderr


def found(metadata: Path) -> Any:
    return json.loads(metadata.read_text())["buildx.build.provenance"]


def test_git_is_not_asked_unless_it_is_to_be_told(
    shiplap: Shiplap, context: Path, watched: Path, tmp_path: Path
) -> None:
    for flags in ([], [], ["--no-cache"], ["--sbom=true"], ["--provenance=false"]):
        shiplap.run("build", *flags, context)
    metadata = ("--metadata-file", tmp_path / "m")
    shiplap.run("build", *metadata, context, BUILDX_METADATA_PROVENANCE="disabled")
    shiplap.run("build", "--provenance=true", *metadata, context, BUILDX_GIT_INFO="0")
    assert watched.read_text() == ""
    shiplap.run("build", "--provenance=true", context)
    assert "status" not in watched.read_text() and "rev-parse" in watched.read_text()


def test_a_commit_that_changes_no_file_is_told(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "m"
    time.sleep(2.1)  # what is younger is not remembered
    first = git(context, "rev-parse", "HEAD")
    assert revision(shiplap, context, metadata) == (first, False)
    assert revision(shiplap, context, metadata) == (first, True)
    git(context, "commit", "-q", "--allow-empty", "-m", "two")
    second = git(context, "rev-parse", "HEAD")
    assert revision(shiplap, context, metadata) == (second, False)
    assert revision(shiplap, context, metadata) == (second, True)
    git(context, "checkout", "-q", "HEAD~")
    assert revision(shiplap, context, metadata) == (first, True)


def test_labels_follow_the_commit(shiplap: Shiplap, context: Path) -> None:
    time.sleep(2.1)
    for _ in range(2):
        git(context, "commit", "-q", "--allow-empty", "-m", "more")
        shiplap.run("build", "-t", "x", context, BUILDX_GIT_LABELS="1")
        labels = json.loads(shiplap.run("inspect", "x").stdout)[0]["Image"]["config"]["Labels"]
        assert labels["org.opencontainers.image.revision"] == git(context, "rev-parse", "HEAD")


def test_a_repository_that_cannot_be_read_is_a_warning(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    (context / ".git/HEAD").write_text("nonsense")
    metadata = tmp_path / "m"
    for _ in range(2):
        told = shiplap.run("build", "--progress=plain", "--metadata-file", metadata, context)
        assert "the commit of the build context is not told: not a git repository" in told.stderr
        assert "root" not in found(metadata)["invocation"]["parameters"]


def test_contexts_from_elsewhere_tell_nothing_of_here(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    archive = subprocess.run(["tar", "c", "."], cwd=context, capture_output=True, check=True).stdout
    metadata = tmp_path / "m"
    shiplap.run("build", "--metadata-file", metadata, "-", stdin=archive)
    assert "vcs" not in metadata.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_as_an_ordinary_user(rootless: Shiplap, context: Path) -> None:
    """git runs in the user namespace of the build, where the files are root's, as git itself is."""
    mine = rootless.cwd / "context"
    shutil.copytree(context, mine)
    for path in (mine, *mine.rglob("*")):
        os.chown(path, rootless.user or 0, -1)
    commit = git(context, "rev-parse", "HEAD")
    assert revision(rootless, mine, rootless.cwd / "m", "--no-cache") == (commit, False)
