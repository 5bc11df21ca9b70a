"""EXPOSE: ``[address:][host:]container[-end][/protocol]`` to ``port/protocol`` (reference 2.10)."""

from __future__ import annotations

import re

import msgspec

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import quote

_FORM = "write 80, 53/udp or 8000-8010"
PORTS_LIMIT = 1 << 18
"""Most ports of one EXPOSE, duplicates counted."""


class PortSpec(msgspec.Struct, frozen=True):
    """One word of EXPOSE: its ports, and what the checks want to know."""

    ports: tuple[str, ...]
    odd_case: bool
    mapped: bool
    """It names a host address or port, which EXPOSE has no use for."""


def parse_port(word: str) -> PortSpec:
    """Raises Fault in BuildKit's words."""
    parts = word.split(":")
    address = ":".join(parts[:-2])
    host = parts[-2] if len(parts) > 1 else ""
    container, _, typed = parts[-1].partition("/")
    protocol = typed.lower() or "tcp"
    if not container:
        raise Fault(f"invalid port: {quote(word)}: no port specified", code="invalid-port", hint=_FORM, at=word)
    if protocol not in ("tcp", "udp", "sctp"):
        raise Fault(
            f"invalid port: {quote(word)}: invalid proto: {typed}",
            code="invalid-port",
            hint="one of tcp, udp, sctp",
            at=word,
        )
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if bare and not _is_address(bare):
        raise Fault(f"invalid IP address: {bare}", code="invalid-port", hint=_FORM, at=word)
    span = _range(container)
    if span is None:
        raise Fault(f"invalid containerPort: {container}", code="invalid-port", hint="0 to 65535", at=word)
    if host:
        host_span = _range(host)
        if host_span is None:
            raise Fault(f"invalid hostPort: {host}", code="invalid-port", hint=_FORM, at=word)
        if len(host_span) != len(span) and len(span) > 1:
            raise Fault(
                f"invalid ranges specified for container and host Ports: {container} and {host}",
                code="invalid-port",
                hint="both ranges have to be of one length",
                at=word,
            )
    ports = tuple(f"{number}/{protocol}" for number in span)
    return PortSpec(ports, odd_case=bool(typed) and typed != protocol, mapped=bool(address or host))


def _range(text: str) -> range | None:
    start, dash, end = text.partition("-")
    first = _number(start)
    last = _number(end) if dash else first
    if first is None or last is None or last < first:
        return None
    return range(first, last + 1)


def _number(text: str) -> int | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        return None
    value = int(text)
    return value if 0 <= value <= 65535 else None


def _is_address(text: str) -> bool:
    import ipaddress  # rarely needed, and slow to import

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
