"""Records of builds: written as facts happen, bounded, read back."""

from __future__ import annotations

import threading
from pathlib import Path

from shiplap.events.facts import BuildFinished, BuildStarted, Fact, StepFinished, StepOutput, StepStarted
from shiplap.events.kept import kept
from shiplap.events.record import Record, records, trim

STARTED = BuildStarted(1.0, "ctx", log="x")
ENDED = BuildFinished(3.0, 2.0, 1, 0)


def record(directory: Path, *facts: Fact, builds: int = 9, size: int = 1 << 20) -> Record:
    made = Record(directory, lambda fact: None, builds=builds, size=size)
    for fact in facts:
        made(fact)
    return made


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    facts = [STARTED, StepStarted("a", "RUN x", 1.0, stage="s"), StepOutput("a", 2, b"\xff\0bytes", 1.5), ENDED]
    made = record(tmp_path / "logs", *facts)
    (build,) = kept(tmp_path / "logs")
    assert build.id == made.id
    assert list(build.facts()) == facts
    build.summarize()
    assert (build.started, build.finished) == (STARTED, ENDED)
    assert build.path.stat().st_mode & 0o777 == 0o600


def test_all_views_see_facts_in_the_order_of_the_record(tmp_path: Path) -> None:
    seen: list[Fact] = []
    made = Record(tmp_path, seen.append, builds=1, size=1 << 20)

    def tell(step: str) -> None:
        for n in range(200):
            made(StepOutput(step, 1, b"%d" % n, 1.0))

    threads = [threading.Thread(target=tell, args=(step,)) for step in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close()
    assert list(kept(tmp_path)[0].facts()) == seen and len(seen) == 800


def test_a_build_that_runs_is_known_and_followed(tmp_path: Path) -> None:
    made = record(tmp_path, STARTED)
    build = kept(tmp_path)[0]
    assert build.running()
    waits = 0

    def wait() -> None:
        nonlocal waits
        waits += 1
        made(StepOutput("a", 1, b"more", 2.0) if waits == 1 else ENDED)

    assert [type(fact).__name__ for fact in build.facts(wait)] == ["BuildStarted", "StepOutput", "BuildFinished"]
    assert not build.running()


def test_a_record_that_was_cut_off_is_readable(tmp_path: Path) -> None:
    record(tmp_path, STARTED, ENDED)
    build = kept(tmp_path)[0]
    build.path.write_bytes(build.path.read_bytes()[:-9])
    assert list(build.facts()) == [STARTED]
    build.summarize()
    assert build.finished is None and not build.running()


def test_the_oldest_go(tmp_path: Path) -> None:
    ids = [record(tmp_path, STARTED, ENDED, builds=3).id for _ in range(5)]
    assert sorted(build.id for build in kept(tmp_path)) == sorted(ids[2:])


def test_all_records_together_are_bounded_but_the_last_stays(tmp_path: Path) -> None:
    for _ in range(4):
        record(tmp_path, StepOutput("a", 1, b"x" * 1000, 1.0), ENDED, size=100_000)
    trim(tmp_path, 9, 2 * records(tmp_path)[0].stat().st_size)
    assert len(records(tmp_path)) == 2
    trim(tmp_path, 9, 1)
    assert len(records(tmp_path)) == 1


def test_one_that_is_being_written_is_not_removed(tmp_path: Path) -> None:
    running = record(tmp_path, STARTED)
    record(tmp_path, STARTED, ENDED, builds=1)
    assert running.id in {build.id for build in kept(tmp_path)}
    running.close()


def test_one_build_cannot_fill_the_disk(tmp_path: Path) -> None:
    made = record(tmp_path, STARTED, size=400_000)
    for _ in range(100):
        made(StepOutput("a", 1, b"x" * 10_000, 1.0))
    made(ENDED)
    facts = list(kept(tmp_path)[0].facts())
    assert kept(tmp_path)[0].path.stat().st_size < 110_000
    assert b"log of this build is full" in facts[-2].data  # type: ignore[union-attr]
    assert facts[-1] == ENDED


def test_no_record_is_kept_if_none_is_wanted(tmp_path: Path) -> None:
    made = record(tmp_path / "logs", STARTED, ENDED, builds=0)
    assert made.id == "" and not (tmp_path / "logs").exists()


def test_a_directory_that_cannot_be_written_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    assert record(tmp_path / "logs", STARTED, ENDED).id == ""


def test_a_failure_is_found_by_its_message(tmp_path: Path) -> None:
    made = record(
        tmp_path,
        StepStarted("a", "a", 1.0),
        StepStarted("b", "b", 1.0),
        StepFinished("a", 2.0, 1.0, error="canceled", canceled=True),
        StepFinished("b", 2.0, 1.0, error="exit code: 1"),
    )
    assert made.failed("exit code: 1") == 2
    assert made.failed("canceled") == 0
    made.close()
