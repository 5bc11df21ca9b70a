"""Trying again: what the fault hooks of the memory registry do to a client, and what comes out."""

from __future__ import annotations

import os
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest

from shiplap.errors import Interrupted, RegistryError, ShiplapError
from shiplap.oci.manifest import Descriptor
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.connection import Timing
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.registry.patience import Patience, TryAgain, retry_after
from shiplap.settings import Network

TRANSIENT = [
    Fault("", reply=Reply(408)),
    Fault("", reply=Reply(429)),
    Fault("", reply=Reply(429, {"Retry-After": "0"})),
    Fault("", reply=Reply(429, {"Retry-After": "garbage"})),
    Fault("", reply=Reply(500)),
    Fault("", reply=Reply(502, {"Content-Type": "text/html"}, b"<html>bad gateway</html>")),
    Fault("", reply=Reply(503)),
    Fault("", reply=Reply(504)),
    Fault("", cut_after=-1),
    Fault("", cut_after=0),
    Fault("", cut_after=7),
]
NAMES = ["408", "429", "429-now", "429-junk", "500", "502", "503", "504", "reset", "no-body", "cut"]


@pytest.mark.parametrize("fault", TRANSIENT, ids=NAMES)
@pytest.mark.parametrize("place", ["/manifests/", "/blobs/"])
def test_three_transient_faults_are_lived_through(
    fault: Fault, place: str, server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    image = kit.make_image(b"layer data")
    ref = kit.put_image(server, "a/b", "1", image)
    server.fault(fault._replace(pattern=place, times=3))
    assert client.resolve(ref)[1] == image.raw
    assert client.read_blob(ref, image.manifest.layers[0]) == b"layer data"
    assert server.count(f"GET .*{place}") == 4


@pytest.mark.parametrize("fault", TRANSIENT, ids=NAMES)
@pytest.mark.parametrize("place", ["^HEAD .*/blobs/", "^POST", "^PUT .*/uploads/", "^PUT .*/manifests/"])
def test_pushes_live_through_three_transient_faults(
    fault: Fault, place: str, server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    image = kit.make_image(b"layer data")
    ref = parse_reference(f"{server.host}/a/b:1")
    server.fault(fault._replace(pattern=place, times=3))
    for data in (b"layer data", image.config):
        assert client.push_blob(ref, kit.descriptor(data), kit.opener(data)) in ("uploaded", "present")
    client.push_manifest(ref, image.raw, image.manifest.media_type)
    repository = server.repository("a/b")
    assert repository.tags == {"1": image.digest} and list(repository.manifests) == [image.digest]
    assert set(repository.blobs.values()) == {b"layer data", image.config}


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_fault_that_stays_ends_after_five_tries(status: int, server: MemoryRegistry, client: Registry) -> None:
    server.fault(Fault("", reply=Reply(status), times=100))
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert caught.value.status == status
    assert len(server.requests) == 5
    if status == 429:
        assert caught.value.code == "rate-limited" and "rate limit" in str(caught.value)


@pytest.mark.parametrize("status", [400, 403, 404, 410, 451, 501])
def test_final_answers_are_not_asked_for_again(status: int, server: MemoryRegistry, client: Registry) -> None:
    server.fault(Fault("", reply=Reply(status), times=100))
    with pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert (caught.value.status, len(server.requests)) == (status, 1)


def test_a_cut_blob_is_resumed_where_it_was_cut(server: MemoryRegistry, client: Registry) -> None:
    data = os.urandom(4 << 20)
    digest = server.add_blob("a/b", data)
    for _ in range(3):
        server.fault(Fault("GET .*/blobs/", cut_after=1_200_000))
    ref = parse_reference(f"{server.host}/a/b:1")
    assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=len(data)))) == data
    starts = [int(seen.headers.get("range", "bytes=0-")[6:-1]) for seen in server.requests]
    assert len(starts) == 4 and starts == sorted(starts) and starts[1] >= 1 << 20
    # What was sent in all, against what there is: less than twice.
    assert sum(min(1_200_000, len(data) - start) for start in starts) < 2 * len(data)


