"""References, with the odd cases of distribution/reference (checked against its grammar and normalisation)."""

from __future__ import annotations

import time

import pytest

from shiplap.errors import ImageError
from shiplap.oci.reference import Reference, parse_reference

SHA = "sha256:" + "a" * 64
SHA512 = "sha512:" + "b" * 128


@pytest.mark.parametrize(
    ("text", "expected", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("registry-1.docker.io/busybox", "registry-1.docker.io/busybox:latest", None),
        ("docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("a/b/c/d", "docker.io/a/b/c/d:latest", "a/b/c/d:latest"),
        ("library/team/app", "docker.io/library/team/app:latest", "library/team/app:latest"),
        ("localhost/app", "localhost/app:latest", None),
        ("localhost:5000/app", "localhost:5000/app:latest", None),
        ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("quay.io/app", "quay.io/app:latest", None),
        ("quay.io", "docker.io/library/quay.io:latest", "quay.io:latest"),
        ("127.0.0.1:5000/a/b:tag", "127.0.0.1:5000/a/b:tag", None),
        ("[::1]:5000/a", "[::1]:5000/a:latest", None),
        ("[2001:db8::1]/a", "[2001:db8::1]/a:latest", None),
        ("HOST/app", "HOST/app:latest", None),
        ("Foo/bar", "Foo/bar:latest", None),
        ("xn--n3h.com/app", "xn--n3h.com/app:latest", None),
        ("host.com:0/app", "host.com:0/app:latest", None),
        (f"busybox@{SHA}", f"docker.io/library/busybox@{SHA}", f"busybox@{SHA}"),
        (f"busybox:1@{SHA}", f"docker.io/library/busybox:1@{SHA}", f"busybox:1@{SHA}"),
        (f"busybox@{SHA512}", f"docker.io/library/busybox@{SHA512}", f"busybox@{SHA512}"),
        ("a_b", "docker.io/library/a_b:latest", "a_b:latest"),
        ("a__b", "docker.io/library/a__b:latest", "a__b:latest"),
        ("a--b---c.d", "docker.io/library/a--b---c.d:latest", "a--b---c.d:latest"),
        ("app:TAG_1.2-x", "docker.io/library/app:TAG_1.2-x", "app:TAG_1.2-x"),
        ("app:_", "docker.io/library/app:_", "app:_"),
        ("app:" + "t" * 128, "docker.io/library/app:" + "t" * 128, "app:" + "t" * 128),
        ("aa/asdf$$^/aa".replace("$$^", ""), "docker.io/aa/asdf/aa:latest", "aa/asdf/aa:latest"),
        ("a" * 63, "docker.io/library/" + "a" * 63 + ":latest", "a" * 63 + ":latest"),
        ("h.io/" + "a" * 255, "h.io/" + "a" * 255 + ":latest", None),
    ],
)
def test_table(text: str, expected: str, familiar: str | None) -> None:
    found = parse_reference(text)
    assert str(found) == expected
    assert found.familiar() == (familiar or expected)
    assert parse_reference(str(found)) == found
    assert parse_reference(found.familiar()) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid reference format"),
        ("/", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("@" + SHA, "invalid reference format"),
        ("Busybox", r"repository name \(library/Busybox\) must be lowercase"),
        ("team/App:1", r"repository name \(team/App\) must be lowercase"),
        ("host.com/App", "must be lowercase"),
        ("app:", "invalid reference format"),
        ("app:-x", "invalid reference format"),
        ("app:.x", "invalid reference format"),
        ("app:" + "t" * 129, "invalid reference format"),
        ("app:a:b", "invalid reference format"),
        ("app:täg", "invalid reference format"),
        ("app@", "invalid reference format"),
        ("app@sha256:abc", "invalid reference format"),
        ("app@sha256:" + "A" * 64, "invalid reference format"),
        ("app@md5:" + "a" * 32, "invalid reference format"),
        (f"app@{SHA}@{SHA}", "invalid reference format"),
        (f"app@{SHA}:tag", "invalid reference format"),
        ("-app", "invalid reference format"),
        ("app-", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a._b", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a/b/", "invalid reference format"),
        ("/a/b", "invalid reference format"),
        ("../a", "invalid reference format"),
        ("host.com/../a", "invalid reference format"),
        ("host.com/a/../b", "invalid reference format"),
        ("https://host.com/app", "invalid reference format"),
        ("user:pass@host.com/app", "invalid reference format"),
        ("-host.com/app", "invalid reference format"),
        ("host-.com/app", "invalid reference format"),
        ("host..com/app", "invalid reference format"),
        ("host.com:port/app", "invalid reference format"),
        ("host.com:/app", "invalid reference format"),
        ("[fe80::1%25eth0]:5000/a", "invalid reference format"),
        ("[::1/a", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("app\n", "invalid reference format"),
        ("app:1\n", "invalid reference format"),
        ("app\0", "invalid reference format"),
        ("ａpp", "invalid reference format"),
        ("app?x", "invalid reference format"),
        ("a" * 64, "64-byte hexadecimal"),
        ("h.io/" + "a" * 256, "more than 255 characters"),
        ("a" * 300, "more than 255 characters"),
        ("a" * 100_000, "invalid reference format"),
    ],
)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        parse_reference(text)
    assert caught.value.code == "invalid-reference"
    assert "failed to parse reference" in str(caught.value) and len(str(caught.value)) < 1200


def test_target_and_default_tag() -> None:
    assert parse_reference("a:1").target == "1"
    assert parse_reference(f"a:1@{SHA}").target == SHA
    assert parse_reference("a", default_tag="").tag == ""
    assert Reference("h.io", "a/b").name == "h.io/a/b"


@pytest.mark.parametrize("junk", ["a-" * 500, "a.b" * 340, "-" * 1000, "a" * 1000 + "!", "x." * 400 + "/a"])
def test_junk_ends_soon(junk: str) -> None:
    began = time.monotonic()
    with pytest.raises(ImageError):
        parse_reference(junk)
    assert time.monotonic() - began < 0.5
