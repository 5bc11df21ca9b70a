"""Git and HTTP sources, ports, signals."""

from __future__ import annotations

import pytest

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.giturl import GitUrl, is_http, parse_git_url
from shiplap.dockerfile.ports import parse_port
from shiplap.dockerfile.signals import is_signal


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://h/a.git", GitUrl("https://h/a.git")),
        ("https://h/a.git#v1:sub/../dir", GitUrl("https://h/a.git", "v1", "dir")),
        ("git@h:a/b.git#:d", GitUrl("git@h:a/b.git", "", "d")),
        ("ssh://git@h/a", GitUrl("ssh://git@h/a")),
        ("git://h/a?tag=v2&keep-git-dir&submodules=0", GitUrl("git://h/a", "refs/tags/v2", "", "", True, False)),
        ("https://h/a.git?branch=m&checksum=ab", GitUrl("https://h/a.git", "refs/heads/m", "", "ab")),
        ("https://h/a.tgz", None),
        ("github.com/o/r", None),
        ("ftp://h/a.git", None),
        ("./git@h:a", None),
        ("a/b", None),
    ],
)
def test_git(source: str, expected: GitUrl | None) -> None:
    assert parse_git_url(source) == expected


@pytest.mark.parametrize("query", ["ref=a&ref=b", "ref=", "x=1", "tag=a&branch=b", "mtime=never", "submodules=maybe"])
def test_bad_git_queries(query: str) -> None:
    with pytest.raises(Fault) as caught:
        parse_git_url(f"https://h/a.git?{query}")
    assert caught.value.code == "invalid-git-url"


def test_http() -> None:
    assert is_http("https://h/a")
    assert not is_http("https://h/a.git#x")
    assert not is_http("HTTP://h/a")


@pytest.mark.parametrize(
    ("word", "ports"),
    [
        ("80", ("80/tcp",)),
        ("80-82/UDP", ("80/udp", "81/udp", "82/udp")),
        ("127.0.0.1:1:2/sctp", ("2/sctp",)),
        ("[::1]:1-2:3", ("3/tcp",)),
        ("0", ("0/tcp",)),
        ("80/", ("80/tcp",)),
    ],
)
def test_ports(word: str, ports: tuple[str, ...]) -> None:
    assert parse_port(word).ports == ports


@pytest.mark.parametrize(
    "word", ["65536", "-1", "x", "/tcp", "80/x", "9-8", "q:1:2", "1:2-3x", "1-:2", "1:2-3", "1-2-3"]
)
def test_bad_ports(word: str) -> None:
    if word == "1:2-3":
        with pytest.raises(Fault, match="invalid ranges specified for container and host Ports: 2-3 and 1"):
            parse_port(word)
        return
    with pytest.raises(Fault):
        parse_port(word)


def test_signals() -> None:
    assert all(map(is_signal, ("TERM", "sigquit", "RTMIN+15", "9", "-1", "SIGRTMAX-14")))
    assert not any(map(is_signal, ("", "FOO", "0", "RTMIN+16", "SIGSIGTERM", "9.0", "٩")))
