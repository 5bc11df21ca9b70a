"""Credentials: who gets them, and that nobody else ever does."""

from __future__ import annotations

import base64
import json
import pickle
import threading
import time
import traceback
from typing import Any

import pytest

from shiplap.errors import RegistryError
from shiplap.oci.manifest import Descriptor
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.login import check_login
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.settings import Credential, Network, RegistryRule

CANARY = "canary-of-a-password"
USERS = {"user": CANARY}
LOGGED_IN = Network(credentials=lambda host, path: Credential("user", CANARY))


def client_of(kit: Any, network: Network = LOGGED_IN) -> Registry:
    return Registry(network, lambda fact: None, timing=kit.quick)


def headers_of(server: MemoryRegistry) -> str:
    return json.dumps([seen.headers for seen in server.requests] + [seen.target for seen in server.requests])


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_pull_and_push_with_a_login(auth: str, kit: Any) -> None:
    image = kit.make_image(b"layer")
    with MemoryRegistry(auth=auth, users=USERS) as server, client_of(kit) as client:
        ref = kit.put_image(server, "a/b", "1", image)
        assert client.resolve(ref)[1] == image.raw
        assert client.push_blob(ref, kit.descriptor(b"more"), kit.opener(b"more")) == "uploaded"
        assert client.tags(ref) == ["1"]
        refusals = [seen for seen in server.requests if seen.status == 401]
        assert len(refusals) == 1
        if auth == "token":
            basic = [seen for seen in server.requests if seen.headers.get("authorization", "").startswith("Basic")]
            assert all(seen.target.startswith("/token") for seen in basic)


def test_anonymous_tokens(kit: Any) -> None:
    image = kit.make_image(b"layer")
    with MemoryRegistry(auth="token", users=USERS, anonymous_pull=True) as server, client_of(kit, Network()) as client:
        ref = kit.put_image(server, "a/b", "1", image)
        assert client.resolve(ref)[1] == image.raw
        with pytest.raises(RegistryError) as caught:
            client.push_blob(ref, kit.descriptor(b"more"), kit.opener(b"more"))
        assert (caught.value.status, caught.value.code) == (401, "unauthorized")
        assert f"shiplap login {server.host}" in (caught.value.hint or "")


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_wrong_password_is_said_once_and_not_shown(auth: str, kit: Any) -> None:
    with MemoryRegistry(auth=auth, users={"user": "another"}) as server, client_of(kit) as client:
        with pytest.raises(RegistryError) as caught:
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert caught.value.status == 401
        assert len(server.requests) <= 3
        shown = caught.value.render() + repr(caught.value) + "".join(traceback.format_exception(caught.value))
        assert CANARY not in shown and base64.b64encode(f"user:{CANARY}".encode()).decode() not in shown
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_registry_that_echoes_secrets_is_not_quoted(auth: str, kit: Any) -> None:
    def echo(reply: Reply) -> Reply:
        sent = server.requests[-1].headers.get("authorization", "") if server.requests else ""
        return Reply(403, {}, f"you sent {sent} and {CANARY}".encode())

    with MemoryRegistry(auth=auth, users=USERS) as server, client_of(kit) as client:
        ref = kit.put_image(server, "a/b", "1", kit.make_image())
        client.resolve(ref)
        server.fault(Fault("/manifests/", change=echo))
        with pytest.raises(RegistryError) as caught:
            client.resolve(ref)
    secret = server.requests[-2].headers["authorization"].split()[1]
    assert "you sent" in str(caught.value)
    assert CANARY not in str(caught.value) and secret not in str(caught.value)