def test_a_blob_may_be_cut_more_often_than_there_are_tries_if_it_gets_on(
    server: MemoryRegistry, client: Registry
) -> None:
    data = os.urandom(12 << 20)
    digest = server.add_blob("a/b", data)
    server.fault(Fault("GET .*/blobs/", cut_after=1_600_000, times=7))
    ref = parse_reference(f"{server.host}/a/b:1")
    assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=len(data)))) == data


@pytest.mark.parametrize(
    "answer",
    [
        lambda reply: Reply(200, {}, DATA),
        lambda reply: reply._replace(headers={"Content-Range": "bytes 0-9/10"}),
        lambda reply: reply._replace(headers={}),
        lambda reply: Reply(416, {}, b"no"),
    ],
    ids=["200", "wrong-range", "no-range", "416"],
)
def test_a_server_that_does_not_keep_to_ranges(answer: Any, server: MemoryRegistry, client: Registry) -> None:
    digest = server.add_blob("a/b", DATA)
    server.fault(Fault("GET .*/blobs/", cut_after=1_100_000))
    server.fault(Fault("GET .*/blobs/", change=answer))
    ref = parse_reference(f"{server.host}/a/b:1")
    assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=len(DATA)))) == DATA


DATA = bytes(range(251)) * 8000


def test_a_body_that_ends_by_closing(server: MemoryRegistry, client: Registry) -> None:
    digest = server.add_blob("a/b", DATA)
    server.fault(Fault("/blobs/", no_length=True))
    server.fault(Fault("/blobs/", no_length=True, change=lambda r: r._replace(body=r.body[:500_000])))
    ref = parse_reference(f"{server.host}/a/b:1")
    for _ in range(2):
        assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=len(DATA)))) == DATA


