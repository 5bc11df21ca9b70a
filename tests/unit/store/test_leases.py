"""Leases: what a living process named stays, what a dead one left goes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shiplap.oci.digest import digest_of
from shiplap.store.leases import BLOB, SNAPSHOT
from shiplap.store.results import Result
from shiplap.store.snapshots import EMPTY, LayerBlob
from shiplap.store.store import Store

DIES = """
import os, sys
from pathlib import Path
from shiplap.store.store import Store
from shiplap.store.snapshots import EMPTY
store = Store(Path(sys.argv[1]))
with store.in_use():
{body}
    os.kill(os.getpid(), 9)
"""


def die(root: Path, body: str) -> None:
    """A process that does this with the store and is killed over it."""
    text = DIES.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    assert subprocess.run([sys.executable, "-c", text, str(root)], check=False).returncode == -9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Store(tmp_path / "s"):
        pass
    return tmp_path / "s"


def listing(root: Path, *parts: str) -> set[str]:
    return set(os.listdir(root.joinpath(*parts)))


def test_who_only_reads_holds_nothing(root: Path) -> None:
    with Store(root) as store:
        assert not store.blobs.has(digest_of(b"x"))
        assert store.snapshots.get("nothing") is None
        assert listing(root, "leases") == set()
        with store.in_use():
            assert len(listing(root, "leases")) == 1
        assert listing(root, "leases") == set()


def test_what_is_looked_for_is_held_before_it_is_seen(root: Path) -> None:
    with Store(root) as one, Store(root) as two, one.in_use():
        one.blobs.has(digest_of(b"x"))
        one.snapshots.get("s1")
        with two.lease.deciding() as live:
            assert {(BLOB, digest_of(b"x")), (SNAPSHOT, "s1")} <= live
    with Store(root) as three, three.lease.deciding() as live:
        assert live == set()


def test_who_decides_only_looks(root: Path) -> None:
    with Store(root) as store, store.in_use():
        digest = store.blobs.write(b"x")
        with Store(root) as other:
            with other.lease.deciding():
                assert other.blobs.read(digest) == b"x"
            with other.lease.deciding() as live:
                assert live == {(BLOB, digest)}, "held by the one that wrote it alone"


def test_nobody_decides_while_another_does(root: Path) -> None:
    with Store(root) as store, store.lease.deciding():
        hold = "store.blobs.has('sha256:' + 'a' * 64); print('went on', flush=True); sys.stdin.read()"
        code = DIES.format(body=f"    {hold}")
        with subprocess.Popen(
            [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        ) as other:
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.5)
            assert other.stdout is not None
            os.set_blocking(other.stdout.fileno(), False)
            assert other.stdout.read() is None, "it named something while the gate was held"
            other.kill()


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(root: Path) -> None:
    die(root, "store.snapshots.draft(EMPTY).__enter__(); store.blobs.writer().write(b'x'); store.aside('file').touch()")
    with Store(root) as living, living.in_use(), living.scratch("mine") as mine:
        assert listing(root, "tmp") == {mine.name}
        assert living.recover() == 0
        assert len(listing(root, "leases")) == 1


@pytest.mark.parametrize("id", [None, "named"])
def test_a_snapshot_that_was_renamed_but_not_recorded_goes(root: Path, id: str | None) -> None:
    die(
        root,
        "store.snapshots.record = lambda *_: os.kill(os.getpid(), 9)\n"
        f"with store.snapshots.draft(EMPTY) as draft: draft.commit(id={id!r})",
    )
    assert len(listing(root, "snapshots")) == 1
    with Store(root) as store, store.in_use():
        assert listing(root, "snapshots") == set()


def test_a_finished_result_of_the_dead_stays(root: Path) -> None:
    die(
        root,
        "from shiplap.store.results import Result\n"
        "with store.snapshots.draft(EMPTY) as draft: made = draft.commit()\n"
        "store.results.put('key', Result(made.id, 'c'), {}, '')",
    )
    with Store(root) as store, store.in_use():
        found = store.results.get("key")
        assert found is not None and store.snapshots.get(found.snapshot) is not None


def test_a_snapshot_that_nothing_leads_to_goes_unless_its_name_is_known(root: Path) -> None:
    die(
        root,
        "with store.snapshots.draft(EMPTY) as draft: draft.commit()\n"
        "with store.snapshots.draft(EMPTY) as draft: draft.commit(id='layer')\n"
        "with store.snapshots.draft('layer') as draft: draft.commit()",
    )
    with Store(root) as store, store.in_use():
        assert listing(root, "snapshots") == {"layer"}
        assert store.snapshots.get("layer") is not None


def test_blobs_of_the_dead_stay_if_something_leads_to_them(root: Path) -> None:
    die(
        root,
        "from shiplap.store.snapshots import LayerBlob\n"
        "with store.snapshots.draft(EMPTY) as draft: draft.commit(id='layer')\n"
        "store.snapshots.record_blob('layer', 'gzip', 'sha256:d', LayerBlob(store.blobs.write(b'packed'), 6, 't'))\n"
        "store.blobs.write(b'nobody knows me')",
    )
    with Store(root) as store, store.in_use():
        assert [digest for digest, _ in store.blobs.all()] == [digest_of(b"packed")]
        assert store.snapshots.blob("layer", "gzip") == LayerBlob(digest_of(b"packed"), 6, "t")


def test_what_a_living_process_makes_again_is_not_taken_from_it(root: Path) -> None:
    die(root, "store.lease.make('N', 'layer'); store.lease.make('B', 'sha256:' + 'a' * 64)")
    with Store(root) as living, living.in_use():
        pass
    die(root, "store.lease.make('N', 'layer')")
    with Store(root) as living:
        living.lease.begin()
        living.snapshots.get("layer")  # named, and about to be made
        (root / "snapshots" / "layer" / "diff").mkdir(parents=True)
        with Store(root) as other, other.in_use():
            assert listing(root, "snapshots") == {"layer"}


def test_a_chain_is_looked_at_once_and_again_when_in_doubt(root: Path) -> None:
    with Store(root) as store, store.in_use():
        with store.snapshots.draft(EMPTY) as draft:
            made = draft.commit()
        store.results.put("k", Result(made.id, "c"), {}, "")
        assert store.snapshots.get(made.id) == made
        (root / "snapshots" / made.id / "diff").rmdir()
        assert store.snapshots.get(made.id) == made, "it is held: nobody but damage takes it away"
        store.snapshots.look_again()
        assert store.snapshots.get(made.id) is None
