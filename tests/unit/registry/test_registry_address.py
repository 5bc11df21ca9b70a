from __future__ import annotations

import pytest

from shiplap.registry.address import Reach, is_loopback, literal_reach, reach_of


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", Reach.PUBLIC),
        ("2606:4700::1111", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.9.9.9", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("64:ff9b::7f00:1", Reach.LOOPBACK),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("169.254.169.254", Reach.LINK),
        ("::ffff:169.254.169.254", Reach.LINK),
        ("fe80::1%eth0", Reach.LINK),
        ("0.0.0.0", Reach.LINK),
        ("::", Reach.LINK),
        ("224.0.0.1", Reach.LINK),
    ],
)
def test_reach(address: str, reach: Reach) -> None:
    assert reach_of(address) == reach


@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:7f00:1]",
        "LOCALHOST",
        "a.localhost.",
    ],
)
def test_loopback_in_every_spelling(spelling: str) -> None:
    assert literal_reach(spelling) == Reach.LOOPBACK


def test_names_have_no_reach_until_they_are_connected() -> None:
    assert literal_reach("registry.example.com") is None


def test_plain_http_is_for_plainly_written_loopback_only() -> None:
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "127.2.3.4", "[::1]")] == [True] * 4
    assert [is_loopback(host) for host in ("0x7f000001", "127.1", "a.localhost", "10.0.0.1", "x.io")] == [False] * 5
