"""Platforms as containerd parses, folds and prefers them."""

from __future__ import annotations

import pytest

from shiplap.errors import UsageError
from shiplap.oci.manifest import Descriptor, Index, PlatformFields, offered_platforms, select_manifest
from shiplap.oci.platform import Platform, fitting_platforms, native_platform, normalize, parse_platform

NATIVE = Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/i386", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm64/9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/5", "linux/arm/v5"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/riscv64", "linux/riscv64"),
        ("linux/made-up/v1", "linux/made-up/v1"),
        ("macos/arm64", "darwin/arm64"),
        ("linux", "linux/amd64"),
        ("windows", "windows/amd64"),
        ("darwin", "darwin/amd64"),
        ("zos", "zos/amd64"),
        ("arm64", "linux/arm64"),
        ("armhf", "linux/arm/v7"),
        ("s390x", "linux/s390x"),
        ("x86_64", "linux/amd64"),
        ("local", "linux/amd64"),
    ],
)
def test_parse(text: str, expected: str) -> None:
    found = parse_platform(text, NATIVE)
    assert str(found) == expected
    assert parse_platform(str(found), NATIVE) == found


def test_os_version() -> None:
    found = parse_platform("windows(10.0.17763.1)/amd64", NATIVE)
    assert (found.os, found.architecture, found.os_version) == ("windows", "amd64", "10.0.17763.1")
    assert parse_platform("windows(10.0)", NATIVE).os_version == "10.0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "linux/",
        "/amd64",
        "linux//v7",
        "linux/amd64/v1/x",
        "made-up",
        "linux/*",
        "*/*",
        "lin.ux/amd64",
        "linux(1/amd64",
        "linux/amd64(1)",
        "wasip1",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_platform(text, NATIVE)
    assert caught.value.code == "invalid-platform" and caught.value.hint and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["linux /amd64", "linux/am d64", "linux/amd64\n", "a" * 10_000, "a/" * 5_000])
def test_junk(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_platform(text, NATIVE)
    assert len(str(caught.value)) < 300


def test_native_platform_is_one_we_can_read_back() -> None:
    assert parse_platform(str(native_platform())) == native_platform()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v5", ["linux/arm/v5"]),
        ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        (
            "linux/arm64/v8.1",
            ["linux/arm64/v8.1", "linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
        ),
        ("linux/386", ["linux/386"]),
        ("linux/s390x", ["linux/s390x"]),
        ("windows/amd64", ["windows/amd64", "windows/386"]),
    ],
)
def test_what_may_stand_in(wanted: str, expected: list[str]) -> None:
    assert [str(found) for found in fitting_platforms(parse_platform(wanted, NATIVE))] == expected


def test_armv9_holds_armv8() -> None:
    names = [str(found) for found in fitting_platforms(normalize("linux", "arm64", "v9.1"))]
    assert names[:4] == ["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64/v8.5"]
    assert "linux/arm64" in names and "linux/arm64/v8.7" not in names


def index_of(*names: str, features: tuple[str, ...] = ()) -> Index:
    entries = []
    for number, name in enumerate(names):
        if not name:
            entries.append(Descriptor(digest=str(number)))
            continue
        os, architecture, *variant = name.split("/")
        fields = PlatformFields(architecture, os, variant="".join(variant), os_features=features)
        entries.append(Descriptor(digest=str(number), platform=fields))
    return Index(schema_version=2, manifests=tuple(entries))


@pytest.mark.parametrize(
    ("names", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64", "linux/amd64"], "linux/amd64", 0),
        (["linux/386", "linux/amd64"], "linux/amd64", 1),
        (["linux/386", "linux/arm64"], "linux/amd64", 0),
        (["linux/amd64/v2", "linux/arm64"], "linux/amd64", None),
        (["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v3", 1),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v7", "linux/arm64/v8"], "linux/arm64", 1),
        (["linux/arm/v7"], "linux/arm64", 0),
        (["linux/arm64"], "linux/arm/v7", None),
        (["unknown/unknown", ""], "linux/amd64", None),
        (["windows/amd64"], "linux/amd64", None),
        (["Linux/x86_64"], "linux/amd64", 0),
    ],
)
def test_select(names: list[str], wanted: str, chosen: int | None) -> None:
    found = select_manifest(index_of(*names), parse_platform(wanted, NATIVE))
    assert (int(found.digest) if found else None) == chosen


def test_entries_that_ask_for_features_do_not_fit() -> None:
    assert select_manifest(index_of("linux/amd64", features=("special",)), NATIVE) is None
    assert select_manifest(index_of("windows/amd64", features=("win32k",)), Platform("windows", "amd64")) is not None


def test_offered_platforms() -> None:
    assert offered_platforms(index_of("linux/amd64", "unknown/unknown", "", "linux/arm")) == [
        "linux/amd64",
        "linux/arm/v7",
    ]


def test_the_full_name_has_the_version_of_the_system() -> None:
    """As BuildKit gives it to a Dockerfile as TARGETPLATFORM."""
    for text in ("windows(10.0.17763)/amd64", "linux/arm/v7", "linux(5)/amd64/v2"):
        assert parse_platform(text).full == text