def test_an_upload_is_resumed_where_it_was_cut(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    data = os.urandom(6 << 20)
    ref = parse_reference(f"{server.host}/a/b:1")
    opened: list[int] = []

    def opener(offset: int) -> Any:
        opened.append(offset)
        return kit.opener(data)(offset)

    server.fault(Fault("^PUT .*/uploads/", cut_after=2_000_000))
    server.fault(Fault("^PATCH .*/uploads/", cut_after=2_000_000))
    assert client.push_blob(ref, kit.descriptor(data), opener) == "uploaded"
    assert opened == [0, 2_000_000, 4_000_000]
    assert server.repository("a/b").blobs == {kit.descriptor(data).digest: data}


def test_an_upload_whose_session_is_lost_begins_anew(server: MemoryRegistry, client: Registry, kit: Any) -> None:
    ref = parse_reference(f"{server.host}/a/b:1")

    def forget(reply: Reply) -> Reply:
        server.repository("a/b").uploads.clear()
        return reply

    server.fault(Fault("^POST", change=forget))
    assert client.push_blob(ref, kit.descriptor(DATA), kit.opener(DATA)) == "uploaded"
    assert server.count("^POST") == 2


def test_an_upload_whose_last_answer_is_lost_is_not_sent_again(
    server: MemoryRegistry, client: Registry, kit: Any
) -> None:
    ref = parse_reference(f"{server.host}/a/b:1")
    server.fault(Fault("^PUT .*/uploads/", cut_after=-1))
    assert client.push_blob(ref, kit.descriptor(DATA), kit.opener(DATA)) == "uploaded"
    assert server.count("^PUT") == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("2", 2),
        (" 7 ", 7),
        ("1000000000", 1e9),
        ("-1", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("²", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_a_date() -> None:
    assert retry_after(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert retry_after(formatdate(time.time() - 30, usegmt=True)) == 0


def test_waits_grow_and_are_capped() -> None:
    slept: list[float] = []
    patience = Patience(Timing(patience=1e9), threading.Event(), slept.append)
    asked = iter([None, None, None, 60.0])

    def once() -> None:
        raise TryAgain(RegistryError("no"), next(asked, None))

    with pytest.raises(RegistryError, match="no"):
        patience.insist(once)
    assert len(slept) == 4
    for wait, longest in zip(slept[:3], (0.5, 1.0, 2.0), strict=True):
        assert longest / 2 <= wait <= longest
    assert slept[3] == 60.0


def test_no_try_begins_after_patience_has_run_out() -> None:
    slept: list[float] = []

    def once() -> None:
        raise TryAgain(RegistryError("no"), 101.0)

    with pytest.raises(RegistryError):
        Patience(Timing(patience=50), threading.Event(), slept.append).insist(once)
    # Nor is a registry asked before the time it named.
    with pytest.raises(RegistryError):
        Patience(Timing(patience=1e9), threading.Event(), slept.append).insist(once)
    assert slept == []


def test_a_long_wait_is_told() -> None:
    told: list[str] = []
    waits = iter([1.0, 30.0])
    patience = Patience(Timing(), threading.Event(), lambda seconds: None, told.append)

    def once() -> str:
        wait = next(waits, None)
        if wait is None:
            return "done"
        raise TryAgain(RegistryError("the registry is busy"), wait)

    assert patience.insist(once) == "done"
    assert told == ["the registry is busy; trying again in 30 seconds"]


@pytest.mark.parametrize("where", ["waiting", "reading", "answering"])
def test_interrupt_ends_a_call_at_once(where: str, server: MemoryRegistry) -> None:
    digest = server.add_blob("a/b", DATA)
    if where == "waiting":
        server.fault(Fault("", reply=Reply(503, {"Retry-After": "50"}), times=9))
    elif where == "answering":
        server.fault(Fault("", wait=3.0, times=9))
    else:
        # Says it is longer than what it sends, and keeps the connection open.
        server.fault(Fault("", change=lambda r: r._replace(headers={"Content-Length": str(len(DATA))}, body=DATA[:9])))
    failures: list[BaseException] = []
    with Registry(Network(), lambda fact: None, timing=Timing()) as client:

        def pull() -> None:
            try:
                ref = parse_reference(f"{server.host}/a/b:1")
                list(client.open_blob(ref, Descriptor(digest=digest, size=len(DATA))))
            except ShiplapError as error:
                failures.append(error)

        thread = threading.Thread(target=pull)
        thread.start()
        while not server.requests and where != "answering":
            time.sleep(0.005)
        time.sleep(0.05)
        began = time.monotonic()
        client.interrupt()
        thread.join(5)
        assert time.monotonic() - began < 1.0
    assert [type(failure) for failure in failures] == [Interrupted]


def test_a_stalled_server_is_given_up(server: MemoryRegistry, kit: Any) -> None:
    server.fault(Fault("", wait=0.4, times=9))
    timing = Timing(attempts=2, backoff=0.001, read=0.1)
    with Registry(Network(), lambda fact: None, timing=timing) as client, pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert caught.value.code == "timeout"


def test_a_server_without_ranges_may_be_cut_in_what_is_there_already(server: MemoryRegistry, client: Registry) -> None:
    data = bytes(range(256)) * (3 << 12)
    digest = server.add_blob("a/b", data)
    ref = parse_reference(f"{server.host}/a/b:1")
    whole = Reply(200, {}, data)
    server.fault(Fault("GET .*/blobs/", reply=whole, cut_after=2 << 20))
    server.fault(Fault("GET .*/blobs/", reply=Reply(200, {}, data[: 1 << 20])))
    server.fault(Fault("GET .*/blobs/", reply=whole))
    assert b"".join(client.open_blob(ref, Descriptor(digest=digest, size=len(data)))) == data
    assert len(server.requests) == 3
