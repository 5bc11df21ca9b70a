"""Rate limits: what is said, with and without a login, and how long is waited."""

from __future__ import annotations

import time
from typing import Any

import pytest

from shiplap.errors import RegistryError
from shiplap.events.facts import Fact, Warned
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.connection import Timing
from shiplap.registry.limits import asked_wait, rate_limit, span
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.settings import Credential, Mirror, Network, RegistryRule

HUB = {
    "RateLimit-Limit": "100;w=21600",
    "RateLimit-Remaining": "0;w=21600",
    "Docker-RateLimit-Source": "203.0.113.7",
    "Retry-After": "900",
    "Content-Type": "application/json",
}
BODY = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'


def test_nobody_logged_in(server: MemoryRegistry, client: Registry) -> None:
    server.fault(Fault("/manifests/", reply=Reply(429, HUB, BODY), times=9))
    began = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert time.monotonic() - began < 1 and len(server.requests) == 1  # 15 minutes are not waited for
    assert caught.value.code == "rate-limited" and caught.value.status == 429
    assert f"the rate limit of {server.host} is reached" in str(caught.value)
    assert "(asked without a login, 100 requests in 6 hours, counted for 203.0.113.7)" in str(caught.value)
    assert "You have reached your pull rate limit." in str(caught.value)
    assert caught.value.hint == (
        f"wait 15 minutes; or log in, which often grants more: shiplap login {server.host}; "
        "or name a mirror of it in registries.conf"
    )


def test_logged_in(kit: Any) -> None:
    with MemoryRegistry(auth="token", users={"me": "geheim-geheim"}) as server:
        network = Network(credentials=lambda host, path: Credential("me", "geheim-geheim"))
        with Registry(network, lambda fact: None, timing=kit.quick) as client:
            kit.put_image(server, "a/b", "1", kit.make_image())
            client.resolve(parse_reference(f"{server.host}/a/b:1"))
            server.fault(Fault("/manifests/", reply=Reply(429, HUB, BODY), times=9))
            with pytest.raises(RegistryError) as caught:
                client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert "asked as me," in str(caught.value) and "geheim" not in caught.value.render()
    assert "log in with an account that may do more" in (caught.value.hint or "")


def test_a_limited_mirror_is_passed_by(server: MemoryRegistry, kit: Any) -> None:
    image = kit.make_image()
    ref = kit.put_image(server, "a/b", "1", image)
    with MemoryRegistry() as mirror:
        mirror.fault(Fault("", reply=Reply(429, HUB, BODY), times=9))
        rule = RegistryRule(server.host, server.host, mirrors=(Mirror(mirror.host),))
        with Registry(Network(rules=(rule,)), lambda fact: None, timing=kit.quick) as client:
            assert client.resolve(ref)[1] == image.raw
        assert len(mirror.requests) == 1


def test_a_wait_worth_it_is_kept_and_told(server: MemoryRegistry, kit: Any) -> None:
    image = kit.make_image()
    ref = kit.put_image(server, "a/b", "1", image)
    server.fault(Fault("/manifests/", reply=Reply(429, {"Retry-After": "3"}, BODY)))
    facts: list[Fact] = []
    began = time.monotonic()
    with Registry(Network(), facts.append, timing=Timing(backoff=0.001)) as client:
        assert client.resolve(ref)[1] == image.raw
    assert time.monotonic() - began >= 3
    (warned,) = facts
    assert isinstance(warned, Warned) and warned.message.endswith("trying again in 3 seconds")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7", "RateLimit-Reset": "9"}, 7),
        ({"RateLimit-Reset": "9"}, 9),
        ({"X-RateLimit-Reset": "now + 600"}, 600),
        ({"X-RateLimit-Reset": "12"}, 0),
        ({"RateLimit-Reset": "soon"}, None),
        ({}, None),
    ],
)
def test_where_the_wait_stands(headers: dict[str, str], seconds: float | None) -> None:
    # A time of day is made now: the parameters may be an old story by then.
    headers = {name: f"{time.time() + 600:.0f}" if text == "now + 600" else text for name, text in headers.items()}
    found = asked_wait(headers)
    assert found is None if seconds is None else found == pytest.approx(seconds, abs=60)


def test_what_nobody_said_is_not_made_up() -> None:
    said, hint = rate_limit({"Docker-RateLimit-Source": "a\x1b[31m b", "RateLimit-Limit": "many"}, "r.example", "")
    assert said == "the rate limit of r.example is reached (asked without a login)"
    assert hint.startswith("wait; or log in")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 second"),
        (45, "45 seconds"),
        (90, "90 seconds"),
        (60, "1 minute"),
        (900, "15 minutes"),
        (21600, "6 hours"),
        (86400, "1 day"),
        (200000, "3 days"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
