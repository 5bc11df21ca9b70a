"""Referrers: by the API, by the tag, and whoever pushes at the same time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shiplap.errors import ImageError, RegistryError
from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor, Index, Manifest, encode_manifest
from shiplap.oci.reference import parse_reference
from shiplap.oci.referrer import referrers_tag
from shiplap.registry.client import Registry
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.registry.push import OutgoingBlob, push_referrer
from shiplap.settings import Mirror, Network, RegistryRule

EMPTY = b"{}"
SUBJECT = "sha256:" + "a" * 64
TAG = "sha256-" + "a" * 64
SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.example.signature"


def artifact(number: int, kind: str = SBOM, subject: str = SUBJECT) -> bytes:
    return encode_manifest(
        Manifest(
            schema_version=2,
            media_type=media_types.OCI_MANIFEST,
            artifact_type=kind,
            config=Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=digest_of(EMPTY), size=2),
            subject=Descriptor(media_type=media_types.OCI_MANIFEST, digest=subject, size=7),
            annotations={"number": str(number)},
        )
    )


def attach(client: Registry, host: str, raw: bytes, kit: Any) -> Descriptor:
    blob = OutgoingBlob(kit.descriptor(EMPTY), kit.opener(EMPTY))
    return push_referrer(client, parse_reference(f"{host}/a/b:1"), raw, media_types.OCI_MANIFEST, [blob])


@pytest.mark.parametrize("pages", [0, 1, 100], ids=["tag", "pages-of-one", "api"])
def test_what_is_attached_is_listed(pages: int, client: Registry, kit: Any) -> None:
    with MemoryRegistry(referrers=pages) as server:
        ref = parse_reference(f"{server.host}/a/b:1")
        assert client.referrers(ref, SUBJECT) == ()
        raws = [artifact(1), artifact(2, SIGNATURE), artifact(3)]
        for raw in raws:
            assert attach(client, server.host, raw, kit).digest == digest_of(raw)
        attach(client, server.host, artifact(4, subject="sha256:" + "b" * 64), kit)
        found = client.referrers(ref, SUBJECT)
        assert [entry.digest for entry in found] == [digest_of(raw) for raw in raws]
        assert [entry.artifact_type for entry in found] == [SBOM, SIGNATURE, SBOM]
        assert [entry.annotations["number"] for entry in found] == ["1", "2", "3"]
        assert [client.manifest(ref, entry) for entry in found] == raws
        assert [entry.digest for entry in client.referrers(ref, SUBJECT, SIGNATURE)] == [digest_of(raws[1])]
        # With the API nobody keeps a list of their own beside it.
        assert set(server.repository("a/b").tags) == (set() if pages else {TAG, TAG.replace("a" * 64, "b" * 64)})


def test_the_list_under_a_tag_is_the_specified_one(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    raw = artifact(1)
    attach(client, server.host, raw, kit)
    attach(client, server.host, raw, kit)  # twice: one entry
    kind, listed = server.repository("a/b").manifests[server.repository("a/b").tags[TAG]]
    entry = {"mediaType": media_types.OCI_MANIFEST, "digest": digest_of(raw), "size": len(raw)}
    entry |= {"annotations": {"number": "1"}, "artifactType": SBOM}
    assert kind == media_types.OCI_INDEX
    assert json.loads(listed) == {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [entry]}


def test_without_a_type_of_its_own_it_has_that_of_its_config(
    server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    plain = json.loads(artifact(1))
    del plain["artifactType"]
    attach(client, server.host, json.dumps(plain).encode(), kit)
    (entry,) = client.referrers(parse_reference(f"{server.host}/a/b:1"), SUBJECT)
    assert entry.artifact_type == "application/vnd.oci.empty.v1+json"


def test_an_index_may_refer_too(server: MemoryRegistry, client: Registry) -> None:
    subject = Descriptor(media_type=media_types.OCI_MANIFEST, digest=SUBJECT, size=7)
    index = Index(schema_version=2, media_type=media_types.OCI_INDEX, artifact_type=SBOM, subject=subject)
    raw = json.dumps({**json.loads(encode_manifest(index)), "manifests": []}).encode()
    ref = parse_reference(f"{server.host}/a/b:1")
    client.push_manifest(ref._replace(tag="", digest=digest_of(raw)), raw, media_types.OCI_INDEX)
    (entry,) = client.referrers(ref, SUBJECT)
    assert (entry.media_type, entry.artifact_type) == (media_types.OCI_INDEX, SBOM)


def test_fields_that_others_wrote_stay(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    other = {"mediaType": media_types.OCI_MANIFEST, "digest": "sha256:" + "c" * 64, "size": 3, "new": {"field": 1}}
    listed = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [other], "extra": True}
    server.add_manifest("a/b", TAG, json.dumps(listed).encode(), media_types.OCI_INDEX)
    server.repository("a/b").manifests["sha256:" + "c" * 64] = (media_types.OCI_MANIFEST, b"{}")
    attach(client, server.host, artifact(1), kit)
    repository = server.repository("a/b")
    fields = json.loads(repository.manifests[repository.tags[TAG]][1])
    assert fields["manifests"][0] == other and fields["extra"] is True and len(fields["manifests"]) == 2


def test_a_tag_that_holds_an_image_is_left_alone(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image()
    kit.put_image(server, "a/b", TAG, image)
    with pytest.raises(ImageError) as caught:
        attach(client, server.host, artifact(1), kit)
    assert caught.value.hint and digest_of(image.raw) in str(caught.value.where)
    assert server.repository("a/b").tags[TAG] == digest_of(image.raw)


def test_many_at_once_are_all_listed(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    raws = [artifact(number) for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda raw: attach(client, server.host, raw, kit), raws))
    found = client.referrers(parse_reference(f"{server.host}/a/b:1"), SUBJECT)
    assert {entry.digest for entry in found} == {digest_of(raw) for raw in raws}


def test_an_entry_that_is_overwritten_is_written_again(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    # The first list is lost as if another client had overwritten it.
    server.fault(Fault(f"^PUT .*/{TAG}", reply=Reply(201)))
    attach(client, server.host, artifact(1), kit)
    assert len(client.referrers(parse_reference(f"{server.host}/a/b:1"), SUBJECT)) == 1


def test_one_that_is_always_overwritten_is_an_error(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    server.fault(Fault(f"^PUT .*/{TAG}", reply=Reply(201), times=1000))
    with pytest.raises(RegistryError) as caught:
        attach(client, server.host, artifact(1), kit)
    assert caught.value.code == "referrers" and caught.value.hint


def test_a_page_that_is_no_list_counts_as_none(server: MemoryRegistry, client: Registry) -> None:
    server.fault(Fault("/referrers/", reply=Reply(200, {"Content-Type": "text/html"}, b"<html>"), times=9))
    assert client.referrers(parse_reference(f"{server.host}/a/b:1"), SUBJECT) == ()


def test_the_list_never_continues_elsewhere(client: Registry, kit: Any) -> None:
    with MemoryRegistry(referrers=1) as server, MemoryRegistry() as elsewhere:
        for number in range(2):
            attach(client, server.host, artifact(number), kit)
        link = {"Link": f'<{elsewhere.url}/v2/a/b/referrers/{SUBJECT}>; rel="next"'}
        server.fault(Fault("GET .*/referrers/", change=lambda r: r._replace(headers={**r.headers, **link})))
        with pytest.raises(RegistryError) as caught:
            client.referrers(parse_reference(f"{server.host}/a/b:1"), SUBJECT)
        assert caught.value.code == "bad-answer" and elsewhere.requests == []


def test_a_mirror_that_knows_of_none_is_not_the_last_word(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    attach(client, server.host, artifact(1), kit)
    with MemoryRegistry() as mirror:
        rule = RegistryRule(server.host, server.host, mirrors=(Mirror(mirror.host),))
        with Registry(Network(rules=(rule,)), lambda fact: None, timing=kit.quick) as mirrored:
            ref = parse_reference(f"{server.host}/a/b:1")
            assert len(mirrored.referrers(ref, SUBJECT)) == 1
            attach(client, mirror.host, artifact(2), kit)
            (entry,) = mirrored.referrers(ref, SUBJECT)
            assert entry.digest == digest_of(artifact(2))


@pytest.mark.parametrize(
    ("digest", "tag"), [(SUBJECT, TAG), ("sha512:" + "b" * 128, "sha512-" + "b" * 64)], ids=["sha256", "sha512"]
)
def test_the_name_of_the_tag(digest: str, tag: str) -> None:
    assert referrers_tag(digest) == tag
