"""What git is given: addresses, refs and subdirectories that are let through, and those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiplap.errors import ContextError
from shiplap.graph.operations import GitSource
from shiplap.ops.git import check_ref, check_remote, fetch_git, subdir_parts
from shiplap.ops.gitcommand import Git
from shiplap.ops.workbench import Workbench
from shiplap.settings.network import Network, Proxies
from shiplap.store.store import Store

BAD_REFS = [
    "-", "-c", "--exec=x", "--upload-pack=touch /tmp/x", "--output=x", "-c core.sshCommand=x", "a b", "a\tb", "a\nb",
    "a\0b", "a\x7fb", "a~1", "a^", "a^{}", "a:b", ":a", "a?", "a*", "a[b", "a\\b", "a..b", "..", "../a", "a@{1}", "@{u}",
    "/a", "a/", "a//b", ".a", "a/.b", "a.", "a.lock", "a.lock/b", "refs/heads/-x\n", "\r", "a\r", " ", " a", "a ", "+a b",
    "ext::sh -c x", "a" * 1025, "-a", "--", "--help", "-u", "-o", "HEAD~", "HEAD^", "a\x01", "a\x1b[0m", "HEAD@{0}",
]  # fmt: skip
BAD_REMOTES = [
    "", "-", "--upload-pack=x", "ext::sh -c x", "file:///etc", "/etc", "./x", "fd::17", "https://-oProxyCommand=x/y",
    "ssh://-oProxyCommand=x/y", "ssh://a@-oProxyCommand=x/y", "git@-oProxyCommand=x:y", "-git@host:x", "git@host:-x",
    "https://", "ssh://", "https:// host/x", "https://host/a b", "https://host/a\nb", "ftp://host/x", "transport::https://h/x",
    "git@host:a b", "git@host:a\nb", "http:/host/x", "git@host", "\0", "https://host/\0",
]  # fmt: skip


@pytest.mark.parametrize("ref", BAD_REFS)
def test_refs_that_git_must_not_see(ref: str) -> None:
    with pytest.raises(ContextError) as caught:
        check_ref(ref)
    assert caught.value.code == "invalid-git-ref"


@pytest.mark.parametrize(
    "ref", ["", "main", "v1.2.3", "feature/x-1", "refs/heads/a", "refs/pull/1/head", "a@b", "ü", "HEAD"]
)
def test_refs_that_are_good(ref: str) -> None:
    check_ref(ref)


@given(st.text(max_size=30))
def test_no_ref_is_an_option_or_a_pattern(ref: str) -> None:
    try:
        check_ref(ref)
    except ContextError:
        return
    assert not ref.startswith("-") and not set(ref) & set("*?[:^~\\ \n\0")


@pytest.mark.parametrize("url", BAD_REMOTES)
def test_remotes_that_git_must_not_see(url: str) -> None:
    with pytest.raises(ContextError) as caught:
        check_remote(url)
    assert caught.value.code == "invalid-git-url"


@pytest.mark.parametrize(
    "url",
    ["https://host/r.git", "http://h:81/r.git", "ssh://git@h:2222/r", "git://h/r", "git@h:r", "git@h:~/r", "https://u:p@h/r",
     "ssh://[::1]/r", "git@h.example:/abs/r.git"],
)  # fmt: skip
def test_remotes_that_are_good(url: str) -> None:
    check_remote(url)


@pytest.mark.parametrize(
    ("subdir", "parts"),
    [("", []), (".", []), ("a/b", ["a", "b"]), ("/a//b/", ["a", "b"]), ("../../a", ["a"]), ("a/../../b", ["b"]),
     ("a/./b/..", ["a"]), ("..", [])],
)  # fmt: skip
def test_a_subdir_stays_inside(subdir: str, parts: list[str]) -> None:
    assert subdir_parts(subdir) == parts


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    def nothing() -> None:
        raise AssertionError("nothing is run here")

    return Workbench(
        store=Store(tmp_path / "store"),
        runtime=nothing,  # type: ignore[arg-type]
        images=None,  # type: ignore[arg-type]
        sink=lambda fact: None,
        programs="/usr/local/bin:/usr/bin:/bin",
        web=lambda: Network(proxies=Proxies(http="http://proxy:1", none_for="x")),
        secrets={"GIT_AUTH_TOKEN.example.com": lambda: b"geheim\n", "GIT_AUTH_HEADER": lambda: b"Bearer all"},
    )


def prepared(url: str, bench: Workbench, scratch: Path) -> tuple[Git, str]:
    scratch.mkdir()
    return Git(url, bench, scratch), (scratch / "config").read_text()


def test_credentials_are_for_their_host_and_in_a_private_file(bench: Workbench, tmp_path: Path) -> None:
    git, config = prepared("https://me:pw@example.com/r.git", bench, tmp_path / "one")
    assert git.remote == git.shown == "https://example.com/r.git"
    assert '[http "https://example.com/r.git"]\n\textraHeader = "Authorization: basic ' in config
    assert (tmp_path / "one/config").stat().st_mode & 0o777 == 0o600
    _, config = prepared("https://github.com/o/r.git", bench, tmp_path / "two")
    assert '[http "https://github.com/"]\n\textraHeader = "Authorization: Bearer all"' in config
    _, config = prepared("git://example.com/r.git", bench, tmp_path / "three")
    assert "extraHeader" not in config


def test_a_secret_cannot_add_configuration(bench: Workbench, tmp_path: Path) -> None:
    bench.secrets = {"GIT_AUTH_HEADER": lambda: b'x"\n[core]\n\tsshCommand = touch x'}
    with pytest.raises(ContextError) as caught:
        prepared("https://example.com/r.git", bench, tmp_path / "one")
    assert caught.value.code == "invalid-secret" and "touch" not in caught.value.message
    bench.secrets = {"GIT_AUTH_HEADER": lambda: b'quote " and \\ back'}
    _, config = prepared("https://example.com/r.git", bench, tmp_path / "two")
    assert config.endswith('extraHeader = "Authorization: quote \\" and \\\\ back"\n')


def test_a_checksum_is_hexadecimal(bench: Workbench) -> None:
    with pytest.raises(ContextError, match="expected hex commit hash"):
        fetch_git(GitSource("https://example.com/r.git", checksum="--x"), bench)


def test_without_git_it_is_told(bench: Workbench) -> None:
    bench.programs = "/nonexistent"
    with pytest.raises(ContextError) as caught:
        fetch_git(GitSource("https://example.com/r.git"), bench)
    assert caught.value.code == "git-missing"
