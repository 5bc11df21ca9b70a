"""fsck: each kind of damage is found, named, and repaired so that nothing wrong is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shiplap.errors import StoreError
from shiplap.oci.digest import digest_of
from shiplap.store.check import check
from shiplap.store.results import Result
from shiplap.store.sealed import sealed, unsealed
from shiplap.store.snapshots import EMPTY, LayerBlob
from shiplap.store.store import Store

PACKED = b"packed"
MANIFEST = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":'
    b'"application/vnd.oci.image.config.v1+json","digest":"%s","size":2},"layers":[]}' % digest_of(b"{}").encode()
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with one of everything."""
    with Store(tmp_path / "s") as store, store.in_use():
        with store.snapshots.draft(EMPTY) as draft:
            Path(draft.diff, "f").write_text("f")
            base = draft.commit(id="base")
        with store.snapshots.draft(base.id) as draft:
            draft.commit(id="top")
        digest = store.blobs.write(PACKED)
        store.snapshots.record_blob("top", "gzip", "", LayerBlob(digest, len(PACKED), "type"))
        store.results.put("key", Result("top", "c"), {}, "RUN x")
        store.results.put_digest("d", "v")
        store.blobs.write(b"{}")
        manifest = store.blobs.write(MANIFEST)
        store.images.put("docker.io/library/a:1", manifest, "application/vnd.oci.image.manifest.v1+json", len(MANIFEST))
        (store.root / "files" / "m").write_bytes(sealed("m", b"\x80"))
    with Store(tmp_path / "s") as store:
        assert check(store).findings == ()
    return tmp_path / "s"


def blob(root: Path, data: bytes) -> Path:
    return root / "blobs" / digest_of(data).replace(":", "/")


def sql(statement: str) -> Callable[[Path], object]:
    def run(root: Path) -> None:
        with Store(root) as store:
            store.index.write(statement)

    return run


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a bit of a blob": ("blob-corrupt", lambda root: blob(root, PACKED).write_bytes(b"pbcked")),
    "a blob cut": ("blob-corrupt", lambda root: blob(root, PACKED).write_bytes(b"pack")),
    "a blob gone": ("blob-missing", lambda root: blob(root, PACKED).unlink()),
    "a blob that others may write": ("blob-not-ours", lambda root: blob(root, PACKED).chmod(0o622)),
    "a file among blobs": ("blob-stray", lambda root: (root / "blobs/sha256/README").write_text("")),
    "a directory among blobs": (
        "blob-stray",
        lambda root: (root / "blobs/sha256" / ("a" * 64) / "x").mkdir(parents=True),
    ),
    "a link among blobs": ("blob-stray", lambda root: (root / "blobs/sha256" / ("b" * 64)).symlink_to("/etc/passwd")),
    "a config gone": ("image-incomplete", lambda root: blob(root, b"{}").unlink()),
    "a manifest gone": ("image-incomplete", lambda root: blob(root, MANIFEST).unlink()),
    "a result": ("row-damaged", sql("UPDATE results SET snapshot='tob'")),
    "a remembered digest": ("row-damaged", sql("UPDATE digests SET value='w'")),
    "a packed layer's row": ("row-damaged", sql("UPDATE layer_blobs SET size=size+1")),
    "a snapshot's parent": ("row-damaged", sql("UPDATE snapshots SET parent='' WHERE id='top'")),
    "a snapshot's time": ("row-damaged", sql("UPDATE snapshots SET created=created+1 WHERE id='top'")),
    "files of a snapshot": ("snapshot-broken", lambda root: shutil.rmtree(root / "snapshots/base")),
    "a row of a snapshot": ("snapshot-broken", sql("DELETE FROM snapshots WHERE id='base'")),
    "a directory without a row": ("snapshot-stray", lambda root: (root / "snapshots/who/diff").mkdir(parents=True)),
    "a name": ("name-damaged", lambda root: next((root / "names").iterdir()).write_bytes(b"{}")),
    "a name in another's place": (
        "name-damaged",
        lambda root: next((root / "names").iterdir()).rename(root / "names/x"),
    ),
    "a memory": ("memory-damaged", lambda root: (root / "files/m").write_bytes(b"xxxx\x80")),
    "something temporary": ("temporary-stray", lambda root: (root / "tmp/old-1").mkdir()),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_it_is_found_and_repaired(root: Path, what: str) -> None:
    code, spoil = DAMAGE[what]
    spoil(root)
    with Store(root) as store:
        found = check(store)
        assert code in [finding.code for finding in found.findings]
        assert not found.clean and all(finding.text and finding.remedy for finding in found.findings)
    with Store(root) as store:
        assert [one.text for one in check(store).findings] == [one.text for one in found.findings], "it changed nothing"
    with Store(root) as store:
        assert check(store, repair=True).clean
    with Store(root) as store:
        assert check(store).findings == ()


