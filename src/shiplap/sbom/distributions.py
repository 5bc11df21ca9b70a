"""Databases of distributions' packages: dpkg, apk, rpm. Text from an image: read with care, never trusted."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing

from shiplap.oci.purl import package_url
from shiplap.sbom.package import Package

_NAME_LIMIT = 100
_RPM_TAGS = {1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1014: "license", 1022: "arch"}
_RPM_HEADER_LIMIT = 256 << 20
"""Bytes of a header, as rpm has it (lib/header.cc)."""
_SQLITE_STEPS, _SQLITE_LOOKS = 100_000, 2000
"""Instructions of sqlite between two looks, and looks until it is enough: some seconds."""
_RPM_INT32, _RPM_STRINGS = 4, (6, 8, 9)


class Distribution:
    """What os-release(5) says: its id and version."""

    def __init__(self, text: str = "") -> None:
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        self.id = fields.get("ID", "").strip("\"' ")[:_NAME_LIMIT] or "linux"
        self.version = fields.get("VERSION_ID", "").strip("\"' ")[:_NAME_LIMIT]

    @property
    def name(self) -> str:
        return f"{self.id}-{self.version}" if self.version else self.id


def read_dpkg(text: str, path: str, distribution: Distribution) -> Iterator[Package]:
    """Installed packages of ``/var/lib/dpkg/status``, or of a file of ``status.d`` (deb-control(5))."""
    for block in text.split("\n\n"):
        fields = _fields(block, ": ")
        name, version = fields.get("Package", ""), fields.get("Version", "")
        status = fields.get("Status", "installed").split()[-1:]
        if (
            not name
            or not version
            or not status
            or status[0] not in ("installed", "triggers-pending", "triggers-awaited")
        ):
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


def read_rpm(fd: int, path: str, distribution: Distribution) -> Iterator[Package]:
    """Packages of ``rpmdb.sqlite`` (rpm 4.16 and newer), the open file ``fd``, whose rows are the headers of RPM files."""
    try:
        for blob in _rpm_rows(fd):
            fields = _rpm_header(blob)
            name, version = fields.get("name", ""), fields.get("version", "")
            if not name or not version or name == "gpg-pubkey":
                continue
            full = f"{version}-{fields['release']}" if fields.get("release") else version
            qualifiers = {"arch": fields.get("arch", ""), "epoch": fields.get("epoch", ""), "distro": distribution.name}
            url = package_url("rpm", f"{distribution.id}/{name}", full, qualifiers)
            yield Package(name, full, url, path, fields.get("license", ""))
    except _sqlite_errors():
        return  # Berkeley DB and ndb, of older and of SUSE's rpm, are not read


def _sqlite_errors() -> tuple[type[Exception], ...]:
    import sqlite3

    return (sqlite3.Error, MemoryError)


def _rpm_rows(fd: int) -> Iterator[bytes]:
    """Headers, as long as a real database could hold more: a view or computed column may give rows without end.

    The file is read where it is (rpm leaves it in WAL mode, which ``deserialize`` refuses), and as immutable: without
    locks, and without a journal beside it.
    """
    import sqlite3

    left = os.fstat(fd).st_size
    looks = iter(range(_SQLITE_LOOKS))
    with closing(sqlite3.connect(f"file:/proc/self/fd/{fd}?mode=ro&immutable=1", uri=True)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _RPM_HEADER_LIMIT)
        database.set_progress_handler(lambda: next(looks, None) is None, _SQLITE_STEPS)
        database.execute("PRAGMA trusted_schema=OFF")
        database.execute("PRAGMA temp_store=MEMORY")
        for (blob,) in database.execute("SELECT blob FROM Packages"):
            left -= len(blob or b"")
            if left < 0:
                return
            if isinstance(blob, bytes):
                yield blob


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
