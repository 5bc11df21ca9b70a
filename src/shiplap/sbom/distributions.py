"""Databases of distributions' packages: dpkg, apk, rpm. Text from an image: read with care, never trusted."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from shiplap.sbom.package import Package, package_url

_RPM_TAGS = {1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1014: "license", 1022: "arch"}
_SQLITE = b"SQLite format 3\0"
_RPM_INT32, _RPM_STRINGS = 4, (6, 8, 9)


class Distribution:
    """What os-release(5) says: its id and version."""

    def __init__(self, text: str = "") -> None:
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        self.id = fields.get("ID", "linux").strip("\"' ") or "linux"
        self.version = fields.get("VERSION_ID", "").strip("\"' ")

    @property
    def name(self) -> str:
        return f"{self.id}-{self.version}" if self.version else self.id


def read_dpkg(text: str, path: str, distribution: Distribution) -> Iterator[Package]:
    """Installed packages of ``/var/lib/dpkg/status``, or of a file of ``status.d`` (deb-control(5))."""
    for block in text.split("\n\n"):
        fields = _fields(block, ": ")
        name, version = fields.get("Package", ""), fields.get("Version", "")
        status = fields.get("Status", "install ok installed").split()
        if not name or not version or status[-1] not in ("installed", "triggers-pending", "triggers-awaited"):
            continue
        source = fields.get("Source", "").partition(" ")[0]
        qualifiers = {"arch": fields.get("Architecture", ""), "distro": distribution.name}
        if source and source != name:
            qualifiers["upstream"] = source
        yield Package(name, version, package_url("deb", f"{distribution.id}/{name}", version, qualifiers), path)


def read_apk(text: str, path: str, distribution: Distribution) -> Iterator[Package]:
    """Packages of ``/lib/apk/db/installed`` (one letter a field)."""
    for block in text.split("\n\n"):
        fields = _fields(block, ":")
        name, version = fields.get("P", ""), fields.get("V", "")
        if name and version:
            qualifiers = {"arch": fields.get("A", ""), "distro": distribution.name}
            url = package_url("apk", f"{distribution.id}/{name}", version, qualifiers)
            yield Package(name, version, url, path, fields.get("L", ""))


def _fields(block: str, separator: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in block.splitlines():
        key, found, value = line.partition(separator)
        if found and not line.startswith((" ", "\t")):
            fields.setdefault(key, value.strip())
    return fields


def read_rpm(data: bytes, path: str, distribution: Distribution) -> Iterator[Package]:
    """Packages of ``rpmdb.sqlite`` (rpm 4.16 and newer), whose rows are the headers of RPM files."""
    import sqlite3

    if not data.startswith(_SQLITE):
        return  # Berkeley DB and ndb, of older and of SUSE's rpm, are not read
    database = sqlite3.connect(":memory:")
    try:
        database.deserialize(data)
        rows = database.execute("SELECT blob FROM Packages ORDER BY hnum").fetchall()
    except (sqlite3.Error, MemoryError):  # the latter is what deserialize makes of a file cut short
        return
    finally:
        database.close()
    for (blob,) in rows:
        fields = _rpm_header(blob) if isinstance(blob, bytes) else {}
        name, version = fields.get("name", ""), fields.get("version", "")
        if not name or not version or name == "gpg-pubkey":
            continue
        full = f"{version}-{fields['release']}" if fields.get("release") else version
        qualifiers = {"arch": fields.get("arch", ""), "epoch": fields.get("epoch", ""), "distro": distribution.name}
        url = package_url("rpm", f"{distribution.id}/{name}", full, qualifiers)
        yield Package(name, full, url, path, fields.get("license", ""))


def _rpm_header(blob: bytes) -> dict[str, str]:
    """The fields of a header (rpm's doc/manual/hregions): an index of tag, type, offset and count, then the data."""
    found: dict[str, str] = {}
    try:
        entries, size = struct.unpack_from(">II", blob)
        start = 8 + 16 * entries
        if start + size > len(blob):
            return found
        for number in range(entries):
            tag, kind, offset, _ = struct.unpack_from(">IIiI", blob, 8 + 16 * number)
            name = _RPM_TAGS.get(tag)
            if name is None or offset < 0 or offset >= size:
                continue
            if kind == _RPM_INT32:
                found[name] = str(struct.unpack_from(">I", blob, start + offset)[0])
            elif kind in _RPM_STRINGS:
                end = blob.find(b"\0", start + offset)
                found[name] = blob[start + offset : max(end, start + offset)].decode("utf-8", "replace")
    except struct.error:
        return {}
    return found
