"""Where a registry may send us, and what we leave behind on the way."""

from __future__ import annotations

from typing import Any

import pytest

from shiplap.errors import RegistryError
from shiplap.oci.manifest import Descriptor
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.settings import Credential, Network

CANARY = "canary-of-a-password"
LOGGED_IN = Network(credentials=lambda host, path: Credential("user", CANARY))


@pytest.mark.parametrize("auth", ["basic", "token"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_stay_behind(auth: str, status: int, kit: Any) -> None:
    with MemoryRegistry() as storage, MemoryRegistry(auth=auth, users={"user": CANARY}) as server:
        digest = storage.add_blob("store", b"layer data")
        place = {"Location": f"{storage.url}/v2/store/blobs/{digest}?signature=abc"}
        server.add_blob("a/b", b"layer data")
        with Registry(LOGGED_IN, lambda fact: None, timing=kit.quick) as client:
            ref = parse_reference(f"{server.host}/a/b:1")
            client.has_blob(ref, digest)
            server.fault(Fault("GET .*/blobs/", reply=Reply(status, place)))
            data = b"".join(client.open_blob(ref, Descriptor(digest=digest, size=10)))
        assert data == b"layer data"
        assert [("authorization" in seen.headers, "cookie" in seen.headers) for seen in storage.requests] == [
            (False, False)
        ]


def test_a_redirect_within_the_registry_keeps_them(kit: Any) -> None:
    with MemoryRegistry(auth="basic", users={"user": CANARY}) as server:
        digest = server.add_blob("other", b"layer data")
        with Registry(LOGGED_IN, lambda fact: None, timing=kit.quick) as client:
            server.fault(Fault("/a/b/blobs/", reply=Reply(307, {"Location": f"/v2/other/blobs/{digest}"})))
            ref = parse_reference(f"{server.host}/a/b:1")
            assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=10))) == b"layer data"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_an_upload_elsewhere_leaves_them_behind(method: str, kit: Any) -> None:
    data = b"d" * 300_000
    with MemoryRegistry() as storage, MemoryRegistry(auth="basic", users={"user": CANARY}) as server:
        storage.repository("store").uploads["abc123"] = bytearray()
        place = {"Location": f"{storage.url}/v2/store/blobs/uploads/abc123?state=x"}
        server.fault(Fault("^POST", reply=Reply(202, place)))
        if method == "PATCH":
            storage.fault(Fault("^PUT", cut_after=100_000))
        with Registry(LOGGED_IN, lambda fact: None, timing=kit.quick) as client:
            ref = parse_reference(f"{server.host}/a/b:1")
            assert client.push_blob(ref, kit.descriptor(data), kit.opener(data)) == "uploaded"
        assert storage.repository("store").blobs == {kit.descriptor(data).digest: data}
        assert storage.count(f"^{method}") >= 1
        assert not any("authorization" in seen.headers for seen in storage.requests)


def test_loops_end(server: MemoryRegistry, client: Registry) -> None:
    server.fault(Fault("", reply=Reply(302, {"Location": "/v2/a/b/manifests/1"}), times=100))
    with pytest.raises(RegistryError, match="too many redirects"):
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert len(server.requests) == 11


def test_ten_redirects_are_not_too_many(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    image = kit.make_image()
    ref = kit.put_image(server, "a/b", "1", image)
    server.fault(Fault("", reply=Reply(302, {"Location": "/v2/a/b/manifests/1"}), times=10))
    assert client.resolve(ref)[1] == image.raw


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/x",
        "http://0xa9fea9fe/x",
        "http://0.0.0.0:{port}/x",
        "http://user:pass@127.0.0.1:{port}/x",
        "http://[::1",
    ],
)
def test_places_that_are_nobodys_business(location: str, server: MemoryRegistry, client: Registry) -> None:
    location = location.replace("{port}", server.host.partition(":")[2])
    server.fault(Fault("", reply=Reply(307, {"Location": location})))
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert caught.value.code in ("bad-address", "forbidden-address")
    assert "pass" not in str(caught.value).replace("passwd", "")
    assert len(server.requests) == 1


def test_a_signed_address_that_expired_is_asked_for_again(server: MemoryRegistry, client: Registry) -> None:
    with MemoryRegistry() as storage:
        digest = server.add_blob("a/b", b"layer data")
        storage.fault(Fault("", reply=Reply(403, {}, b"Request has expired")))
        server.fault(
            Fault("GET .*/blobs/", reply=Reply(307, {"Location": f"{storage.url}/x?X-Amz-Signature=secretsig"}))
        )
        ref = parse_reference(f"{server.host}/a/b:1")
        assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=10))) == b"layer data"
        assert len(storage.requests) == 1


def test_a_signature_is_not_shown(server: MemoryRegistry, client: Registry) -> None:
    with MemoryRegistry() as storage:
        server.fault(Fault("", reply=Reply(307, {"Location": f"{storage.url}/x?X-Amz-Signature=secretsig"}), times=9))
        with pytest.raises(RegistryError) as caught:
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert storage.host in str(caught.value) and "secretsig" not in caught.value.render()
