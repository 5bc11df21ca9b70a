"""Proxies: asked where they should be, told no more than they need."""

from __future__ import annotations

from typing import Any

import pytest

from shiplap.errors import RegistryError
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.memory import MemoryRegistry
from shiplap.settings import Network, Proxies, RegistryRule

HOST = "registry.invalid:80"
INSECURE = (RegistryRule(HOST, HOST, insecure=True),)


def test_a_proxy_is_asked_by_whole_address(server: MemoryRegistry, kit: Any) -> None:
    image = kit.make_image()
    kit.put_image(server, "a/b", "1", image)
    proxy = f"http://name:p%40ss@{server.host}"
    network = Network(rules=INSECURE, proxies=Proxies(http=proxy, https=proxy))
    with Registry(network, lambda fact: None, timing=kit.quick) as client:
        assert client.resolve(parse_reference(f"{HOST}/a/b:1"))[1] == image.raw
    seen = server.requests[-1]
    assert seen.target.startswith("http://registry.invalid") and seen.target.endswith("/v2/a/b/manifests/1")
    assert seen.headers["proxy-authorization"] == "Basic bmFtZTpwQHNz"
    assert "p%40ss" not in repr(network) and "p@ss" not in repr(network)


def test_loopback_is_not_proxied(server: MemoryRegistry, kit: Any) -> None:
    image = kit.make_image()
    ref = kit.put_image(server, "a/b", "1", image)
    network = Network(proxies=Proxies(http="http://127.0.0.1:1", https="http://127.0.0.1:1"))
    with Registry(network, lambda fact: None, timing=kit.quick) as client:
        assert client.resolve(ref)[1] == image.raw


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://", "http://[::1"])
def test_a_proxy_we_cannot_speak_to_is_named_without_its_password(proxy: str, kit: Any) -> None:
    network = Network(proxies=Proxies(https=proxy))
    with Registry(network, lambda fact: None, timing=kit.quick) as client, pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference("registry.invalid/a/b:1"))
    assert caught.value.code == "proxy" and "HTTPS_PROXY" in (caught.value.hint or "")


def test_a_dead_proxy(kit: Any) -> None:
    network = Network(proxies=Proxies(https="http://user:canary@127.0.0.1:1"))
    with Registry(network, lambda fact: None, timing=kit.quick) as client, pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference("registry.invalid/a/b:1"))
    assert caught.value.code == "proxy" and "canary" not in caught.value.render()
