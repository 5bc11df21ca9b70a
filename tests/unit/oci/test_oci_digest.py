from __future__ import annotations

import hashlib

import pytest

from shiplap.errors import ImageError
from shiplap.oci.digest import EMPTY_LAYER_DIFF_ID, digest_of, is_digest, parse_digest, split_digest

GOOD = ["sha256:" + "a1" * 32, "sha512:" + "0f" * 64]
BAD = [
    "",
    "sha256",
    "sha256:",
    ":" + "a" * 64,
    "a" * 64,
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "A" * 64,
    "SHA256:" + "a" * 64,
    "sha256:" + "g" * 64,
    "sha512:" + "a" * 64,
    "sha256:" + "a" * 128,
    "md5:" + "a" * 32,
    "sha256:../../../etc/passwd",
    "sha256:" + "a" * 63 + "/",
    "sha256:" + "a" * 64 + "\n",
    " sha256:" + "a" * 64,
    "sha256:" + "a" * 32 + "\0" + "a" * 31,
    "sha256:" + "\uff41" * 64,
    "sha256:" + "\u0661" * 64,
]


@pytest.mark.parametrize("text", GOOD)
def test_good(text: str) -> None:
    assert parse_digest(text) is text and is_digest(text)
    assert ":".join(split_digest(text)) == text


@pytest.mark.parametrize("text", BAD)
def test_bad(text: str) -> None:
    assert not is_digest(text)
    for refuse in (parse_digest, split_digest):
        with pytest.raises(ImageError) as caught:
            refuse(text)
        assert caught.value.code == "invalid-digest" and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 7, b"sha256:" + b"a" * 64, ["sha256"]])
def test_what_is_not_even_text(value: object) -> None:
    with pytest.raises(ImageError):
        parse_digest(value)  # type: ignore[arg-type]


def test_digest_of() -> None:
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert digest_of(b"\0" * 1024) == EMPTY_LAYER_DIFF_ID
