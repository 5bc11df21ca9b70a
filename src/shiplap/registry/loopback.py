"""An HTTP server on a loopback port that remembers its requests and misbehaves on demand; standard library only."""

from __future__ import annotations

import http.server
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """A request as it came in, and the status it was answered with (0 if the connection was cut instead)."""

    method: str
    target: str
    headers: dict[str, str]
    status: int


class Reply(NamedTuple):
    """An answer before it is written."""

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""


class Fault(NamedTuple):
    """One way to misbehave, for the next ``times`` requests whose "METHOD target" matches ``pattern`` (a regex).

    ``reply`` answers in place of the registry; ``change`` alters the registry's own answer. Then, of that answer:
    ``cut_after`` n bytes of the body the connection is reset (-1: before any byte, though the work was done);
    ``endless`` repeats the body for ever; ``no_length`` ends the body by closing; ``wait`` seconds pass first.
    """

    pattern: str
    reply: Reply | None = None
    change: Callable[[Reply], Reply] | None = None
    cut_after: int | None = None
    endless: bool = False
    no_length: bool = False
    wait: float = 0.0
    times: int = 1


class LoopbackServer:
    """Serves ``answer`` over HTTP/1.1 while its ``with`` block runs; ``host`` is ``127.0.0.1:port``."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Seen] = []
        self.lock = threading.RLock()
        self._faults: list[tuple[Fault, list[int]]] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def start(self) -> None:
        """Begin to serve, in a thread of its own."""
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def fault(self, fault: Fault) -> None:
        """Misbehave from now on; of several faults that match, the earliest with ``times`` left is taken."""
        with self.lock:
            self._faults.append((fault, [fault.times]))

    def count(self, pattern: str) -> int:
        """How many requests so far match ``pattern`` (a regex on "METHOD target")."""
        with self.lock:
            return sum(re.search(pattern, f"{seen.method} {seen.target}") is not None for seen in self.requests)

    def take_fault(self, line: str) -> Fault | None:
        with self.lock:
            for fault, left in self._faults:
                if left[0] > 0 and re.search(fault.pattern, line):
                    left[0] -= 1
                    return fault
        return None

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The well-behaved answer to a request; header names are in lower case. By itself it knows nothing."""
        return Reply(404)

    def cut_upload(self, target: str, part: bytes) -> None:
        """An upload to ``target`` was cut after ``part``."""


class _Server(http.server.ThreadingHTTPServer):
    owner: LoopbackServer
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away, or refuse our certificate, are part of the game."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """The library never prints."""

    def _serve(self) -> None:
        owner = self.server.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = owner.take_fault(f"{self.command} {self.path}")
        body, whole = self._body(owner, headers, fault)
        if not whole:
            self._record(headers, 0)
            return
        if fault is not None and fault.wait:
            time.sleep(fault.wait)
        if fault is not None and fault.reply is not None:
            reply = fault.reply
        else:
            reply = owner.answer(self.command, self.path, headers, body)
        if fault is not None and fault.change is not None:
            reply = fault.change(reply)
        self._record(headers, reply.status)
        self._write(reply, fault or Fault(""))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _body(self, owner: LoopbackServer, headers: dict[str, str], fault: Fault | None) -> tuple[bytes, bool]:
        length = int(headers.get("content-length", "0") or "0")
        uploading = self.command in ("PUT", "PATCH") and "/uploads/" in self.path
        if uploading and fault is not None and fault.cut_after is not None and 0 <= fault.cut_after < length:
            # Keep what came before the cut, as real registries do, so that the upload can be resumed.
            part = self.rfile.read(fault.cut_after)
            owner.cut_upload(self.path, part)
            self._reset()
            return b"", False
        return self.rfile.read(length), True

    def _record(self, headers: dict[str, str], status: int) -> None:
        owner = self.server.owner
        with owner.lock:
            owner.requests.append(Seen(self.command, self.path, headers, status))

    def _write(self, reply: Reply, fault: Fault) -> None:
        if fault.cut_after == -1:
            self._reset()
            return
        self.send_response(reply.status)
        told = {name.lower() for name in reply.headers}
        if fault.endless or fault.no_length:
            self.close_connection = True
            self.send_header("Connection", "close")
        elif "content-length" not in told:
            self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            while fault.endless:
                self.wfile.write((reply.body or b"\0") * 64)
            self.wfile.write(reply.body[: fault.cut_after] if fault.cut_after is not None else reply.body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
        if fault.cut_after is not None:
            # A little later: a reset would overtake the bytes that are still on their way.
            time.sleep(0.02)
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        # The files made of the socket keep it open; without them the reset goes out now.
        self.rfile.close()
        self.wfile = _Nowhere()  # type: ignore[assignment]


class _Nowhere:
    """Takes what is written after a reset."""

    closed = False

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
