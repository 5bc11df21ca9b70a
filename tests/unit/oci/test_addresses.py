"""What is crossed out of an address before it is told."""

from __future__ import annotations

import pytest

from shiplap.oci.addresses import BARE_LIMIT, bare, redacted


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://host/path.git", "https://host/path.git"),
        ("https://user:password@host/a", "https://xxxxx:xxxxx@host/a"),
        ("https://user@host", "https://xxxxx@host"),
        ("https://:password@host", "https://:xxxxx@host"),
        ("https://user:p@ss:word@host/a@b", "https://xxxxx:xxxxx@host/a@b"),
        ("https://host/a@b:c", "https://host/a@b:c"),
        ("https://host?a=b@c", "https://host?a=b@c"),
        ("git@host:team/app.git", "git@host:team/app.git"),
        ("docker-image://busybox@sha256:00", "docker-image://busybox@sha256:00"),
        ("/home/me?token=a", "/home/me?token=a"),
        ("https://host/a?private_token=a&ref=b#c:d", "https://host/a?private_token=xxxxx&ref=b#c:d"),
        ("https://host/a?X-Amz-Signature=a&X-Amz-Date=b", "https://host/a?X-Amz-Signature=xxxxx&X-Amz-Date=b"),
        ("https://host/a?sv=1&SIG=a%2F", "https://host/a?sv=1&SIG=xxxxx"),
        ("https://host/a?design=a", "https://host/a?design=a"),
    ],
)
def test_crossed_out(address: str, told: str) -> None:
    assert redacted(address) == told


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://user:password@host:5000/v2/?sig=a#b", "https://host:5000/v2/"),
        ("https://host?a=b", "https://host/"),
        ("https://host/a\x1b[31m\nb", "https://host/a%1B[31m%0Ab"),
        ("/home/me?a", "/home/me?a"),
        ("git@host:team/app.git", "git@host:team/app.git"),
    ],
)
def test_bare(address: str, told: str) -> None:
    assert bare(address) == told


def test_bare_is_short() -> None:
    assert len(bare("https://host/" + "a" * 1000)) == BARE_LIMIT
