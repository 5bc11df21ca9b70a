"""Starts the helper process. Imports next to nothing, so that a command can have it started, and its network made, while it
still imports what plans and packs: both take some 60 ms, which the first RUN else waits for.
"""

from __future__ import annotations

import _socket
import os
import sys

from shiplap.errors import SandboxError

_HELPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "helper.py")


class Spawned:
    """A helper: ``pid``; ``control``, the socket it takes packets from, whose closing ends it; ``owner``, the process whose
    child it is; ``network``, where the isolated network that was asked for beforehand is answered, until somebody reads it.
    """

    __slots__ = ("control", "network", "owner", "pid")

    def __init__(self, pid: int, control: _socket.socket) -> None:
        self.pid = pid
        self.control = control
        self.owner = os.getpid()
        self.network: _socket.socket | None = None

    def send(self, kind: bytes, fds: list[int]) -> None:
        """Send a packet (see helper.py). Raises OSError if the helper has gone."""
        rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        self.control.sendmsg([kind], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])

    def ask_for_network(self, user: int = -1) -> _socket.socket:
        """Where the answer will come; ``user``: the user namespace it shall belong to, if not the helper's. Raises OSError."""
        mine, theirs = _socket.socketpair()
        try:
            self.send(b"n", [theirs.fileno(), *([user] if user >= 0 else [])])
        except OSError:
            mine.close()
            raise
        finally:
            theirs.close()
        return mine

    def close(self) -> None:
        """End it, and wait until it has gone. Steps that still run are killed."""
        if self.network is not None:
            self.network.close()
        self.control.close()
        if self.owner == os.getpid():
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass


def spawn(words: tuple[str, ...] = ()) -> Spawned:
    """Start a helper with these arguments. Raises SandboxError."""
    if not sys.executable:
        raise SandboxError(
            "cannot find the Python interpreter to start the sandbox's helper with", code="no-interpreter"
        )
    mine, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", _HELPER, *words],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
        )
    except OSError as error:
        mine.close()
        raise SandboxError(f"cannot start the sandbox's helper: {error.strerror}", code="helper-died") from error
    finally:
        theirs.close()
        os.close(null)
    return Spawned(pid, mine)


_ahead: list[Spawned] = []


def begin(network: bool) -> None:
    """Start the helper that the first step of this process will use; with ``network``, also its isolated network.

    For a command that is about to run a step: not before it has entered a user namespace, if it will. Never raises: who
    needs a helper and finds none starts one, and says what is wrong with that.
    """
    try:
        helper = spawn()
        _ahead.append(helper)
        if network:
            helper.network = helper.ask_for_network()
    except (OSError, SandboxError):
        pass


def begun() -> Spawned | None:
    """The helper that was started beforehand, once; None if there is none, or if it is another process's."""
    helper = _ahead.pop() if _ahead else None
    return helper if helper is not None and helper.owner == os.getpid() else None