def test_a_lost_name_leaves_its_image_under_its_digest(root: Path) -> None:
    next((root / "names").iterdir()).write_bytes(b"\0")
    with Store(root) as store:
        check(store, repair=True)
        assert [image.name for image in store.images.all()] == [digest_of(MANIFEST)]


def test_what_stands_on_a_broken_snapshot_goes_with_it(root: Path) -> None:
    shutil.rmtree(root / "snapshots/base")
    with Store(root) as store:
        check(store, repair=True)
        assert os.listdir(root / "snapshots") == []
        assert store.results.get("key") is None


def test_what_killed_processes_left_is_no_finding(root: Path) -> None:
    with Store(root) as store:
        lease = store.lease.begin()
        (root / "tmp" / f"{lease}-blob-1").write_text("")
        (root / "leases" / lease).rename(root / "leases" / "dead")
        (root / "tmp" / f"{lease}-blob-1").rename(root / "tmp" / "dead-blob-1")
        store.lease.end()
        (root / "leases" / "dead").touch()
        report = check(store)
        assert (report.findings, report.cleared) == ((), 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\0" * len(data),
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:60] + b"\0\0\0\1" + data[64:],  # another version
        lambda data: data[:4096] + os.urandom(len(data) - 4096),
    ],
    ids=["empty", "cut", "zeros", "no database", "version", "noise"],
)
def test_a_damaged_index_is_begun_anew_and_no_name_is_lost(root: Path, spoil: Callable[[bytes], bytes]) -> None:
    index = root / "index.sqlite"
    index.write_bytes(spoil(index.read_bytes()))
    for _ in range(3):  # it may take a use to notice, and another to begin anew
        try:
            with Store(root) as store, store.in_use():
                store.results.get("key")
                store.snapshots.get("top")
                report = check(store, repair=True)
        except StoreError as error:
            assert error.code == "index-damaged" and "run the same again" in (error.hint or "")
            continue
        if report.clean and not report.findings:
            break
    with Store(root) as store:
        assert check(store).findings == ()
        assert [image.name for image in store.images.all()] == ["docker.io/library/a:1"]
        assert store.blobs.has(digest_of(MANIFEST))


def test_an_index_in_use_is_not_taken_away(root: Path) -> None:
    with Store(root) as one:
        one.index.condemn()
        with pytest.raises(StoreError) as caught:
            Store(root)
        assert caught.value.code == "index-damaged" and "have ended" in (caught.value.hint or "")
    with Store(root) as again:
        assert again.index.replaced
        assert os.listdir(root / "snapshots") == []


def test_a_packed_layer_that_a_crash_may_have_spoiled_is_read_before_it_is_believed(root: Path) -> None:
    with Store(root) as store:
        store.index.write("UPDATE layer_blobs SET boot='another boot'")
        assert store.snapshots.blob("top", "gzip") is not None
        assert store.index.rows("SELECT boot FROM layer_blobs") == [(store.index.boot,)]
        store.index.write("UPDATE layer_blobs SET boot='another boot'")
        blob(root, PACKED).write_bytes(b"\0" * len(PACKED))
        assert store.snapshots.blob("top", "gzip") is None
        assert not blob(root, PACKED).exists()


def test_a_sealed_file_knows_its_bytes_and_its_name() -> None:
    raw = sealed("name", b"data")
    assert unsealed("name", raw) == b"data"
    assert unsealed("other", raw) is None
    assert unsealed("name", b"") is None
    for at in range(len(raw)):
        assert unsealed("name", raw[:at] + bytes([raw[at] ^ 16]) + raw[at + 1 :]) is None
