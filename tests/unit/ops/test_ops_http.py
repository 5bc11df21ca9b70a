"""The small parts of fetching a URL: dates, credentials, header values, names."""

from __future__ import annotations

import pytest

from shiplap.errors import ContextError
from shiplap.graph.operations import HttpSource
from shiplap.ops.http import _settled, fetch_http, header_value, seconds_of, take_credentials


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1445412480),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 1445412480),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", None),
        ("", None),
        ("yesterday", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 9999 07:28:00 GMT", None),
    ],
)
def test_dates(date: str, seconds: int | None) -> None:
    assert seconds_of(date) == seconds


@pytest.mark.parametrize(
    ("url", "plain", "header"),
    [
        ("https://host/p?q=a@b", "https://host/p?q=a@b", ""),
        ("https://u:p@host/p", "https://host/p", "Basic dTpw"),
        ("https://u:p%40x@host", "https://host", "Basic dTpwQHg="),
        ("https://u@host?x", "https://host?x", "Basic dTo="),
        ("https://a@b:c@host/", "https://host/", "Basic YUBiOmM="),
    ],
)
def test_credentials_are_taken_out_of_a_url(url: str, plain: str, header: str) -> None:
    assert take_credentials(url) == (plain, header)


def test_a_header_is_one_line() -> None:
    assert header_value(b"token\r\n", "T") == "token"
    for bad in (b"a\nb", b"a\r\nX: y", b"a\0b", b"\x7f"):
        with pytest.raises(ContextError) as caught:
            header_value(bad, "T")
        assert caught.value.code == "invalid-secret"


def test_last_modified_is_no_validator_in_the_second_of_a_change() -> None:
    changed = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert _settled(changed, {"Date": "Wed, 21 Oct 2015 07:28:02 GMT"})
    assert not _settled(changed, {"Date": "Wed, 21 Oct 2015 07:28:01 GMT"})
    assert not _settled(changed, {})
    assert not _settled("", {"Date": changed})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "x" * 256])
def test_a_file_has_a_plain_name(name: str) -> None:
    with pytest.raises(ContextError) as caught:
        fetch_http(HttpSource("http://127.0.0.1:9/", name), None)  # type: ignore[arg-type]
    assert caught.value.code == "bad-path"
