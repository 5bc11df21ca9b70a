"""Name resolution of steps that have their own network: what they are told to ask, and the relay that answers."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shiplap.sandbox import names
from shiplap.sandbox.names import Relay
from shiplap.sandbox.wire import resolvers


@pytest.mark.parametrize(
    ("host", "step"),
    [
        ("nameserver 10.0.0.2\nsearch a b\n", "nameserver 10.0.0.2\nsearch a b\n"),
        ("nameserver 127.0.0.53\noptions edns0\n", "options edns0\nnameserver 127.0.0.11\n"),
        ("nameserver 169.254.169.254\n", "nameserver 127.0.0.11\n"),
        ("nameserver ::1\nnameserver 10.0.0.2\n", "nameserver 10.0.0.2\nnameserver 127.0.0.11\n"),
        ("nameserver fe80::1%eth0\n", "nameserver 127.0.0.11\n"),
        ("nameserver fd00::1\n", "nameserver fd00::1\n"),
    ],
)
def test_resolvers_of_an_isolated_network(host: str, step: str, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text(host)
    assert resolvers("isolated", tmp_path / "resolv.conf") == step
    assert resolvers("host", tmp_path / "resolv.conf") == host


def test_no_resolver_named_is_a_public_one(tmp_path: Path) -> None:
    assert "nameserver 8.8.8.8" in resolvers("isolated", tmp_path / "none")


@pytest.fixture
def upstream() -> Iterator[int]:
    """The port of a server on loopback that sends back what it gets, reversed, over UDP and TCP."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))

        def datagrams() -> None:
            while True:
                data, peer = udp.recvfrom(65535)
                if data == b"end":
                    return
                if data != b"silence":
                    udp.sendto(data[::-1], peer)

        def connections() -> None:
            while True:
                client, _ = tcp.accept()
                with client:
                    data = client.recv(65535)
                    if data == b"end":
                        return
                    client.sendall(data[::-1])

        threads = [threading.Thread(target=run) for run in (datagrams, connections)]
        for thread in threads:
            thread.start()
        yield port
        udp.sendto(b"end", ("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", port)) as last:
            last.sendall(b"end")
        for thread in threads:
            thread.join()


@pytest.fixture
def relay(upstream: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port at which a relay to ``upstream`` listens."""
    (tmp_path / "resolv.conf").write_text("search x\nnameserver 127.0.0.1\n")
    with socket.socket() as chosen:
        chosen.bind((names.ADDRESS, 0))
        port = chosen.getsockname()[1]
    made = Relay(*names.listen(port), str(tmp_path / "resolv.conf"), upstream)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=made.serve, args=(theirs,))
    thread.start()
    yield port
    ours.close()
    thread.join(5)
    assert not thread.is_alive()
    theirs.close()
    assert (made._asked, made._joined) == ({}, {})


def ask(port: int, data: bytes) -> bytes:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(data, (names.ADDRESS, port))
        return client.recv(65535)


def test_queries_come_back_to_who_asked(relay: int) -> None:
    clients = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(20)]
    for number, client in enumerate(clients):
        client.settimeout(5)
        client.sendto(struct.pack(">H", number) + b"query", (names.ADDRESS, relay))
    assert [client.recv(99) for client in clients] == [b"yreuq" + struct.pack("<H", n) for n in range(20)]
    for client in clients:
        client.close()


def test_long_answers_over_tcp(relay: int) -> None:
    with socket.create_connection((names.ADDRESS, relay), 5) as client:
        client.sendall(b"0123456789" * 900)
        client.shutdown(socket.SHUT_WR)
        got = b""
        while part := client.recv(65535):
            got += part
    assert got == b"9876543210" * 900
    assert ask(relay, b"after") == b"retfa"


def test_resolver_that_is_not_there(relay: int, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.77\n")
    with pytest.raises(OSError), socket.create_connection((names.ADDRESS, relay), 5) as client:
        client.sendall(b"query")
        if not client.recv(10):
            raise ConnectionResetError
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    assert ask(relay, b"again") == b"niaga"


def test_descriptors_do_not_grow(relay: int) -> None:
    ask(relay, b"one")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        ask(relay, b"more")
    assert len(os.listdir("/proc/self/fd")) <= before
