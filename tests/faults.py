"""A proxy on loopback that damages what passes: resets, truncates, delays, flips bits, answers in place of the server.

Which request meets what is a function of the seed and of the request (its method, its path without session names, and how
often it came), so that a run can be repeated however its threads fall.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from io import BufferedReader
from random import Random

KINDS = (
    "drop",
    "cut-request",
    "lost-answer",
    "cut-answer",
    "end-answer",
    "shorten",
    "flip-answer",
    "flip-request",
    "delay",
    "429-seconds",
    "429-date",
    "500",
    "502",
    "503-early",
    "401",
)
"""drop: reset at once. cut-request, cut-answer: reset after a part. end-answer: closed after a part. shorten: a part, with a
Content-Length that fits it. lost-answer: done, but nobody says so. flip: one bit is another. 503-early: before the body."""

Head = tuple[str, dict[str, str]]


class FaultProxy:
    """Forwards HTTP/1.1 to ``upstream`` (host:port); a context manager. ``rate``: the share of requests that meet a fault.

    ``longest``: a larger body, in bytes, is refused with 413, as by nginx.
    ``challenge`` is the ``WWW-Authenticate`` of a 401. ``met`` counts the faults by kind, ``passed`` all requests.
    """

    def __init__(
        self,
        upstream: str,
        *,
        seed: int = 0,
        rate: float = 0.1,
        kinds: Sequence[str] = KINDS,
        challenge: str = "",
        tls: ssl.SSLContext | None = None,
        longest: int = 1 << 62,
    ) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self.seed, self.rate, self.kinds, self.challenge = seed, rate, kinds, challenge
        self._tls = tls
        self.longest = longest
        self.met: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        stream: BufferedReader | None = None
        try:
            client.settimeout(60)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            stream = client.makefile("rb")
            while True:
                head = _read_head(stream)
                if head is None or not self._exchange(client, stream, head):
                    break
        except _Reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        finally:
            if stream is not None:
                stream.close()  # it keeps the socket open
            client.close()

    def _choose(self, line: str) -> tuple[str, Random]:
        method, target, _ = line.split(" ")
        plain = re.sub(r"/uploads/[^/?]+|_state=[^&]*", "", target)
        with self._lock:
            name = f"{method} {plain}"
            self._seen[name] += 1
            random = Random(f"{self.seed} {name} {self._seen[name]}")
            kind = random.choice(self.kinds) if random.random() < self.rate else ""
            self.passed[method] += 1
            if kind:
                self.met[kind] += 1
        return kind, random

    def _exchange(self, client: socket.socket, stream: BufferedReader, head: Head) -> bool:
        """Serve one request; whether the connection goes on."""
        line, headers = head
        kind, random = self._choose(line)
        length = int(headers.get("content-length", "0"))
        if length > self.longest:
            client.sendall(_reply(413, {"Connection": "close"}))
            stream.read(length)  # "lingering_close": or the answer would be lost with the bytes nobody read
            return False
        if kind == "drop":
            raise _Reset
        if kind == "503-early":
            client.sendall(_reply(503, {"Connection": "close"}))
            return False
        if kind == "delay":
            time.sleep(random.uniform(0.01, 0.1))
        part = random.randrange(length) if kind == "cut-request" and length else length
        body = stream.read(part)
        if kind == "flip-request":
            body = _flipped(body, random)
        answered = self._instead(kind)
        if answered is not None:
            client.sendall(answered)
            return True
        with socket.create_connection(self._upstream, 30) as server:
            lines = [line, *(f"{name}: {value}" for name, value in headers.items() if name != "connection")]
            server.sendall(("\r\n".join([*lines, "connection: close"]) + "\r\n\r\n").encode("latin-1") + body)
            if kind == "cut-request":
                raise _Reset
            with server.makefile("rb") as answer:
                return self._answer(client, answer, line.partition(" ")[0], kind, random)

    def _instead(self, kind: str) -> bytes | None:
        if kind == "429-seconds":
            return _reply(
                429, {"Retry-After": "0", "RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
            )
        if kind == "429-date":
            return _reply(429, {"Retry-After": formatdate(time.time(), usegmt=True)})
        if kind == "401":
            return _reply(401, {"WWW-Authenticate": self.challenge} if self.challenge else {})
        return _reply(int(kind), {}) if kind in ("500", "502") else None

    def _answer(self, client: socket.socket, answer: BufferedReader, method: str, kind: str, random: Random) -> bool:
        head = _read_head(answer)
        if kind == "lost-answer" or head is None:
            raise _Reset
        line, headers = head
        body = b"" if method == "HEAD" else answer.read()
        headers.pop("connection", None)
        headers.pop("transfer-encoding", None)
        if method != "HEAD":
            headers["content-length"] = str(len(body))
        part = random.randrange(len(body)) if body else 0
        if kind == "flip-answer":
            body = _flipped(body, random)
        if kind == "shorten" and body:
            body = body[:part]
            headers["content-length"] = str(part)
        text = "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items())]) + "\r\n\r\n"
        cut = kind in ("cut-answer", "end-answer")
        client.sendall(text.encode("latin-1") + (body[:part] if cut else body))
        if kind == "cut-answer":
            time.sleep(0.01)  # a reset would overtake the bytes that are still on their way
            raise _Reset
        return not cut


class _Reset(Exception):
    """Ends a connection by RST."""


def _read_head(stream: BufferedReader) -> Head | None:
    line = stream.readline(65536).decode("latin-1").rstrip("\r\n")
    if not line:
        return None
    headers = {}
    while True:
        field = stream.readline(65536).decode("latin-1").rstrip("\r\n")
        if not field:
            return line, headers
        name, _, value = field.partition(":")
        headers[name.strip().lower()] = value.strip()


def _flipped(data: bytes, random: Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _reply(status: int, headers: dict[str, str]) -> bytes:
    body = b'{"errors":[{"code":"FAULT","message":"made for a test"}]}'
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} Fault", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
