"""How images differ: by config, step, file and byte; and when they do not."""

from __future__ import annotations

import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.images.conftest import Shelf, entry, layer_tar

from shiplap.api.differing import Difference, diff, plain_difference
from shiplap.api.moving import copy
from shiplap.cli.main import main
from shiplap.images.bytewise import first_difference
from shiplap.settings import Settings


def compared(shelf: Shelf, settings: Settings, a: list[bytes], b: list[bytes], **options: Any) -> Difference:
    shelf.image("a", "1", *a)
    shelf.image("b", "1", *b)
    return diff(shelf.place("a", "1"), shelf.place("b", "1"), settings, **options)


def changes(found: Difference) -> dict[str, tuple[str, ...]]:
    """The files that differ, by path: ``+``, ``-``, or what differs."""
    return {file.path: ("+",) if file.a is None else ("-",) if file.b is None else file.what for file in found.files}


def test_an_image_is_the_same_as_itself_wherever_it_is(
    shelf: Shelf, multi: str, settings: Settings, tmp_path: Path
) -> None:
    copy(shelf.place("base", "multi"), f"oci:{tmp_path}/lay:1", settings)
    count = len(shelf.registry.requests)
    found = diff(shelf.place("base", "multi"), f"oci:{tmp_path}/lay:1", settings)
    assert (found.same, found.identical) == (True, True)
    targets = [seen.target for seen in shelf.registry.requests[count:]]
    assert len([target for target in targets if "/blobs/" in target]) == 1  # the config: no layer is read


def test_other_packing_is_no_difference(shelf: Shelf, settings: Settings, tmp_path: Path) -> None:
    layers = [layer_tar(("f", b"1"))]
    shelf.image("a", "1", *layers)
    copy(shelf.place("a", "1"), f"docker-archive:{tmp_path}/x.tar:x:1", settings)
    with tarfile.open(tmp_path / "x.tar") as archive:
        archive.extractall(tmp_path / "x")
    (tmp_path / "x/index.json").unlink()
    with tarfile.open(tmp_path / "y.tar", "w") as archive:
        archive.add(tmp_path / "x", ".")
    found = diff(shelf.place("a", "1"), f"docker-archive:{tmp_path}/y.tar", settings)
    assert (found.same, found.identical) == (True, False)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([("f", b"1")], [("f", b"2")], {"f": ("content",)}),
        ([("f", b"1")], [("f", b"22")], {"f": ("size", "content")}),
        ([("f", b"1")], [("g", b"1")], {"f": ("-",), "g": ("+",)}),
        ([entry("d", tarfile.DIRTYPE)], [entry("d", tarfile.DIRTYPE, mode=0o700)], {"d": ("mode",)}),
        ([entry("d", tarfile.DIRTYPE)], [entry("d", tarfile.DIRTYPE, uid=5)], {"d": ("owner",)}),
        ([entry("d", tarfile.DIRTYPE)], [entry("d", tarfile.DIRTYPE, mtime=9)], {"d": ("mtime",)}),
        ([entry("l", tarfile.SYMTYPE, linkname="a")], [entry("l", tarfile.SYMTYPE, linkname="b")], {"l": ("link",)}),
        (
            [entry("c", tarfile.CHRTYPE, devmajor=1, devminor=3)],
            [entry("c", tarfile.CHRTYPE, devmajor=1, devminor=5)],
            {"c": ("device",)},
        ),
        ([entry("x", tarfile.FIFOTYPE)], [entry("x", tarfile.DIRTYPE)], {"x": ("kind",)}),
        (
            [entry("d", tarfile.DIRTYPE, pax_headers={"SCHILY.xattr.user.a": "1"})],
            [entry("d", tarfile.DIRTYPE, pax_headers={"SCHILY.xattr.user.a": "2"})],
            {"d": ("xattrs",)},
        ),
        ([("./f", b"1")], [("f", b"1")], {}),
        ([("f", b"1"), ("g", b"1")], [("g", b"1"), ("f", b"1")], {}),
    ],
)
def test_what_differs_of_a_file(
    a: list[Any], b: list[Any], expected: dict[str, tuple[str, ...]], shelf: Shelf, settings: Settings
) -> None:
    found = compared(shelf, settings, [layer_tar(*a)], [layer_tar(*b)])
    assert changes(found) == expected
    assert found.same is not bool(expected)
    if not expected:
        assert found.layers_only == ((1,) if layer_tar(*a) != layer_tar(*b) else ())


