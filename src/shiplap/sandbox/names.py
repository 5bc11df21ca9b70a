"""Name resolution where the machine's resolver cannot be reached: a relay between two networks, inside the helper.

Many machines ask a resolver on their loopback (127.0.0.53), and some a link-local address. A step that has its own network
reaches neither. So it asks an address on its own loopback, and the relay, which stands on the machine's network but holds
sockets of the other one, passes queries and answers on: over UDP, and over TCP for the long ones. It understands none of it.
"""

from __future__ import annotations

import _socket
import select
import time

Asker = tuple[str, int]
ADDRESS = "127.0.0.11"
"""Where a step asks; the same as Docker's."""
PORT = 53
_MOST = 200
_SECONDS = 12.0
"""How long an answer is waited for: longer than a resolver library does."""
_CHUNK = 65535


def listen(port: int = PORT) -> tuple[int, int]:
    """Descriptors of a UDP and a TCP socket at ADDRESS of this network namespace."""
    fds = []
    for kind in (_socket.SOCK_DGRAM, _socket.SOCK_STREAM):
        sock = _socket.socket(_socket.AF_INET, kind)
        sock.bind((ADDRESS, port))
        if kind == _socket.SOCK_STREAM:
            sock.listen(16)
        fds.append(sock.detach())
    return fds[0], fds[1]


def servers(text: str) -> list[str]:
    """The addresses of name servers in the text of a resolv.conf(5)."""
    rows = (line.split() for line in text.splitlines())
    return [row[1].partition("%")[0] for row in rows if len(row) > 1 and row[0] == "nameserver"]


def out_of_reach(address: str) -> bool:
    """Whether a network of the step's own does not lead to ``address``: loopback, or link-local."""
    return address.startswith(("127.", "169.254.", "fe80:", "FE80:")) or address in ("::1", "0.0.0.0")


class Relay:
    """Serves the two sockets of ``listen``, from the machine's network; ``path`` names the resolver, at ``port``."""

    def __init__(self, udp: int, tcp: int, path: str = "/etc/resolv.conf", port: int = PORT) -> None:
        self._udp = _socket.socket(fileno=udp)
        self._tcp = _socket.socket(fileno=tcp)
        self._path = path
        self._port = port
        self._poller = select.poll()
        self._asked: dict[int, tuple[_socket.socket, Asker, float]] = {}
        """Socket of a query under way, who asked, until when."""
        self._joined: dict[int, tuple[_socket.socket, _socket.socket, float]] = {}
        """Both ends of a connection, each under its own descriptor."""
        self._ended: set[int] = set()
        """Ends of connections that have said all."""

    def serve(self, until: _socket.socket) -> None:
        """Relay until the other end of ``until`` is closed."""
        for sock in (until, self._udp, self._tcp):
            sock.setblocking(False)
            self._poller.register(sock, select.POLLIN)
        while True:
            busy = bool(self._asked or self._joined)
            for fd, _ in self._poller.poll(1000 if busy else None):
                try:
                    if fd == until.fileno():
                        return
                    if fd == self._udp.fileno():
                        self._query()
                    elif fd == self._tcp.fileno():
                        self._connection()
                    elif fd in self._asked:
                        self._answer(fd)
                    elif fd in self._joined:
                        self._pass(fd)
                except OSError:
                    self._drop(fd)
            now = time.monotonic()
            for fd in [fd for fd, (*_, end) in (*self._asked.items(), *self._joined.items()) if end < now]:
                self._drop(fd)

    def _upstream(self, kind: int) -> _socket.socket:
        """A socket connected to the machine's resolver, as resolv.conf names it now."""
        try:
            with open(self._path, errors="replace") as file:
                address = (servers(file.read()) or ["127.0.0.1"])[0]
        except FileNotFoundError:
            address = "127.0.0.1"
        family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
        sock = _socket.socket(family, kind)
        sock.settimeout(2)
        try:
            sock.connect((address, self._port))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock

    def _query(self) -> None:
        data, asker = self._udp.recvfrom(_CHUNK)
        if len(self._asked) >= _MOST:
            return
        sock = self._upstream(_socket.SOCK_DGRAM)
        self._asked[sock.fileno()] = (sock, asker, time.monotonic() + _SECONDS)
        self._poller.register(sock, select.POLLIN)
        sock.send(data)

    def _answer(self, fd: int) -> None:
        sock, asker, _ = self._asked[fd]
        data = sock.recv(_CHUNK)
        self._drop(fd)
        self._udp.sendto(data, asker)

    def _connection(self) -> None:
        fd, _ = self._tcp._accept()  # type: ignore[attr-defined]
        near = _socket.socket(fileno=fd)
        if len(self._joined) >= _MOST:
            near.close()
            return
        try:
            far = self._upstream(_socket.SOCK_STREAM)
        except OSError:
            near.close()
            return
        end = time.monotonic() + _SECONDS
        for one, other in ((near, far), (far, near)):
            one.settimeout(2)
            self._joined[one.fileno()] = (one, other, end)
            self._poller.register(one, select.POLLIN)

    def _pass(self, fd: int) -> None:
        sock, other, _ = self._joined[fd]
        data = sock.recv(_CHUNK)
        if data:
            other.sendall(data)
        elif other.fileno() in self._ended:
            self._drop(fd)
        else:  # one side has asked all; the answer is still to come
            other.shutdown(_socket.SHUT_WR)
            self._ended.add(fd)
            self._poller.modify(sock, 0)

    def _drop(self, fd: int) -> None:
        """Close whatever ``fd`` is part of."""
        for sock in (*self._asked.pop(fd, ())[:1], *self._joined.pop(fd, ())[:2]):
            if isinstance(sock, _socket.socket) and sock.fileno() >= 0:
                self._joined.pop(sock.fileno(), None)
                self._ended.discard(sock.fileno())
                self._poller.unregister(sock)
                sock.close()
