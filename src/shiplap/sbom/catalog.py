"""One walk over a tree, and every package that some file of it tells of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from mmap import ACCESS_READ, mmap

from msgspec.structs import replace

from shiplap.errors import TreeError
from shiplap.sbom.distributions import Distribution, read_apk, read_dpkg, read_rpm
from shiplap.sbom.languages import GO_MAGIC, read_go, read_npm, read_python
from shiplap.sbom.package import Package
from shiplap.trees.entry import Entry
from shiplap.trees.root import find
from shiplap.trees.tree import Directory, Tree

DATABASE_LIMIT = 64 << 20
"""Bytes of a text of all packages up to which it is read."""
FILE_LIMIT = 1 << 20
"""Bytes of the description of one package, or of a release, up to which it is read."""
TOLD_LIMIT = 2000
"""Characters of a package URL over which it is none, and to which a licence is cut."""
PROGRAM_LIMIT = 1 << 30
"""Bytes of a program up to which it is looked through for Go's build information."""
_RELEASES = ("etc/os-release", "usr/lib/os-release")
_DPKG = re.compile(r"var/lib/dpkg/(?:status|status\.d/[^/]+)")
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = ("var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "usr/share/rpm/rpmdb.sqlite")
_PYTHON = re.compile(r"(?:.*/)?[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)")
_NPM = re.compile(r"(?:.*/)?node_modules/(?:@[^/]+/)?[^/]+/package\.json")
_TEXT_ENDS = (".md5sums", ".list")
_DEPTH = 512
"""Directories below each other that are walked into."""


def list_packages(tree: Tree, check: Callable[[], None] = lambda: None) -> list[Package]:
    """All packages, in order, each once. ``check`` is called in every directory. Raises what reading the tree raises."""
    distribution = Distribution()
    for path in _RELEASES:
        try:
            found = find(tree, path)
        except TreeError:
            continue  # links in a circle
        if found is not None and found.entry is not None and found.entry.is_file:
            distribution = Distribution(_text(found.parent, found.entry))
            break
    listed = {package for package in _walk(tree.root(), distribution, check, 0) if len(package.url) <= TOLD_LIMIT}
    return sorted(replace(package, license=package.license[:TOLD_LIMIT]) for package in listed)


def _walk(directory: Directory, distribution: Distribution, check: Callable[[], None], depth: int) -> Iterator[Package]:
    check()
    for entry in directory.entries():
        if entry.is_dir and depth < _DEPTH:
            with closing(directory.child(entry)) as below:
                yield from _walk(below, distribution, check, depth + 1)
        elif entry.is_file and entry.size:
            yield from _read(directory, entry, distribution)


def _read(directory: Directory, entry: Entry, distribution: Distribution) -> Iterator[Package]:
    path = directory.where(entry.name)
    if _DPKG.fullmatch(path) and not path.endswith(_TEXT_ENDS):
        yield from read_dpkg(_text(directory, entry, DATABASE_LIMIT), path, distribution)
    elif path in _APK:
        yield from read_apk(_text(directory, entry, DATABASE_LIMIT), path, distribution)
    elif path in _RPM:
        with open(directory.open_file(entry), "rb") as file:
            yield from read_rpm(file.fileno(), path, distribution)
    elif entry.name in ("METADATA", "PKG-INFO") or entry.name.endswith(".egg-info"):
        if _PYTHON.fullmatch(path):
            yield from read_python(_text(directory, entry), path)
    elif entry.name == "package.json":
        if _NPM.fullmatch(path):
            yield from read_npm(_text(directory, entry), path)
    elif entry.mode & 0o111 and len(GO_MAGIC) < entry.size <= PROGRAM_LIMIT:
        yield from read_go(_go_information(directory, entry), path)


def _text(directory: Directory, entry: Entry, limit: int = FILE_LIMIT) -> str:
    with open(directory.open_file(entry), "rb") as file:
        return file.read(limit).decode("utf-8", "replace")


def _go_information(directory: Directory, entry: Entry) -> bytes:
    """Go's build information in an ELF program, from its magic on; empty if there is none."""
    with open(directory.open_file(entry), "rb") as file:
        if file.read(4) != b"\x7fELF":
            return b""
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            at = data.find(GO_MAGIC)
            # It is aligned to 16 bytes (debug/buildinfo); a copy of the magic elsewhere is a string of Go's own tools.
            while at >= 0 and at % 16:
                at = data.find(GO_MAGIC, at + 1)
            return data[at : at + DATABASE_LIMIT] if at >= 0 else b""
