"""What git says of a directory, and that a repository makes git run nothing.

Every trap is known to work: the same repository, asked by plain git, leaves the mark (``test_the_traps_are_real``).
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from shiplap.errors import ContextError, Interrupted
from shiplap.ops import checkout
from shiplap.ops.checkout import Checkout, look

PATH = os.environ["PATH"]
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b.example")
NOTHING = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def git(directory: Path, *words: str, allow: bool = False) -> str:
    told = subprocess.run(
        ["git", *IDENTITY, *words],
        cwd=directory,
        capture_output=True,
        text=True,
        env={"PATH": PATH, "HOME": "/nowhere", **NOTHING},
        timeout=60,
    )
    assert allow or told.returncode == 0, told.stderr
    return told.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    (path / "f").write_text("f\n")
    git(path, "init", "-q", "-b", "main")
    git(path, "add", ".")
    git(path, "commit", "-qm", "one")
    return path


def see(directory: Path, *, dirty: bool = False, path: str = PATH, **environment: str) -> Checkout | None:
    return look(str(directory), path, {**NOTHING, **environment}, dirty=dirty, check=lambda: None)


def test_a_commit(repository: Path) -> None:
    (repository / "sub").mkdir()
    expected = Checkout(str(repository), git(repository, "rev-parse", "HEAD"), "")
    assert see(repository) == see(repository / "sub") == expected


def test_no_repository(tmp_path: Path) -> None:
    assert see(tmp_path) is None


def test_without_git(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="git is not installed"):
        see(repository, path=str(tmp_path))
    assert see(tmp_path, path=str(tmp_path)) is None


def test_a_repository_that_cannot_be_read(repository: Path) -> None:
    (repository / ".git/HEAD").write_text("nonsense")
    with pytest.raises(ContextError, match="not a git repository"):
        see(repository)
    (repository / "sub").mkdir()
    assert see(repository / "sub") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_repository_of_somebody_else(repository: Path, tmp_path: Path) -> None:
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 4242, 4242)
    with pytest.raises(ContextError, match="dubious ownership") as caught:
        see(repository)
    assert caught.value.hint == f"git config --global --add safe.directory {repository}"
    mine = tmp_path / "gitconfig"
    mine.write_text(f"[safe]\n\tdirectory = {repository}\n")
    found = see(repository, GIT_CONFIG_GLOBAL=str(mine))
    assert found is not None and found.revision
    found = see(repository, SUDO_UID="4242")
    assert found is not None and found.revision


def test_a_bare_repository_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare")
    assert see(tmp_path / "bare") is None


def dirty(repository: Path, **environment: str) -> bool:
    found = see(repository, dirty=True, **environment)
    assert found is not None
    return found.revision.endswith("-dirty")


def test_what_makes_it_dirty(repository: Path) -> None:
    assert not dirty(repository)
    (repository / "f").write_text("g\n")
    assert dirty(repository)
    git(repository, "checkout", "f")
    assert not dirty(repository)
    (repository / "new").write_text("")
    assert dirty(repository)
    (repository / ".git/info/exclude").write_text("new\n")
    assert dirty(repository)


def test_many_changes(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "ANSWER_LIMIT", 100)
    for number in range(100):
        (repository / f"file{number}").write_text("")
    assert dirty(repository)


def test_submodules_are_looked_into(repository: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "main")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(repository), "in ner")
    git(outer, "commit", "-qm", "one")
    assert not dirty(outer)
    (outer / "in ner/f").write_text("changed\n")
    assert dirty(outer)
    git(outer / "in ner", "commit", "-qam", "two")
    assert dirty(outer)
    git(outer, "commit", "-qam", "two")
    assert not dirty(outer)


def test_submodules_that_lie_elsewhere_are_not(repository: Path) -> None:
    (repository / ".gitmodules").write_text(
        "".join(f'[submodule "{n}"]\n\tpath = {path}\n' for n, path in enumerate((".", "/", "../..", "f/../..", "")))
    )
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "two")
    assert not dirty(repository)


def test_the_users_own_filters_count(repository: Path, tmp_path: Path) -> None:
    """As with git-lfs: what is stored is not what is checked out, and that is no change."""
    mine = tmp_path / "gitconfig"
    mine.write_text('[filter "upper"]\n\tclean = tr a-z A-Z\n\tsmudge = tr A-Z a-z\n\trequired\n')
    environment = {"GIT_CONFIG_GLOBAL": str(mine)}
    (repository / ".gitattributes").write_text("f filter=upper\n")
    subprocess.run(
        ["sh", "-c", "git add . && git commit -qm two && rm f && git checkout f"],
        cwd=repository,
        env={"PATH": PATH, "HOME": "/nowhere", **NOTHING, **environment, **names()},
        check=True,
        capture_output=True,
    )
    os.utime(repository / "f", (1, 1))
    assert not dirty(repository, **environment)


def names() -> dict[str, str]:
    return {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.mark.parametrize(
    ("remotes", "follows", "source"),
    [
        ({}, "", ""),
        ({"origin": "https://host/a.git"}, "", "https://host/a.git"),
        ({"upstream": "https://host/u.git", "other": "https://host/o.git"}, "", "https://host/u.git"),
        ({"upstream": "https://host/u.git", "origin": "https://host/a.git"}, "upstream", "https://host/u.git"),
        ({"other": "https://host/o.git"}, "", ""),
        ({"other": "https://host/o.git"}, "other", "https://host/o.git"),
        ({"origin": "https://me:secret@host/a.git?token=t"}, "", "https://xxxxx:xxxxx@host/a.git?token=xxxxx"),
        ({"origin": "ssh://git@host/a.git"}, "", "ssh://xxxxx@host/a.git"),
        ({"origin": "git@host:a.git"}, "", "git@host:a.git"),
    ],
)
def test_the_remote(repository: Path, remotes: dict[str, str], follows: str, source: str) -> None:
    for name, url in remotes.items():
        git(repository, "config", f"remote.{name}.url", url)
        git(repository, "config", f"remote.{name}.fetch", f"+refs/heads/*:refs/remotes/{name}/*")
    if follows:
        git(repository, "config", "branch.main.remote", follows)
        git(repository, "config", "branch.main.merge", "refs/heads/main")
    found = see(repository)
    assert found is not None and found.source == source


# -- what a hostile repository may try


@pytest.fixture
def hostile(repository: Path, tmp_path: Path) -> Path:
    """Each of its traps leaves a file of its own in ``marks``."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def trap(name: str, tail: str = "") -> str:
        return f"touch {marks}/{name};{tail}"

    (repository / ".gitattributes").write_text("* filter=trap diff=trap\n")
    (repository / "later").write_text("x")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "two")
    included = tmp_path / "included"
    included.write_text(f'[filter "more"]\n\tclean = "{trap("included", "cat")}"\n')
    config = {
        "core.fsmonitor": trap("fsmonitor"),
        "core.pager": trap("pager", "cat"),
        "core.editor": trap("editor"),
        "core.sshCommand": trap("ssh"),
        "core.askPass": trap("askpass"),
        "core.hooksPath": str(repository / "hooks"),
        "pager.status": "true",
        "filter.trap.clean": trap("clean", "cat"),
        "filter.trap.process": trap("process"),
        "filter.trap.required": "true",
        "diff.trap.textconv": trap("textconv", "cat"),
        "diff.trap.command": trap("diff"),
        "diff.external": trap("external"),
        "gpg.program": trap("gpg"),
        "log.showSignature": "true",
        "alias.status": "!" + trap("alias"),
        "credential.helper": "!" + trap("credential"),
        "status.submoduleSummary": "true",
        "include.path": str(included),
        "remote.origin.url": f"ext::sh -c {trap('ext')}",
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": trap("uploadpack"),
        "remote.origin.proxy": "false",
        "protocol.allow": "always",
        "protocol.ext.allow": "always",
        "extensions.partialClone": "origin",
    }
    git(repository, "config", "core.repositoryFormatVersion", "1")
    for key, value in config.items():
        git(repository, "config", key, value)
    hooks = repository / "hooks"
    hooks.mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "post-checkout", "pre-auto-gc", "reference-transaction"):
        (hooks / hook).write_text(f"#!/bin/sh\ntouch {marks}/{hook}\n")
        (hooks / hook).chmod(0o755)
    os.utime(repository / "f", (1, 1))
    (repository / "later").write_text("y")
    os.utime(repository / "later", (1, 1))
    return marks