LOWER = layer_tar(entry("d", tarfile.DIRTYPE), ("d/a", b"a"), ("d/b", b"b"), ("d/s/x", b"x"), ("f", b"f"))


@pytest.mark.parametrize(
    ("upper", "gone"),
    [
        ([(".wh.f", b"")], {"f"}),
        ([("d/.wh.a", b"")], {"d/a"}),
        ([(".wh.d", b"")], {"d", "d/a", "d/b", "d/s/x"}),
        ([("d/.wh..wh..opq", b"")], {"d/a", "d/b", "d/s/x"}),
        ([(".wh..wh..opq", b"")], {"d", "d/a", "d/b", "d/s/x", "f"}),
        ([(".wh.nothing", b"")], set()),
        ([(".wh.d", b""), ("d/a", b"a")], {"d", "d/b", "d/s/x"}),
    ],
)
def test_what_a_layer_removes_is_not_there(
    upper: list[tuple[str, bytes]], gone: set[str], shelf: Shelf, settings: Settings
) -> None:
    found = compared(shelf, settings, [LOWER], [LOWER, layer_tar(*upper)])
    assert {file.path for file in found.files if file.b is None} == gone
    assert {file.path for file in found.files if file.b is not None} == set()
    assert (found.same_steps, [step.number for step in found.steps]) == (1, [2])


def test_a_directory_that_becomes_a_file_takes_along_what_was_in_it(shelf: Shelf, settings: Settings) -> None:
    found = compared(shelf, settings, [LOWER], [LOWER, layer_tar(("d", b"now a file"))])
    assert changes(found) == {
        "d": ("kind", "mode", "size", "content"),
        **dict.fromkeys(("d/a", "d/b", "d/s/x"), ("-",)),
    }
    assert [(file.a_step, file.b_step) for file in found.files] == [(1, 2), (1, 0), (1, 0), (1, 0)]


def test_hard_links_are_files(shelf: Shelf, settings: Settings) -> None:
    linked = entry("h", tarfile.LNKTYPE, linkname="f")
    found = compared(shelf, settings, [LOWER, layer_tar(linked)], [LOWER, layer_tar(("h", b"F"))])
    assert changes(found) == {"h": ("content",)}
    content = found.files[0].content
    assert content is not None and content.lines == ("@@ -1 +1 @@", "-f", "+F")
    same = compared(shelf, settings, [layer_tar(("f", b"f"), linked)], [layer_tar(("f", b"f"), ("h", b"f"))])
    assert "h" not in changes(same) or changes(same)["h"] == ("mode",)