def test_a_token_that_expires_between_two_layers_is_renewed(kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:
        ref = kit.put_image(server, "a/b", "1", kit.make_image(b"layer"))
        client.resolve(ref)
        server.expire_tokens()
        assert client.read_blob(ref, kit.descriptor(b"layer")) == b"layer"
        assert server.count("/token") == 2


def test_a_token_that_expires_in_the_middle_of_a_blob(kit: Any) -> None:
    data = bytes(range(256)) * 8192

    def cut(reply: Reply) -> Reply:
        server.expire_tokens()
        return reply

    with MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:
        digest = server.add_blob("a/b", data)
        server.fault(Fault("GET .*/blobs/", change=lambda r: r))
        server.fault(Fault("GET .*/blobs/", change=cut, cut_after=1_500_000))
        ref = parse_reference(f"{server.host}/a/b:1")
        assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=len(data)))) == data
        assert server.count("/token") == 2
        resumed = server.requests[-1]
        assert (resumed.status, resumed.headers["range"][:6]) == (206, "bytes=")


def test_a_token_that_expires_before_an_upload_ends(kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:

        def expire(reply: Reply) -> Reply:
            server.expire_tokens()
            return reply

        server.fault(Fault("POST", change=expire))
        ref = parse_reference(f"{server.host}/a/b:1")
        data = b"z" * 3_000_000
        assert client.push_blob(ref, kit.descriptor(data), kit.opener(data)) == "uploaded"
        assert server.repository("a/b").blobs[kit.descriptor(data).digest] == data


def test_a_short_lived_token_is_renewed_before_it_is_refused(kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS, token_seconds=0.2) as server, client_of(kit) as client:
        ref = kit.put_image(server, "a/b", "1", kit.make_image(b"layer"))
        client.resolve(ref)
        time.sleep(0.15)
        client.resolve(ref)
        assert server.count("/token") == 2
        assert [seen.status for seen in server.requests].count(401) == 1


def test_threads_share_one_token(kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:
        ref = kit.put_image(server, "a/b", "1", kit.make_image(b"layer"))
        threads = [threading.Thread(target=client.resolve, args=(ref,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.count("/token") == 1


def test_identity_tokens_are_posted_never_put_in_an_address(kit: Any) -> None:
    network = Network(credentials=lambda host, path: Credential(identity_token=CANARY))
    with MemoryRegistry(auth="token") as server, client_of(kit, network) as client:
        server.identity_tokens[CANARY] = "user"
        ref = kit.put_image(server, "a/b", "1", kit.make_image(b"layer"))
        client.resolve(ref)
        assert server.count("^POST /token") == 1
        assert CANARY not in headers_of(server)


def test_a_ready_token_is_used_as_it_is(kit: Any) -> None:
    network = Network(credentials=lambda host, path: Credential(registry_token="ready-made"))
    with MemoryRegistry(auth="token") as server, client_of(kit, network) as client:
        with pytest.raises(RegistryError):
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert server.requests[1].headers["authorization"] == "Bearer ready-made"
        assert server.count("/token") == 0


@pytest.mark.parametrize(
    "realm",
    [
        "http://elsewhere.example/token",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest",
        "https://127.0.0.1:{other}/token",
        "http://127.0.0.1:{other}/token",
        "https://127.1:{other}/token",
        "https://0x7f000001:{other}/token",
        "https://2130706433:{other}/token",
        "https://localhost:{other}/token",
        "https://[::1]:{other}/token",
        "https://[::ffff:127.0.0.1]:{other}/token",
        "https://0.0.0.0:{other}/token",
        "https://[::]:{other}/token",
        "https://user:pass@127.0.0.1:{other}/token",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{other}/",
        "//127.0.0.1:{other}/token",
        "/token",
    ],
)
def test_realms_that_would_send_us_elsewhere_get_nothing(realm: str, kit: Any) -> None:
    with MemoryRegistry() as other:
        realm = realm.replace("{other}", other.host.partition(":")[2])
        with MemoryRegistry(auth="token", users=USERS, realm=realm) as server, client_of(kit) as client:
            with pytest.raises(RegistryError) as caught:
                client.resolve(parse_reference(f"{server.host}/a/b:1"))
            assert caught.value.code in ("forbidden-realm", "forbidden-address")
            assert "authorization" not in headers_of(server)
        assert other.requests == []
        assert CANARY not in caught.value.render()


def test_a_name_that_leads_to_loopback_is_seen_when_connected(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    real = socket.getaddrinfo

    def rebound(host: str, *args: Any, **kwargs: Any) -> Any:
        return real("127.0.0.1" if host == "auth.rebinding.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with MemoryRegistry() as other:
        realm = f"https://auth.rebinding.example:{other.host.partition(':')[2]}/token"
        asking = MemoryRegistry(auth="token", users=USERS, realm=realm)
        with asking as server, client_of(kit) as client, pytest.raises(RegistryError) as caught:
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert caught.value.code == "forbidden-address"
        assert other.requests == []


def test_a_realm_that_the_user_names_as_insecure_is_asked(kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS) as tokens:
        network = LOGGED_IN._replace(rules=(RegistryRule(tokens.host, tokens.host, insecure=True),))
        asking = MemoryRegistry(auth="token", users=USERS, realm=f"{tokens.url}/token")
        with asking as server, client_of(kit, network) as client, pytest.raises(RegistryError):
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert tokens.count("^GET /token") >= 1


def test_a_token_server_that_redirects_gets_no_credentials_to_pass_on(kit: Any) -> None:
    with MemoryRegistry() as other, MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:
        server.fault(Fault("/token", reply=Reply(307, {"Location": f"{other.url}/token"}), times=9))
        with pytest.raises(RegistryError) as caught:
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert caught.value.code == "forbidden-realm"
        assert other.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, {}, b"not json"),
        Reply(200, {}, b"{}"),
        Reply(200, {}, b'{"token": ""}'),
        Reply(200, {}, b'{"token": "a\\r\\nInjected: header"}'),
        Reply(200, {}, b'{"token": 7}'),
        Reply(200, {}, b"[" * 100_000),
    ],
)
def test_unusable_tokens(reply: Reply, kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:
        server.fault(Fault("/token", reply=reply, times=9))
        with pytest.raises(RegistryError) as caught:
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert caught.value.code == "token"


def test_an_endless_token_answer(kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:
        server.fault(Fault("/token", reply=Reply(200, {}, b"x" * 1000), endless=True))
        with pytest.raises(RegistryError) as caught:
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
        assert caught.value.code == "too-large"


def test_token_server_in_trouble_is_asked_again(kit: Any) -> None:
    with MemoryRegistry(auth="token", users=USERS) as server, client_of(kit) as client:
        image = kit.make_image()
        ref = kit.put_image(server, "a/b", "1", image)
        server.fault(Fault("/token", reply=Reply(503)))
        server.fault(Fault("/token", cut_after=-1))
        server.fault(Fault("/token", cut_after=5))
        assert client.resolve(ref)[1] == image.raw


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_check_login(auth: str, kit: Any) -> None:
    with MemoryRegistry(auth=auth, users=USERS) as server:
        check_login(Network(), server.host, "user", CANARY, timing=kit.quick)
        with pytest.raises(RegistryError) as caught:
            check_login(Network(), server.host, "user", "wrong-password", timing=kit.quick)
        assert caught.value.code == "login-refused"
        assert "wrong-password" not in caught.value.render()


def test_a_failing_helper_is_an_error_not_a_fallback(kit: Any) -> None:
    def broken(host: str, path: str) -> Credential | None:
        raise RegistryError("credential helper failed", code="credential-helper")

    with MemoryRegistry(auth="token", anonymous_pull=True) as server:
        ref = kit.put_image(server, "a/b", "1", kit.make_image())
        with client_of(kit, Network(credentials=broken)) as client, pytest.raises(RegistryError) as caught:
            client.resolve(ref)
        assert caught.value.code == "credential-helper"
        assert server.count("/token") == 0
