"""Packages of programming languages, as their installers write them down: Python, npm, Go."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from shiplap.oci.purl import package_url
from shiplap.sbom.package import Package

GO_MAGIC = b"\xff Go buildinf:"
_GO_STRINGS = 2
"""Flag: version and modules stand behind the header (Go 1.18 and newer; debug/buildinfo)."""
_GO_HEADER = 32
_GO_FRAME = 16
_GO_LIMIT = 4 << 20


def read_python(text: str, path: str) -> Iterator[Package]:
    """``METADATA`` of a ``.dist-info`` or ``PKG-INFO`` of an ``.egg-info`` (core metadata specification)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line:
            break
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields.setdefault(key.lower(), value.strip())
    name, version = fields.get("name", ""), fields.get("version", "")
    if name and version:
        normal = re.sub(r"[-_.]+", "-", name).lower()
        told = fields.get("license-expression") or fields.get("license", "")
        yield Package(name, version, package_url("pypi", normal, version), path, told)


def read_npm(text: str, path: str) -> Iterator[Package]:
    """``package.json`` of an installed module."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    told = (fields.get(key) for key in ("name", "version", "license"))
    # JSON may escape one half of a surrogate pair, which is no character and cannot be written down.
    name, version, license = (
        text.encode("utf-8", "replace").decode() if isinstance(text, str) else "" for text in told
    )
    if name and version:
        yield Package(name, version, package_url("npm", name, version), path, license)


def read_go(data: bytes, path: str) -> Iterator[Package]:
    """The modules in a Go program; ``data`` begins with the magic of its build information."""
    if len(data) < _GO_HEADER or not data[15] & _GO_STRINGS:
        return
    version, rest = _go_string(data, _GO_HEADER)
    modules, _ = _go_string(data, rest)
    if version.startswith(b"go"):
        number = version[2:].decode("ascii", "replace").partition(" ")[0]
        yield Package("stdlib", number, package_url("golang", "stdlib", number), path)
    if len(modules) > 2 * _GO_FRAME:
        modules = modules[_GO_FRAME:-_GO_FRAME]
    found: list[list[str]] = []
    for line in modules.decode("utf-8", "replace").splitlines():
        parts = line.split("\t")
        if parts[0] in ("mod", "dep") and len(parts) >= 3:
            found.append(parts)
        elif parts[0] == "=>" and found and len(parts) >= 3:
            found[-1] = ["dep", *parts[1:]]  # what replaces it is what is inside
    for parts in found:
        name, number = parts[1], parts[2]
        if number and number != "(devel)":
            yield Package(name, number, package_url("golang", name, number), path)


def _go_string(data: bytes, at: int) -> tuple[bytes, int]:
    """A string with its length (a varint) before it, and where it ends."""
    size = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    if size > _GO_LIMIT or at + size > len(data):
        return b"", len(data)
    return data[at : at + size], at + size
