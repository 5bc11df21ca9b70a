"""What a tree's packages are; the referees are those who installed them: dpkg-query, importlib.metadata, go version -m."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sqlite3
import struct
import subprocess
import sysconfig
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from shiplap.oci.manifest import encode_json
from shiplap.oci.platform import parse_platform
from shiplap.sbom.catalog import list_packages
from shiplap.sbom.distributions import Distribution, read_dpkg, read_rpm
from shiplap.sbom.languages import read_go, read_npm, read_python
from shiplap.sbom.package import Package
from shiplap.sbom.spdx import PREDICATE, document
from shiplap.trees.tree import Tree

AMD = parse_platform("linux/amd64")
DEBIAN = 'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\n'


def put(root: Path, path: str, text: str | bytes, mode: int = 0o644) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)


def packages(root: Path) -> list[Package]:
    with Tree((str(root),)) as tree:
        return list_packages(tree)


def urls(root: Path) -> list[str]:
    return [package.url for package in packages(root)]


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="needs dpkg")
def test_dpkg_agrees_with_dpkg_query(tmp_path: Path) -> None:
    put(tmp_path, "etc/os-release", DEBIAN)
    put(tmp_path, "var/lib/dpkg/status", Path("/var/lib/dpkg/status").read_bytes())
    said = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\\n"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    installed = sorted(tuple(line.split()[1:]) for line in said.splitlines() if line.startswith("installed "))
    assert sorted((package.name, package.version) for package in packages(tmp_path)) == installed
    assert len(installed) > 50


def test_python_agrees_with_importlib(tmp_path: Path) -> None:
    there = Path(sysconfig.get_paths()["purelib"])
    for file in there.glob("*.dist-info/METADATA"):
        put(tmp_path, f"usr/lib/python3/{file.parent.name}/METADATA", file.read_bytes())
    known = {(d.metadata["Name"], d.version) for d in importlib.metadata.distributions(path=[str(there)])}
    assert {(package.name, package.version) for package in packages(tmp_path)} == known
    assert "pkg:pypi/pytest@" in " ".join(urls(tmp_path))


def test_go_programs_name_their_modules(tmp_path: Path) -> None:
    text = b"\x30w\xaf\x0c\x92t\x08\x02A\xe1\xc1\x07\xe6\xd6\x18\xe6" + (
        b"path\texample.com/app\nmod\texample.com/app\t(devel)\t\n"
        b"dep\tgolang.org/x/sys\tv0.1.0\th1:x=\ndep\tgithub.com/a/b\tv1.2.3\n=>\tgithub.com/c/d\tv1.2.4\th1:y=\n"
    ) + b"\xf92C1\x86\x18 r\x00\x82B\x10A\x16\xd8\xf2"  # fmt: skip
    version = b"go1.27.3"
    size = bytes([len(text) & 0x7F | 0x80, len(text) >> 7])
    information = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + bytes([len(version)]) + version + size + text
    put(tmp_path, "bin/app", b"\x7fELF".ljust(64, b"\0") + information, 0o755)
    put(tmp_path, "bin/not-executable", b"\x7fELF".ljust(64, b"\0") + information)
    assert urls(tmp_path) == [
        "pkg:golang/github.com/c/d@v1.2.4",
        "pkg:golang/golang.org/x/sys@v0.1.0",
        "pkg:golang/stdlib@1.27.3",
    ]


def test_apk_npm_and_distroless(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/os-release", "ID=alpine\nVERSION_ID=3.20\n")
    put(
        tmp_path,
        "lib/apk/db/installed",
        "P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nF:lib\nR:libc.so\n\nP:zlib\nV:1.3.1-r1\n\n",
    )
    put(tmp_path, "app/node_modules/@scope/x/package.json", json.dumps({"name": "@scope/x", "version": "1.0.0"}))
    put(tmp_path, "app/node_modules/y/package.json", json.dumps({"name": "y", "version": "2.0.0", "license": "MIT"}))
    put(tmp_path, "app/package.json", json.dumps({"name": "app", "version": "0.0.1"}))
    put(tmp_path, "var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n")
    put(tmp_path, "var/lib/dpkg/status.d/base.md5sums", "Package: no\nVersion: no\n")
    assert urls(tmp_path) == [
        "pkg:npm/%40scope/x@1.0.0",
        "pkg:deb/alpine/base-files@12.4?arch=amd64&distro=alpine-3.20",
        "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20",
        "pkg:npm/y@2.0.0",
        "pkg:apk/alpine/zlib@1.3.1-r1?distro=alpine-3.20",
    ]


def rpm(data: bytes) -> list[Package]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return list(read_rpm(file.fileno(), "x", Distribution()))


def rpm_header(**fields: str | int) -> bytes:
    tags = {"name": 1000, "version": 1001, "release": 1002, "epoch": 1003, "arch": 1022}
    index = data = b""
    for name, value in fields.items():
        if isinstance(value, int):
            data += bytes(-len(data) % 4)
            index, data = index + struct.pack(">IIiI", tags[name], 4, len(data), 1), data + struct.pack(">I", value)
        else:
            index, data = index + struct.pack(">IIiI", tags[name], 6, len(data), 1), data + value.encode() + b"\0"
    return struct.pack(">II", len(fields), len(data)) + index + data


def test_rpm(tmp_path: Path) -> None:
    file = tmp_path / "rpmdb.sqlite"
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")  # as rpm does, and leaves it
    database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
    rows = [
        rpm_header(name="bash", version="5.2.26", release="3.fc40", arch="x86_64"),
        rpm_header(name="dbus", epoch=1, version="1.14.10", release="3.fc40", arch="x86_64"),
        rpm_header(name="gpg-pubkey", version="a", release="b"),
        b"\xff" * 40,
    ]
    database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(row,) for row in rows])
    database.commit()
    database.close()
    put(tmp_path, "tree/usr/lib/sysimage/rpm/rpmdb.sqlite", file.read_bytes())
    put(tmp_path, "tree/etc/os-release", 'ID="fedora"\nVERSION_ID=40\n')
    assert urls(tmp_path / "tree") == [
        "pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64&distro=fedora-40",
        "pkg:rpm/fedora/dbus@1.14.10-3.fc40?arch=x86_64&distro=fedora-40&epoch=1",
    ]


@pytest.mark.parametrize("junk", [b"", b"\0" * 100, b"\xff" * 1000, b"[" * 5000, b"{}", b"\x7fELF" * 9, b"null"])
def test_junk_is_left_out(tmp_path: Path, junk: bytes) -> None:
    for path in (
        "var/lib/dpkg/status", "lib/apk/db/installed", "var/lib/rpm/rpmdb.sqlite", "x.dist-info/METADATA",
        "node_modules/a/package.json", "etc/os-release",
    ):  # fmt: skip
        put(tmp_path, path, junk)
    put(tmp_path, "bin/a", b"\x7fELF".ljust(16, b"\0") + b"\xff Go buildinf:" + junk, 0o755)
    assert packages(tmp_path) == []


def test_readers_take_any_bytes() -> None:
    for size in range(200):
        data = bytes(range(256))[:size] * 2
        list(read_go(b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + data, "x"))
        rpm(data)
        list(read_npm(data.decode("latin-1"), "x"))
        list(read_python(data.decode("latin-1"), "x"))
        list(read_dpkg(data.decode("latin-1"), "x", Distribution()))


def test_the_document_is_the_same_for_the_same_tree(tmp_path: Path) -> None:
    put(tmp_path, "etc/os-release", DEBIAN)
    put(tmp_path, "var/lib/dpkg/status", "Package: a\nVersion: 1\nStatus: install ok installed\n\nPackage: b\nVersion: 2\n"
        "Status: deinstall ok config-files\n")  # fmt: skip
    with Tree((str(tmp_path),)) as tree:
        one, two = (document(tree, AMD, 86400.5, "shiplap-0") for _ in range(2))
    assert one == two
    assert PREDICATE == "https://spdx.dev/Document"
    assert one["spdxVersion"] == "SPDX-2.3"
    assert one["creationInfo"] == {"creators": ["Tool: shiplap-0"], "created": "1970-01-02T00:00:00Z"}
    assert [package["name"] for package in one["packages"]] == ["image for linux/amd64", "a"]
    ids = {package["SPDXID"] for package in one["packages"]}
    assert {end["relatedSpdxElement"] for end in one["relationships"]} == ids


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    put(tmp_path, "out/status", "Package: host\nVersion: 1\nStatus: install ok installed\n")
    put(tmp_path, "tree/etc/x", "")
    (tmp_path / "tree/var").symlink_to(tmp_path / "out")
    (tmp_path / "tree/etc/os-release").symlink_to("/etc/os-release")
    assert packages(tmp_path / "tree") == []


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    assert rpm(b"SQLite format 3\0" + bytes(100)) == []


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE VIEW Packages AS WITH RECURSIVE t(blob) AS (SELECT zeroblob(9) UNION ALL SELECT zeroblob(9) FROM t)"
        " SELECT * FROM t",
        "CREATE VIEW Packages AS WITH RECURSIVE t(blob) AS (SELECT NULL UNION ALL SELECT NULL FROM t) SELECT * FROM t",
        "CREATE TABLE Packages (hnum INTEGER, blob BLOB AS (zeroblob(200000000)))",
        "CREATE VIEW Packages AS SELECT zeroblob(999999999) AS blob",
    ],
)
def test_a_database_that_computes_its_rows_comes_to_an_end(tmp_path: Path, schema: str) -> None:
    file = tmp_path / "rpmdb.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute(schema)
        if "TABLE" in schema:
            database.executemany("INSERT INTO Packages (hnum) VALUES (?)", [(number,) for number in range(100)])
        database.commit()
    began = time.monotonic()
    assert rpm(file.read_bytes()) == []
    assert time.monotonic() - began < 20


def test_what_is_no_character_and_what_is_too_long_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "node_modules/a/package.json", '{"name": "a\\ud800", "version": "1\\udfff", "license": "\\ud800"}')
    put(tmp_path, "node_modules/b/package.json", '{"name": "b", "version": "' + "1" * 5000 + '"}')
    put(tmp_path, "node_modules/c/package.json", '{"name": "c", "version": "1", "license": "' + "x" * 5000 + '"}')
    put(tmp_path, "node_modules/d/package.json", "[" + "[]," * 400_000 + "[]]")
    put(tmp_path, "var/lib/dpkg/status", "Package: e\nVersion: 1\nStatus: \n\nPackage: f\nVersion: 1\nStatus: ok\n")
    put(tmp_path, "etc/os-release", "ID=" + "x" * 5000)
    with Tree((str(tmp_path),)) as tree:
        told = json.loads(encode_json(document(tree, AMD, 0, "shiplap-0")))["packages"][1:]
    assert [(package["name"], package["versionInfo"]) for package in told] == [("a?", "1?"), ("c", "1")]
    assert len(told[1]["licenseComments"]) == 2000
