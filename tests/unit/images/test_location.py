"""How people write where an image is."""

from __future__ import annotations

from pathlib import Path

import pytest

from shiplap.errors import ImageError, ShiplapError, UsageError
from shiplap.images.location import REGISTRY, Location, parse_location

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", Location("store", name="busybox")),
        ("store:busybox:1", Location("store", name="busybox:1")),
        ("0123abcd", Location("store", name="0123abcd")),
        (DIGEST, Location("store", name=DIGEST)),
        ("docker://busybox", Location("docker", name="busybox")),
        (f"docker://h:5/a/b:c@{DIGEST}", Location("docker", name=f"h:5/a/b:c@{DIGEST}")),
        ("docker-daemon:app:1", Location("docker-daemon", name="app:1")),
        ("oci:dir", Location("oci", "dir")),
        ("oci:/a/dir:1", Location("oci", "/a/dir", "1")),
        ("oci:dir:h:5/a:b", Location("oci", "dir", "h:5/a:b")),
        (f"oci:dir@{DIGEST}", Location("oci", "dir", "", DIGEST)),
        ("oci-archive:x.tar:1", Location("oci-archive", "x.tar", "1")),
        ("docker-archive:x.tar", Location("docker-archive", "x.tar")),
        ("docker-archive:x.tar:a/b:1", Location("docker-archive", "x.tar", "a/b:1")),
        ("oci-layout://dir", Location("oci", "dir", "latest")),
        ("oci-layout:///a:b/dir:1.3", Location("oci", "/a:b/dir", "1.3")),
        (f"oci-layout:///a/@/dir@{DIGEST}", Location("oci", "/a/@/dir", "", DIGEST)),
        (f"oci-layout://dir:x@{DIGEST}", Location("oci", "dir", "x", DIGEST)),
        ("oci/image", Location("store", name="oci/image")),
    ],
)
def test_what_a_text_means(text: str, expected: Location) -> None:
    assert parse_location(text) == expected


@pytest.mark.parametrize(
    "text",
    (
        *("docker://", "store:", "oci:", "oci-archive:", "oci:dir@x", "oci-layout://", "dir:x"),
        *("containers-storage:x", "docker-daemon:"),
    ),
)
def test_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_location(text)
    assert raised.value.code == "bad-location"
    assert "docker-archive:FILE" in (raised.value.hint or "")


def test_a_bad_name_is_called_one_and_a_file_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="must be lowercase"):
        parse_location("Busybox")
    with pytest.raises(ShiplapError, match="write oci:"):
        parse_location(f"{tmp_path}/")
    (tmp_path / "X.tar").write_text("")
    with pytest.raises(ShiplapError, match="write oci-archive:"):
        parse_location(f"{tmp_path}/X.tar")


def test_what_a_plain_name_is_of() -> None:
    assert parse_location("busybox", REGISTRY) == Location("docker", name="busybox")
    assert parse_location("store:busybox", REGISTRY) == Location("store", name="busybox")


@pytest.mark.parametrize("text", ["oci:dir:1", f"oci:dir@{DIGEST}", "docker://a:1", "app:1", "docker-daemon:app"])
def test_a_location_shows_as_it_was_written(text: str) -> None:
    assert str(parse_location(text)) == text
