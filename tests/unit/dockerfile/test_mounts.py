"""``--mount`` values."""

from __future__ import annotations

import pytest

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.mounts import fields, mount_from, parse_mount


def test_csv() -> None:
    assert fields('type=bind,"target=/a,b","x=""q"""') == ["type=bind", "target=/a,b", 'x="q"']
    assert fields("a,,b") == ["a", "", "b"]
    assert fields("a,") == ["a", ""]


@pytest.mark.parametrize("record", ["", 'a"b', '"a', '"a"b', ',"'])
def test_bad_csv(record: str) -> None:
    with pytest.raises(Fault, match="failed to parse csv mounts"):
        fields(record)


def test_values_are_expanded_and_keys_fold() -> None:
    mount = parse_mount("TYPE=Cache,Target=x,ID=y,sharing=LOCKED,mode=0700,uid=5,ro", lambda word: word.upper())
    assert (mount.kind, mount.target, mount.id, mount.sharing) == ("cache", "X", "Y", "locked")
    assert (mount.mode, mount.uid, mount.gid, mount.readonly) == (0o700, 5, None, True)


@pytest.mark.parametrize(
    ("value", "readonly"),
    [
        ("target=/a", True),
        ("target=/a,rw", False),
        ("target=/a,rw=false", True),
        ("target=/a,readonly=0", False),
        ("type=cache,target=/a", False),
        ("type=cache,target=/a,readwrite=F", True),
    ],
)
def test_readonly(value: str, readonly: bool) -> None:
    assert parse_mount(value, str).readonly is readonly


@pytest.mark.parametrize(
    ("size", "expected"),
    [("1024", 1024), ("1k", 1024), ("1.5G", 1610612736), ("2 MiB", 2 << 20), ("7b", 7), ("1KB", 1024)],
)
def test_sizes(size: str, expected: int) -> None:
    assert parse_mount(f"type=tmpfs,target=/a,size={size}", str).size == expected


@pytest.mark.parametrize("size", ["", "x", "-1", "1z", "1e9", "9" * 30])
def test_bad_sizes(size: str) -> None:
    with pytest.raises(Fault, match="invalid value for size"):
        parse_mount(f"type=tmpfs,target=/a,size={size}", str)


def test_from_is_known_before_variables() -> None:
    assert mount_from("type=cache,From=a,target=$x") == "a"
    assert mount_from("target=/a") == ""
    assert mount_from("from=a$") == "a$"
    with pytest.raises(Fault, match="doesn't support variable expansion"):
        mount_from("from=$a")