def test_the_traps_are_real(hostile: Path, repository: Path) -> None:
    git(repository, "status", "--porcelain", "--ignored", allow=True)
    git(repository, "config", "core.fsmonitor", "false")
    git(repository, "status", "--porcelain", "--ignored", allow=True)
    git(repository, "config", "--unset", "filter.trap.process")
    git(repository, "status", "--porcelain", "--ignored", allow=True)
    assert {"fsmonitor", "process", "clean"} <= set(os.listdir(hostile))


@pytest.mark.parametrize("missing", [False, True])
def test_nothing_of_a_hostile_repository_runs(hostile: Path, repository: Path, missing: bool) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    if missing:  # objects that a partial clone would fetch
        for path in (repository / ".git/objects").glob("??/*"):
            path.unlink()
    found = see(repository, dirty=True)
    assert found is not None and found.revision == f"{commit}-dirty"
    assert os.listdir(hostile) == []


def test_a_filter_that_cannot_be_turned_off_is_not_run(hostile: Path, repository: Path) -> None:
    (repository / ".git/info/attributes").write_text("* filter=a=b\n")
    git(repository, "config", "filter.a=b.clean", f"touch {hostile}/equals;cat")
    assert dirty(repository)
    assert os.listdir(hostile) == []


def test_nothing_of_a_hostile_submodule_runs(hostile: Path, repository: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "main")
    (outer / ".gitmodules").write_text('[submodule "s"]\n\tpath = s\n\turl = https://host.example/s\n')
    os.rename(repository, outer / "s")
    git(outer, "add", ".gitmodules")
    commit = "1" * 40
    git(outer, "update-index", "--add", "--cacheinfo", f"160000,{commit},s")
    git(outer, "commit", "-qm", "one")
    (outer / "s/.git/HEAD").write_text(commit + "\n")  # so that the outer one sees nothing wrong
    assert dirty(outer)
    assert os.listdir(hostile) == []


def test_git_that_waits_for_ever(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    git(repository, "config", "include.path", str(tmp_path / "fifo"))
    monkeypatch.setattr(checkout._Git.ask, "__kwdefaults__", {"before": None, "patience": 0.3, "fine": (0,)})
    with pytest.raises(ContextError, match="gives no answer"):
        see(repository)


def test_waiting_can_be_interrupted(repository: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    git(repository, "config", "include.path", str(tmp_path / "fifo"))
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > 0.3:
            raise Interrupted("build canceled")

    with pytest.raises(Interrupted):
        look(str(repository), PATH, NOTHING, check=check)
    assert time.monotonic() - began < 2