def test_where_bytes_differ(shelf: Shelf, settings: Settings) -> None:
    big = bytes(range(256)) * 8192  # 2 MiB
    other = bytearray(big)
    other[1_500_003] ^= 0xFF
    a = layer_tar(("big", big), ("cut", big), ("small", b"\0a"), ("text", b"one\ntwo\nthree\n"), ("long", big))
    b = layer_tar(
        ("big", bytes(other)), ("cut", big[:-1]), ("small", b"\0b"), ("text", b"one\n2\nthree\n"), ("long", big + b"!")
    )
    found = {file.path: file.content for file in compared(shelf, settings, [a], [b]).files}
    first = found["big"]
    assert first is not None and (first.offset, first.start) == (1_500_003, 1_500_000 // 16 * 16)
    assert first.a == big[first.start : first.start + 32] and first.b == bytes(other)[first.start : first.start + 32]
    small, text, cut, long = found["small"], found["text"], found["cut"], found["long"]
    assert small is not None and (small.offset, small.a, small.b) == (1, b"\0a", b"\0b")
    assert text is not None and "-two" in text.lines and "+2" in text.lines
    assert cut is not None and (cut.offset, len(cut.a) - len(cut.b)) == (len(big) - 1, 1)
    assert long is not None and long.offset == len(big)


def test_a_difference_across_chunks_shows_what_is_before_it(shelf: Shelf, settings: Settings) -> None:
    big = b"\0" + b"x" * (3 << 20)
    for offset in ((1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 7):
        other = bytearray(big)
        other[offset] = 0
        content = compared(shelf, settings, [layer_tar(("f", big))], [layer_tar(("f", bytes(other)))]).files[0].content
        assert content is not None and content.offset == offset
        assert content.b == bytes(other)[content.start : content.start + len(content.b)]
        assert content.start <= offset < content.start + len(content.b)


def test_the_contents_of_so_many_files_and_no_more(shelf: Shelf, settings: Settings) -> None:
    a = layer_tar(*((f"f{n}", b"a") for n in range(5)))
    b = layer_tar(*((f"f{n}", b"b") for n in range(5)))
    found = compared(shelf, settings, [a], [b], most_contents=2)
    assert [file.content is not None for file in found.files] == [True, True, False, False, False]


def test_configs_and_times(shelf: Shelf, settings: Settings) -> None:
    layer = layer_tar(("f", b"1"))
    for name, env, created in (
        ("a", ["A=1", "B=2"], "2026-01-01T00:00:00Z"),
        ("b", ["A=1", "B=3", "C=4"], "2027-01-01T00:00:00Z"),
    ):
        shelf.image(name, "1", layer, created=created, config={"Env": env, "Labels": {"x": name}})
    a, b = shelf.place("a", "1"), shelf.place("b", "1")
    found = {change.path: (change.a, change.b) for change in diff(a, b, settings).config}
    assert found == {
        "config.Env[1]": ("B=2", "B=3"),
        "config.Env[2]": (None, "C=4"),
        "config.Labels.x": ("a", "b"),
        "created": ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
    }
    assert "created" not in [change.path for change in diff(a, b, settings, times=False).config]


def test_times_may_not_count(shelf: Shelf, settings: Settings) -> None:
    layers = [layer_tar(entry("d", tarfile.DIRTYPE, mtime=number)) for number in (1, 2)]
    shelf.image("a", "1", layers[0], created="2026-01-01T00:00:00Z")
    shelf.image("b", "1", layers[1], created="2027-01-01T00:00:00Z")
    a, b = shelf.place("a", "1"), shelf.place("b", "1")
    assert not diff(a, b, settings).same
    assert diff(a, b, settings, times=False).same


def test_memory_does_not_go_with_the_size_of_files(shelf: Shelf, settings: Settings, tmp_path: Path) -> None:
    for name, last in (("a", b"a"), ("b", b"b")):
        shelf.image(name, "1", layer_tar(("zeros", bytes(48 << 20) + last)))
        copy(shelf.place(name, "1"), f"oci:{tmp_path}/{name}:1", settings)
    tracemalloc.start()
    found = diff(f"oci:{tmp_path}/a:1", f"oci:{tmp_path}/b:1", settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    content = found.files[0].content
    assert content is not None and content.offset == 48 << 20
    assert peak < 8 << 20


def test_the_command(shelf: Shelf, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    name = b"\xff\x1b[31m".decode("utf-8", "surrogateescape")
    shelf.image("a", "1", layer_tar(("f", b"1")))
    shelf.image("b", "1", layer_tar(("f", b"2"), entry(name, tarfile.FIFOTYPE)))
    a, b = shelf.place("a", "1"), shelf.place("b", "1")
    root = ["--root", settings.root]
    assert main([*root, "diff", a, a]) == 0
    assert capsys.readouterr().out == ""
    assert main([*root, "diff", a, b]) == 1
    told = capsys.readouterr().out
    assert "files: 1 added, 0 removed, 1 changed" in told and "      -1\n      +2" in told
    assert "\x1b" not in told
    assert main([*root, "diff", "-q", a, b]) == 1
    assert capsys.readouterr().out == ""
    assert main([*root, "diff", "--format", "json", a, b]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["same"] is False and [file["change"] for file in shown["files"]] == ["changed", "added"]
    assert main([*root, "diff", a, "nothing"]) == 2
    assert "[no-such-image]" in capsys.readouterr().err
    assert main([*root, "diff", a]) == 2


def test_plain_data_is_json(shelf: Shelf, settings: Settings) -> None:
    found = compared(shelf, settings, [LOWER], [layer_tar(("f", b"\xff\0"))])
    shown = json.loads(json.dumps(plain_difference(found)))
    assert {file["path"]: file["change"] for file in shown["files"]}["f"] == "changed"


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_the_first_difference(same: bytes, a: bytes, b: bytes) -> None:
    one, other = same + a, same + b
    expected = next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
    assert first_difference(one, other) == expected
