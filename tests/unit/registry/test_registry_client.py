"""Resolving and reading: what is verified, and what a lying registry gets."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from typing import Any

import pytest

from shiplap.errors import ImageError, RegistryError, ShiplapError
from shiplap.events.facts import Progress
from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.settings import Mirror, Network, RegistryRule

BAD_DIGESTS = [
    "sha256:../../../x",
    "",
    "sha256:",
    "sha256:" + "A" * 64,
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "md5:" + "a" * 32,
    "sha512:" + "a" * 64,
    "SHA256:" + "a" * 64,
    "sha256:" + "a" * 63 + "/",
    "sha256:" + "a" * 64 + "\n",
    "a" * 64,
]


def test_resolve_by_tag_and_by_digest(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(b"layer")
    ref = kit.put_image(server, "a/b", "1", image)
    descriptor, raw = client.resolve(ref)
    assert (raw, descriptor.digest, descriptor.size) == (image.raw, image.digest, len(image.raw))
    assert descriptor.media_type == media_types.OCI_MANIFEST
    assert client.resolve(ref._replace(tag="", digest=image.digest)) == (descriptor, raw)
    request = server.requests[-1]
    assert media_types.DOCKER_INDEX in request.headers["accept"]
    assert request.headers["user-agent"].startswith("shiplap/")
    assert "authorization" not in request.headers


def test_resolve_asks_with_head_when_the_bytes_are_at_home(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(b"layer")
    ref = kit.put_image(server, "a/b", "1", image)
    _, raw = client.resolve(ref, {image.digest: image.raw}.get)
    assert raw == image.raw
    assert (server.count("^HEAD"), server.count("^GET")) == (1, 0)
    assert client.resolve(ref, lambda digest: None)[1] == image.raw
    assert client.resolve(ref, lambda digest: b"damaged at home")[1] == image.raw


def test_a_manifest_with_another_digest_is_refused(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image, other = kit.make_image(b"layer"), kit.make_image(b"other")
    ref = kit.put_image(server, "a/b", "1", image)
    reply = Reply(200, {"Content-Type": media_types.OCI_MANIFEST}, other.raw)
    server.fault(Fault("GET .*/manifests/", reply=reply, times=2))
    with pytest.raises(RegistryError) as caught:
        client.resolve(ref._replace(digest=image.digest))
    assert caught.value.code == "digest-mismatch"
    assert image.digest in str(caught.value) and other.digest in str(caught.value)


@pytest.mark.parametrize(
    "said", [digest for digest in BAD_DIGESTS if digest and "\n" not in digest] + ["sha256:" + "0" * 64]
)
def test_a_wrong_docker_content_digest_is_refused(
    said: str, server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    ref = kit.put_image(server, "a/b", "1", kit.make_image())
    server.fault(
        Fault("/manifests/", change=lambda r: r._replace(headers={**r.headers, "Docker-Content-Digest": said}), times=2)
    )
    with pytest.raises(RegistryError) as caught:
        client.resolve(ref)
    assert caught.value.code == "digest-mismatch"


def test_damage_on_the_way_is_asked_for_again(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(b"layer")
    ref = kit.put_image(server, "a/b", "1", image)

    def damaged(reply: Reply) -> Reply:
        return reply._replace(body=reply.body[:-1] + b"?")

    for what in ("/manifests/", "/blobs/"):
        server.fault(Fault(f"GET .*{what}", change=damaged))
    assert client.resolve(ref)[1] == image.raw
    assert client.read_blob(ref, image.manifest.config) == image.config


@pytest.mark.parametrize("digest", BAD_DIGESTS)
@pytest.mark.parametrize("place", ["layer", "config", "entry", "blob", "manifest"])
def test_malformed_digests_make_no_request(digest: str, place: str, server: MemoryRegistry, client: Registry) -> None:
    good = {"mediaType": media_types.OCI_LAYER, "digest": "sha256:" + "a" * 64, "size": 1}
    bad = {**good, "digest": digest}
    ref = parse_reference(f"{server.host}/a/b:1")
    fields: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": good,
        "layers": [bad],
    }
    if place == "config":
        fields |= {"config": bad, "layers": [good]}
    elif place == "entry":
        fields = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [bad]}
    server.add_manifest("a/b", "1", json.dumps(fields).encode(), fields["mediaType"])
    with pytest.raises(ShiplapError) as caught:
        if place == "blob":
            client.open_blob(ref, Descriptor(digest=digest, size=1))
        elif place == "manifest":
            client.manifest(ref, Descriptor(digest=digest, size=1))
        else:
            client.resolve(ref)
    assert caught.value.code == "invalid-digest"
    assert server.count("blobs|manifests/sha|manifests/md5|passwd") == 0


def test_ambiguous_manifests_are_refused(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(b"x")
    fields = json.loads(image.raw)
    both = json.dumps({**fields, "manifests": []}).encode()
    server.add_manifest("a/b", "both", both, media_types.OCI_MANIFEST)
    server.add_manifest("a/b", "header", image.raw, media_types.OCI_INDEX)
    for tag in ("both", "header"):
        with pytest.raises(ImageError) as caught:
            client.resolve(parse_reference(f"{server.host}/a/b:{tag}"))
        assert caught.value.code == "ambiguous-manifest"


def test_child_of_another_type_or_size_than_its_index_says(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image(b"x")
    ref = kit.put_image(server, "a/b", "1", image)
    right = Descriptor(media_type=media_types.OCI_MANIFEST, digest=image.digest, size=len(image.raw))
    assert client.manifest(ref, right) == image.raw
    with pytest.raises(RegistryError, match="its index says 3"):
        client.manifest(ref, Descriptor(media_type=right.media_type, digest=right.digest, size=3))
    with pytest.raises(ImageError, match="its index says"):
        client.manifest(ref, Descriptor(media_type=media_types.DOCKER_INDEX, digest=right.digest, size=right.size))


def test_a_manifest_that_nobody_types_is_typed_by_its_content(
    server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    fields = json.loads(kit.make_image(b"x").raw)
    del fields["mediaType"]
    server.add_manifest("a/b", "1", json.dumps(fields).encode(), "text/plain")
    descriptor, _ = client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert descriptor.media_type == media_types.OCI_MANIFEST


@pytest.mark.parametrize("what", ["manifest", "blob", "error", "tags"])
def test_endless_bodies_are_cut_off(what: str, server: MemoryRegistry, client: Registry) -> None:
    ref = parse_reference(f"{server.host}/a/b:1")
    status = 404 if what == "error" else 200
    server.fault(Fault("GET", reply=Reply(status, {"Content-Type": "application/json"}, b"[" * 1000), endless=True))
    with pytest.raises(ShiplapError) as caught:
        if what == "blob":
            list(client.open_blob(ref, Descriptor(digest="sha256:" + "a" * 64, size=100_000)))
        elif what == "tags":
            client.tags(ref)
        else:
            client.resolve(ref)
    wanted = {"manifest": "manifest-too-large", "blob": "size-mismatch", "error": "not-found", "tags": "too-large"}
    assert caught.value.code == wanted[what]
    assert len(str(caught.value)) < 1000


def test_blob_is_streamed_and_reported(server: MemoryRegistry, kit: Any) -> None:
    facts: list[Progress] = []
    data = os.urandom((3 << 20) + 17)
    digest = server.add_blob("a/b", data)
    ref = parse_reference(f"{server.host}/a/b:1")
    with Registry(Network(), facts.append, timing=kit.quick) as client:
        chunks = list(client.open_blob(ref, Descriptor(digest=digest, size=len(data)), step="s"))
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= 1 << 20
    assert (facts[-1].step, facts[-1].item, facts[-1].current, facts[-1].total) == ("s", digest, len(data), len(data))
    assert facts[-1].done


def test_an_empty_blob(server: MemoryRegistry, client: Registry) -> None:
    digest = server.add_blob("a/b", b"")
    assert list(client.open_blob(parse_reference(f"{server.host}/a/b:1"), Descriptor(digest=digest, size=0))) == []


def test_sha512_blob(server: MemoryRegistry, client: Registry) -> None:
    digest = "sha512:" + hashlib.sha512(b"data").hexdigest()
    server.repository("a/b").blobs[digest] = b"data"
    ref = parse_reference(f"{server.host}/a/b:1")
    assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=4))) == b"data"
    server.repository("a/b").blobs[digest] = b"dato"
    with pytest.raises(RegistryError, match="has the digest sha512:"):
        list(client.open_blob(ref, Descriptor(digest=digest, size=4)))


def test_a_damaged_blob_never_gives_its_last_chunk(server: MemoryRegistry, client: Registry) -> None:
    data = os.urandom(2 << 20)
    digest = server.add_blob("a/b", data)
    server.repository("a/b").blobs[digest] = data[:-1] + bytes([data[-1] ^ 1])
    got = bytearray()
    with pytest.raises(RegistryError) as caught:
        for chunk in client.open_blob(
            parse_reference(f"{server.host}/a/b:1"), Descriptor(digest=digest, size=len(data))
        ):
            got += chunk
    assert caught.value.code == "digest-mismatch"
    assert digest in str(caught.value) and len(got) < len(data)


@pytest.mark.parametrize("difference", [-1, 1])
def test_blob_of_another_size(difference: int, server: MemoryRegistry, client: Registry) -> None:
    data = b"0123456789"
    digest = server.add_blob("a/b", data)
    descriptor = Descriptor(digest=digest, size=len(data) + difference)
    with pytest.raises(RegistryError) as caught:
        list(client.open_blob(parse_reference(f"{server.host}/a/b:1"), descriptor))
    assert caught.value.code in ("size-mismatch", "blob-truncated", "refused")


def test_a_blob_that_comes_gzipped_is_named_as_that(server: MemoryRegistry, client: Registry) -> None:
    data = b"x" * 5000
    digest = server.add_blob("a/b", data)
    packed = gzip.compress(data)
    packed += b"\0" * (len(data) - len(packed))
    server.fault(Fault("/blobs/", reply=Reply(200, {"Content-Encoding": "gzip"}, packed)))
    with pytest.raises(RegistryError, match="Content-Encoding gzip"):
        list(client.open_blob(parse_reference(f"{server.host}/a/b:1"), Descriptor(digest=digest, size=len(data))))
    assert server.requests[-1].headers["accept-encoding"] == "identity"


def test_a_gzip_layer_mislabelled_as_encoded_is_taken_as_it_is(server: MemoryRegistry, client: Registry) -> None:
    data = gzip.compress(b"layer")
    digest = server.add_blob("a/b", data)
    server.fault(Fault("/blobs/", change=lambda r: r._replace(headers={**r.headers, "Content-Encoding": "gzip"})))
    ref = parse_reference(f"{server.host}/a/b:1")
    assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=len(data)))) == data


def test_foreign_urls_are_never_followed(server: MemoryRegistry, client: Registry) -> None:
    with MemoryRegistry() as elsewhere:
        digest = elsewhere.add_blob("x", b"foreign")
        descriptor = Descriptor(digest=digest, size=7, urls=(f"{elsewhere.url}/v2/x/blobs/{digest}",))
        with pytest.raises(RegistryError, match="404"):
            list(client.open_blob(parse_reference(f"{server.host}/a/b:1"), descriptor))
        assert elsewhere.requests == []


def test_config_over_its_limit_is_not_asked_for(server: MemoryRegistry, client: Registry) -> None:
    descriptor = Descriptor(digest="sha256:" + "a" * 64, size=1 << 40)
    with pytest.raises(ImageError, match="over the limit"):
        client.read_blob(parse_reference(f"{server.host}/a/b:1"), descriptor)
    assert server.requests == []


def test_tags_over_pages(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image()
    for number in range(7):
        kit.put_image(server, "a/b", f"t{number}", image)
    first = {"Link": '</v2/a/b/tags/list?n=3&last=t2>; rel="next"', "Content-Type": "application/json"}
    server.fault(Fault("tags/list", reply=Reply(200, first, b'{"tags":["t0","sha256:0","t1","t2"]}')))
    assert client.tags(parse_reference(f"{server.host}/a/b")) == [f"t{number}" for number in range(7)]


def test_tags_never_continue_elsewhere(server: MemoryRegistry, client: Registry) -> None:
    with MemoryRegistry() as elsewhere:
        headers = {"Link": f'<{elsewhere.url}/v2/a/b/tags/list>; rel="next"'}
        server.fault(Fault("tags/list", reply=Reply(200, headers, b'{"tags":["a"]}')))
        with pytest.raises(RegistryError, match="another host"):
            client.tags(parse_reference(f"{server.host}/a/b"))
        assert elsewhere.requests == []


def test_mirrors_are_tried_in_order_and_fallen_through(server: MemoryRegistry, kit: Any) -> None:
    image = kit.make_image(b"layer data")
    ref = kit.put_image(server, "team/app", "1", image)
    with MemoryRegistry() as empty, MemoryRegistry() as lying:
        lying.add_manifest("cache/team/app", "1", b"{}", media_types.OCI_MANIFEST)
        lying.repository("cache/team/app").blobs[digest_of(b"layer data")] = b"longer than it should be"
        mirrors = (Mirror("127.0.0.1:1"), Mirror(empty.host), Mirror(f"{lying.host}/cache"))
        rule = RegistryRule(server.host, server.host, mirrors=mirrors)
        with Registry(Network(rules=(rule,)), lambda fact: None, timing=kit.quick) as client:
            assert client.resolve(ref)[1] == image.raw
            assert b"".join(client.open_blob(ref, image.manifest.layers[0])) == b"layer data"
            assert client.push_blob(ref, kit.descriptor(b"new"), kit.opener(b"new")) == "uploaded"
        assert empty.count("GET /v2/team/app/manifests/1") == 1
        assert lying.count("GET /v2/cache/team/app/") == 2
        assert empty.count("POST|PUT") + lying.count("POST|PUT") == 0


def test_a_blocked_registry_is_not_asked(server: MemoryRegistry, kit: Any) -> None:
    rule = RegistryRule(server.host, server.host, blocked=True)
    client = Registry(Network(rules=(rule,)), lambda fact: None, timing=kit.quick)
    with client, pytest.raises(RegistryError, match=r"blocked by registries\.conf"):
        client.resolve(parse_reference(f"{server.host}/a"))
    assert server.requests == []


def test_errors_say_what_the_registry_said(server: MemoryRegistry, client: Registry) -> None:
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:none"))
    error = caught.value
    assert (error.status, error.code) == (404, "manifest-unknown")
    assert "MANIFEST_UNKNOWN: manifest unknown" in str(error) and "/v2/a/b/manifests/none" in str(error)
    assert error.hint is not None and "tag" in error.hint


def test_control_characters_of_an_error_body_are_taken_out(server: MemoryRegistry, client: Registry) -> None:
    server.fault(Fault("manifests", reply=Reply(403, {}, b"bad \x1b[31mred\x1b]0;title\x07\r\n" + b"y" * 5000)))
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert "\x1b" not in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_nobody_listening(client: Registry) -> None:
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference("127.0.0.1:1/a/b:1"))
    assert caught.value.code == "connection-refused"
    assert "127.0.0.1:1" in str(caught.value) and caught.value.status == 0
