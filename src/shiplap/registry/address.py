"""How far an address reaches, whatever its spelling: what keeps a registry from sending us to our own machine."""

from __future__ import annotations

import ipaddress
import socket
from enum import IntEnum


class Reach(IntEnum):
    """The higher, the closer to us. A host may send us to one that is no closer than itself; never to LINK."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    LINK = 3
    """Link-local (cloud metadata), unspecified, multicast: no registry's business."""


def reach_of(address: str) -> Reach:
    """The reach of a numeric address, as ``getpeername`` gives it. IPv4 hidden in IPv6 is taken out first."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or ip.sixtofour
        if hidden is None and ip in _NAT64:
            hidden = ipaddress.IPv4Address(ip.packed[-4:])
        ip = hidden or ip
    if ip.is_loopback:
        return Reach.LOOPBACK
    if ip.is_link_local or ip.is_unspecified or ip.is_multicast:
        return Reach.LINK
    return Reach.PUBLIC if ip.is_global else Reach.PRIVATE


def literal_reach(host: str) -> Reach | None:
    """The reach of a host that is a number in any spelling of the C library (``0x7f000001``, ``127.1``), else None."""
    plain = host.strip("[]").rstrip(".").lower()
    if plain == "localhost" or plain.endswith(".localhost"):
        return Reach.LOOPBACK
    try:
        return reach_of(plain)
    except ValueError:
        pass
    try:
        return reach_of(socket.inet_ntoa(socket.inet_aton(plain)))
    except (OSError, ValueError, UnicodeError):
        return None


def is_loopback(host: str) -> bool:
    """True for localhost, 127.0.0.0/8 and ::1 plainly written, where docker takes plain http for granted."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
