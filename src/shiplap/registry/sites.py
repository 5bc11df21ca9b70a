"""From the name of a registry to the place where it is asked: scheme, host, port."""

from __future__ import annotations

import threading

import urllib3.exceptions as wire

from shiplap.errors import RegistryError
from shiplap.oci.reference import Reference
from shiplap.registry.address import is_loopback
from shiplap.registry.authority import Site
from shiplap.registry.connection import Connections, Origin, split_url
from shiplap.settings import Endpoint, Network

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"


class Sites:
    """Where a reference is to be looked for. Remembers what it found out about insecure hosts. Thread-safe."""

    def __init__(self, network: Network, connections: Connections) -> None:
        self._network = network
        self._connections = connections
        self._insecure: dict[str, tuple[Origin, bool]] = {}
        self._lock = threading.Lock()

    def reading(self, ref: Reference, target: str) -> tuple[Site, ...]:
        """The sites to read ``target`` (tag or digest) from: mirrors in their order, then the registry itself."""
        endpoints = self._network.endpoints(ref.host, ref.path, target)
        if not endpoints:
            raise _blocked(ref)
        return tuple(self._site(endpoint) for endpoint in endpoints)

    def writing(self, ref: Reference) -> Site:
        """The site to write to, never a mirror."""
        endpoints = self._network.endpoints(ref.host, ref.path, ref.target)
        if not endpoints:
            raise _blocked(ref)
        return self._site(endpoints[-1])

    def host(self, host: str) -> Site:
        """The site of a registry as such, for a login."""
        return self._site(Endpoint(host, "", self._network.security_of(host)))

    def _site(self, endpoint: Endpoint) -> Site:
        host = HUB_HOST if endpoint.host == HUB else endpoint.host
        plain = endpoint.insecure is None and is_loopback(split_url(f"http://{host}")[0].host)
        if endpoint.insecure:
            origin, verify = self._probe(host)
        else:
            origin, verify = split_url(f"{'http' if plain else 'https'}://{host}")[0], True
        return Site(endpoint.host, endpoint.path, origin, verify, endpoint.mirror)

    def _probe(self, host: str) -> tuple[Origin, bool]:
        # insecure = true: https with any certificate, and plain http where nobody speaks https.
        with self._lock:
            if host not in self._insecure:
                secure = split_url(f"https://{host}")[0]
                try:
                    with self._connections.exchange("GET", f"https://{host}/v2/", {}, verify=False):
                        pass
                    self._insecure[host] = (secure, False)
                except (wire.HTTPError, OSError):
                    self._insecure[host] = (split_url(f"http://{host}")[0], True)
            return self._insecure[host]


def _blocked(ref: Reference) -> RegistryError:
    return RegistryError(
        f"{ref.familiar()} is blocked by registries.conf",
        code="blocked",
        hint="the rule with blocked = true that matches it would have to go",
    )
