"""Proxies for our own requests."""

from __future__ import annotations

from typing import NamedTuple


class Proxies(NamedTuple):
    """Proxy addresses for our own requests, "" for none. They may hold passwords, so ``repr`` shows none of them."""

    http: str = ""
    https: str = ""
    none_for: str = ""
    all: str = ""

    def __repr__(self) -> str:
        named = [name for name in ("http", "https", "all") if getattr(self, name)]
        return f"Proxies(for={named}, none_for={self.none_for!r})"

    def proxy_for(self, scheme: str, host: str, port: int) -> str:
        """The proxy for a request, "" for none. Loopback is never proxied (as in Go's net/http)."""
        proxy = (self.https if scheme == "https" else self.http) or self.all
        if not proxy or self._excluded(host.lower().strip("[]").rstrip("."), port):
            return ""
        return proxy if "://" in proxy else "http://" + proxy

    def _excluded(self, host: str, port: int) -> bool:
        import ipaddress

        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        for entry in self.none_for.replace(",", " ").lower().split():
            if entry == "*":
                return True
            name, colon, wanted_port = entry.rpartition(":")
            if colon and wanted_port.isdigit() and ":" not in name:
                if int(wanted_port) != port:
                    continue
                entry = name
            if address is not None:
                try:
                    if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                        return True
                except ValueError:
                    continue
            elif host == entry.lstrip("*.") or host.endswith("." + entry.lstrip("*.")):
                return True
        return False
