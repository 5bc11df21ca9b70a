"""The socket that ``RUN --mount=type=ssh`` gives a step: one of our own, which passes everything on to the agent's.

So it has the owner and the mode that the step asks for, whatever the agent's socket has, and it ends with the step.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 1 << 16


@contextmanager
def relay(directory: Path, agent: str, mode: int, owner: tuple[int, int]) -> Iterator[Path]:
    """While within: a socket in ``directory`` that leads to the agent listening at ``agent``."""
    path = directory / "agent"
    ended = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            server.bind(f"/proc/self/fd/{here}/{path.name}")  # an address is 107 bytes at most, a path may have more
        finally:
            os.close(here)
        with suppress(PermissionError):  # of a single id: it is ours, and so is the step
            os.chown(path, *owner)
        path.chmod(mode)
        server.listen()
        accepting = threading.Thread(target=_accept, args=(server, agent, ended), name="shiplap-agent", daemon=True)
        accepting.start()
        try:
            yield path
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)  # accept(2) returns at that (Linux)
            accepting.join()


def _accept(server: socket.socket, agent: str, ended: threading.Event) -> None:
    passing: list[threading.Thread] = []
    while not ended.is_set():
        try:
            client, _ = server.accept()
        except OSError:
            break
        passing = [thread for thread in passing if thread.is_alive()]
        passing.append(threading.Thread(target=_pass, args=(client, agent, ended), daemon=True))
        passing[-1].start()
    for thread in passing:
        thread.join()


def _pass(client: socket.socket, agent: str, ended: threading.Event) -> None:
    with client, socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(agent)
            other = {client: server, server: client}
            while other and not ended.is_set():
                for ready in select.select(list(other), [], [], 0.2)[0]:
                    data = ready.recv(CHUNK)
                    if data:
                        other[ready].sendall(data)
                    else:
                        other.pop(ready).shutdown(socket.SHUT_WR)
        except OSError:
            return  # one of them is gone: the step sees its connection end, as it would with the agent itself
