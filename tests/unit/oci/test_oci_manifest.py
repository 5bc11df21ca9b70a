"""Manifests and indexes: limits, ambiguity, nulls, and the bytes we write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shiplap.errors import ImageError
from shiplap.oci import media_types
from shiplap.oci.manifest import (
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    PlatformFields,
    encode_json,
    encode_manifest,
    parse_manifest,
)

SHA = "sha256:" + "a" * 64
BLOB = {"mediaType": media_types.OCI_LAYER, "digest": SHA, "size": 7}
MANIFEST = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": BLOB, "layers": [BLOB]}
INDEX = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [BLOB]}


def raw_of(fields: Any) -> bytes:
    return json.dumps(fields).encode()


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


@pytest.mark.parametrize(
    "said", ["", media_types.OCI_MANIFEST, f"{media_types.OCI_MANIFEST}; charset=utf-8", "text/plain"]
)
def test_a_manifest(said: str) -> None:
    found = parse_manifest(raw_of(MANIFEST), said)
    assert isinstance(found, Manifest)
    assert found.config.digest == SHA and [layer.size for layer in found.layers] == [7]


@pytest.mark.parametrize("said", ["", media_types.OCI_INDEX, "application/json"])
def test_an_index(said: str) -> None:
    found = parse_manifest(raw_of(INDEX), said)
    assert isinstance(found, Index) and found.manifests[0].digest == SHA


def test_without_a_media_type_the_header_decides_and_then_the_content() -> None:
    assert isinstance(parse_manifest(raw_of(without(INDEX, "mediaType")), media_types.DOCKER_INDEX), Index)
    assert isinstance(parse_manifest(raw_of(without(INDEX, "mediaType"))), Index)
    assert isinstance(parse_manifest(raw_of(without(MANIFEST, "mediaType"))), Manifest)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**MANIFEST, "manifests": []}, ""),
        ({**MANIFEST, "manifests": [BLOB]}, media_types.OCI_INDEX),
        ({**INDEX, "layers": []}, ""),
        ({**INDEX, "config": BLOB}, media_types.OCI_INDEX),
        (MANIFEST, media_types.OCI_INDEX),
        (INDEX, media_types.OCI_MANIFEST),
        (MANIFEST, media_types.DOCKER_MANIFEST),
        ({**MANIFEST, "mediaType": media_types.OCI_INDEX}, ""),
        ({**INDEX, "mediaType": media_types.OCI_MANIFEST}, ""),
        (without(MANIFEST, "mediaType"), media_types.OCI_INDEX),
        (without(INDEX, "mediaType"), media_types.OCI_MANIFEST),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_manifest(raw_of(fields), said, SHA)
    assert caught.value.code == "ambiguous-manifest"
    assert caught.value.where is not None and caught.value.where.blob == SHA


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid-json"),
        (b"[]", "invalid-json"),
        (b"null", "invalid-json"),
        (b"{", "invalid-json"),
        (b'{"schemaVersion": 2}}', "invalid-json"),
        (b"\xff", "invalid-json"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid-json"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "invalid-json"),
        (b'{"a": ' + b'{"a": ' * 900 + b"1" + b"}" * 900 + b"}", "invalid-json"),
        (b'{"schemaVersion": ' + b"9" * 5000 + b"}", None),
        (b" " * (MANIFEST_LIMIT + 1), "manifest-too-large"),
        (raw_of({**MANIFEST, "schemaVersion": 1}), "unsupported-manifest"),
        (raw_of({**MANIFEST, "schemaVersion": "2"}), "unsupported-manifest"),
        (raw_of(without(MANIFEST, "schemaVersion")), "unsupported-manifest"),
        (raw_of({**MANIFEST, "layers": BLOB}), "invalid-json"),
        (raw_of({**MANIFEST, "layers": [7]}), "invalid-json"),
        (raw_of({**MANIFEST, "config": "x"}), "invalid-json"),
        (raw_of({**MANIFEST, "mediaType": 7}), "invalid-json"),
        (raw_of({**MANIFEST, "mediaType": []}), None),
        (raw_of({**MANIFEST, "annotations": {"a": 1}}), "invalid-json"),
        (raw_of(without(MANIFEST, "config")), "invalid-digest"),
        (raw_of({**MANIFEST, "layers": [{**BLOB, "size": -1}]}), "invalid-manifest"),
        (raw_of({**MANIFEST, "layers": [without(BLOB, "size")]}), "invalid-manifest"),
        (raw_of({**MANIFEST, "layers": [{**BLOB, "size": 1.5}]}), "invalid-json"),
        (raw_of({**MANIFEST, "layers": [{**BLOB, "size": 2**70}]}), None),
        (raw_of({**MANIFEST, "layers": [{**BLOB, "digest": "sha256:../x"}]}), "invalid-digest"),
        (raw_of({**INDEX, "manifests": [{**BLOB, "digest": ""}]}), "invalid-digest"),
    ],
)
def test_refused(raw: bytes, code: str | None) -> None:
    with pytest.raises(ImageError) as caught:
        parse_manifest(raw)
    assert code is None or caught.value.code == code
    assert len(str(caught.value)) < 1000


def test_nulls_are_absent() -> None:
    blob = {**BLOB, "urls": None, "annotations": None, "platform": None}
    found = parse_manifest(raw_of({**MANIFEST, "config": blob, "layers": None, "annotations": None, "subject": None}))
    assert isinstance(found, Manifest) and found.layers == () and found.annotations == {}
    found = parse_manifest(raw_of({**INDEX, "manifests": None}))
    assert isinstance(found, Index) and found.manifests == ()
    # A null beside the other kind's key says nothing.
    assert isinstance(parse_manifest(raw_of({**MANIFEST, "manifests": None})), Manifest)


def test_many_entries_are_read_quickly() -> None:
    found = parse_manifest(raw_of({**INDEX, "manifests": [BLOB] * 20_000}))
    assert isinstance(found, Index) and len(found.manifests) == 20_000


def test_the_bytes_of_a_manifest() -> None:
    layer = Descriptor(media_type=media_types.OCI_LAYER_GZIP, digest=SHA, size=7, annotations={"b": "2", "a": "<&>"})
    manifest = Manifest(
        schema_version=2,
        media_type=media_types.OCI_MANIFEST,
        config=Descriptor(media_type=media_types.OCI_CONFIG, digest=SHA, size=3),
        layers=(layer,),
        annotations={"z": "1", "a": "\u2028"},
    )
    assert encode_manifest(manifest).decode() == (
        '{\n  "schemaVersion": 2,\n  "mediaType": "application/vnd.oci.image.manifest.v1+json",\n  "config": {\n'
        '    "mediaType": "application/vnd.oci.image.config.v1+json",\n'
        f'    "digest": "{SHA}",\n    "size": 3\n  }},\n  "layers": [\n    {{\n'
        '      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",\n'
        f'      "digest": "{SHA}",\n      "size": 7,\n      "annotations": {{\n'
        '        "a": "\\u003c\\u0026\\u003e",\n        "b": "2"\n      }\n    }\n  ],\n'
        '  "annotations": {\n    "a": "\\u2028",\n    "z": "1"\n  }\n}'
    )
    assert parse_manifest(encode_manifest(manifest)) == manifest


def test_the_bytes_of_an_index() -> None:
    entry = Descriptor(
        media_type=media_types.OCI_MANIFEST, digest=SHA, size=5, platform=PlatformFields("arm", "linux", variant="v7")
    )
    index = Index(schema_version=2, media_type=media_types.OCI_INDEX, manifests=(entry,))
    fields = json.loads(encode_manifest(index))
    assert list(fields) == ["schemaVersion", "mediaType", "manifests"]
    assert list(fields["manifests"][0]["platform"].items()) == [
        ("architecture", "arm"),
        ("os", "linux"),
        ("variant", "v7"),
    ]
    assert parse_manifest(encode_manifest(index)) == index
    assert b'"manifests": null' in encode_manifest(Index(schema_version=2))
    assert b'"layers": null' in encode_manifest(Manifest(schema_version=2))


def test_json_as_go_writes_it() -> None:
    assert encode_json({"a": '<b> & \u2028\u2029 é " \\ \n'}) == (
        b'{"a":"\\u003cb\\u003e \\u0026 \\u2028\\u2029 \xc3\xa9 \\" \\\\ \\n"}'
    )
    assert encode_json("\t\r\x00\x1f\x7f/") == b'"\\t\\r\\u0000\\u001f\x7f/"'
    assert encode_json({"a": "x\udcff\udc80 \ufffd", "b": ("\udc80",), "\udcff": 1}) == (
        b'{"a":"x\\ufffd\\ufffd \xef\xbf\xbd","b":["\\ufffd"],"\\ufffd":1}'
    )
    assert encode_json("\b\f") == b'"\\b\\f"'
