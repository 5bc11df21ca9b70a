"""The fork server: a small single-threaded process that forks one keeper a step. Run as ``python -I -S helper.py``.

The builder has threads, and a process with threads can neither fork safely nor enter a user namespace; starting a fresh
interpreter for each step would cost more than the step's own isolation. So one such process is started at first use
and waits on descriptor 0, a SOCK_SEQPACKET socket: each packet says by one byte what is wanted and carries descriptors:

====== ==================================================================================================================
``s``  a step: its own socket, its standard output, its standard error, and, if it shall join one, a network
``e``  a step that is emulated: the same, with the user namespace that knows the emulator in the fourth place
``m``  such a user namespace: the socket over which to say what it is for, and to answer
``n``  a network: the socket over which to answer, and, if it shall belong to one, the user namespace
====== ==================================================================================================================

It ends when the builder's end closes, as every keeper does when its step's socket closes, so that nothing outlives a
builder killed with SIGKILL. (PR_SET_PDEATHSIG would not do: it fires when the thread that started the helper ends, and
that may be a worker.)
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself costs an import of enum
import _socket
import os
import sys


def _adopt_package() -> None:
    """Make ``shiplap.sandbox`` importable without running the package's own __init__ and without site-packages."""
    kind = type(sys)
    here = os.path.dirname(os.path.abspath(__file__))
    for name, path in (("shiplap", os.path.dirname(here)), ("shiplap.sandbox", here)):
        package = kind(name)
        package.__path__ = [path]
        sys.modules[name] = package


def serve(control: int) -> None:
    """Fork a keeper for each packet on ``control`` until the other end is gone."""
    from shiplap.sandbox import keeper, seccomp, step

    machine = os.uname().machine
    bpf = seccomp.default_filter(machine) if seccomp.supported(machine) else b""
    facts = step.Facts(machine, bpf)
    if facts.userns and seccomp.listens(machine):
        from shiplap.sandbox import supervisor  # noqa: F401 - once, rather than in each keeper

        facts.heard = seccomp.listening_filter(machine, facts.single)
    sock = _socket.socket(fileno=control)
    space = _socket.CMSG_SPACE(5 * 4)
    while True:
        packet, ancillary, _, _ = sock.recvmsg(1, space)
        if not packet:
            return
        fds = [
            int.from_bytes(data[at : at + 4], sys.byteorder)
            for level, kind, data in ancillary
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            for at in range(0, len(data) - len(data) % 4, 4)
        ]
        if packet == b"e":
            facts.expect_emulation()
        if fds and os.fork() == 0:
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, control)
            os.close(null)
            if packet == b"m":
                from shiplap.sandbox import binfmt

                binfmt.hold(fds[0])
            if packet == b"n":
                from shiplap.sandbox import network

                network.hold(*fds)
            namespace = fds.pop(3) if packet == b"e" else -1
            keeper.keep(fds[0], fds[1], fds[2], fds[3] if len(fds) > 3 else -1, namespace, facts)
        for fd in fds:
            os.close(fd)


def main(old_kernel: bool = False) -> None:
    """Set the process up, then serve. ``old_kernel``: as if this were Linux 5.1."""
    os.closerange(3, 1 << 16)
    os.chdir("/")
    try:
        os.setsid()  # an interrupt from the terminal is for the builder, which then closes the sockets
    except PermissionError:
        pass
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps the keepers
    _adopt_package()
    if old_kernel:
        from shiplap.sandbox import linux

        linux.forget_new_calls()
    serve(0)


def attempt(words: list[str]) -> int:
    """Try something out instead of serving; the exit status is an errno, or 0."""
    _adopt_package()
    from shiplap.sandbox import trial

    return trial.userns()


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] != "old-kernel":
        sys.exit(attempt(sys.argv[1:]))
    main(old_kernel=len(sys.argv) > 1)
