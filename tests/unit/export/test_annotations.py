"""--annotation and --output annotation…: where each goes, and what is refused."""

from __future__ import annotations

import pytest

from shiplap.errors import UsageError
from shiplap.export.annotations import read_annotations
from shiplap.oci.platform import parse_platform

AMD, ARM = parse_platform("linux/amd64"), parse_platform("linux/arm64")


def test_a_plain_one_is_the_manifests() -> None:
    found = read_annotations(["a=b=c", ""], {})
    assert found.of_image("manifest", AMD) == {"a": "b=c"}
    assert found.of_image("manifest-descriptor", AMD) == found.of_index("index") == {}


def test_levels_and_platforms() -> None:
    found = read_annotations(
        ["index,manifest[linux/arm64]:k=1", "k=0", "manifest-descriptor:d=2", "index-descriptor:e=3"], {}
    )
    assert found.of_index("index") == {"k": "1"}
    assert found.of_index("index-descriptor") == {"e": "3"}
    assert found.of_image("manifest", AMD) == {"k": "0"}
    assert found.of_image("manifest", ARM) == {"k": "1"}
    assert found.of_image("manifest-descriptor", ARM) == {"d": "2"}


def test_attributes_of_outputs_yield_to_flags() -> None:
    attributes = {"annotation.a": "1", "annotation-index.b": "2", "annotation[linux/arm64].c": "3", "name": "x"}
    found = read_annotations(["a=9"], attributes)
    assert found.of_image("manifest", AMD) == {"a": "9"}
    assert found.of_image("manifest", ARM) == {"a": "9", "c": "3"}
    assert found.of_index("index") == {"b": "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "invalid annotation 'a', expected key=value"),
        ("=a", "invalid annotation '=a', expected key=value"),
        ("index:=a", "invalid annotation 'index:=a', expected key=value"),
        ("Manifest:a=b", "invalid annotation type 'Manifest', expected type and optional platform in square brackets"),
        ("layer:a=b", "unknown annotation type 'layer'"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError) as fault:
        read_annotations([text], {})
    assert (fault.value.code, fault.value.message) == ("invalid-annotation", message)
    assert fault.value.hint


@pytest.mark.parametrize(
    ("text", "index", "docker", "message"),
    [
        ("index:a=b", False, False, "index annotations not supported for single platform export"),
        ("index-descriptor:a=b", True, True, 'cannot export annotations with "oci-mediatypes=false"'),
        ("manifest[linux/s390x]:a=b", True, False, "invalid annotation: no platform linux/s390x found in source"),
    ],
)
def test_what_cannot_be_put_anywhere(text: str, index: bool, docker: bool, message: str) -> None:
    with pytest.raises(UsageError) as fault:
        read_annotations([text], {}).check([AMD, ARM], index, docker)
    assert (fault.value.code, fault.value.message) == ("invalid-annotation", message)
