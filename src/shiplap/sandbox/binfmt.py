"""A user namespace with an emulator in a binfmt_misc of its own (Linux 6.7). The machine's is never touched.

The kernel looks for who runs a foreign program in the binfmt_misc of the process's user namespace, else of the parent's,
and so on up to the machine's. So a step that needs an emulator takes its last breath before exec inside a user namespace
with the same ids (each mapped to itself) that has been given one. All steps of a build which need the same emulator share it,
as the others share the one that the builder is in. The instance is mounted nowhere: it lives as long as the descriptor that
the builder holds, no path leads to it, and a step, which may not mount, can register nothing.

A process in there has power over what belongs to that user namespace alone. A network of the machine's does not; so one that
is made for steps is made from inside (``network.py`` for the isolated one, ``lonely`` for none).

Flags: F opens the emulator here and now, so that the step's root need not hold it; O has it given the program open; C lets
a setuid program be one (sudo works; the power is the step's own, in a namespace that means nothing outside); P tells argv[0].
"""

from __future__ import annotations

import _socket
import errno
import marshal
import os
import sys

from shiplap.sandbox import linux
from shiplap.sandbox.refused import Refused

TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from typing import NoReturn


def hold(sock: int) -> NoReturn:
    """Read what ``emulate`` takes from ``sock``, and answer with ("made",) and both descriptors, or ("error", code, text,
    hint). Never returns."""
    from shiplap.sandbox.messages import read_message
    from shiplap.sandbox.step import explain

    try:
        answer: tuple[str, ...] = ("made",)
        rights = b""
        try:
            fds = emulate(**read_message(sock))
            rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side must hear of it
            answer = ("error", *explain(error))
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
        _socket.socket(fileno=sock).sendmsg([marshal.dumps(answer)], ancillary)
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


def emulate(program: str, magic: bytes, mask: bytes, flags: str) -> tuple[int, int]:
    """Have files that begin with ``magic``, as far as ``mask`` has bits set, run by the emulator ``program``: descriptors of
    the user namespace to exec in, and of its binfmt_misc, which ends when they are closed; programs that run then run on.

    For a process that may write maps of user ids: root, or root of a user namespace. Raises Refused (no-binfmt).
    """
    rule = f":emulator:M::{_escaped(magic)}:{_escaped(mask)}:{program}:{flags}"
    mine, theirs = _socket.socketpair()
    pid = os.fork()
    if pid == 0:
        mine.close()
        _register(theirs, rule)
    theirs.close()
    try:
        fds: list[int] = []
        word = mine.recv(64)
        if word == b"entered":
            for kind in ("uid", "gid"):
                _map_to_itself(kind, pid)
            mine.send(b"m")
            word, rights, _, _ = mine.recvmsg(64, _socket.CMSG_SPACE(8))
            fds = [int.from_bytes(rights[0][2][at : at + 4], sys.byteorder) for at in (0, 4)] if rights else []
    finally:
        mine.close()
        os.waitpid(pid, 0)
    if not fds:
        stage, _, number = word.decode().partition(" ")
        raise _refused(stage, int(number or errno.EIO))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds[0], fds[1]


def lonely(namespace: int) -> int:
    """Descriptor of a network of loopback alone, over which the user namespace has power. Raises OSError."""
    mine, theirs = _socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            from shiplap.sandbox.network import loopback_up

            linux.setns(namespace, linux.CLONE_NEWUSER)
            linux.unshare(linux.CLONE_NEWNET)
            loopback_up()
            own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            theirs.sendmsg([b"n"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, own.to_bytes(4, sys.byteorder))])
        finally:
            os._exit(0)
    theirs.close()
    _, rights, _, _ = mine.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    mine.close()
    os.waitpid(pid, 0)
    if not rights:
        raise OSError(errno.EPERM, "no network of its own can be made")
    return int.from_bytes(rights[0][2], sys.byteorder)


def enter(namespace: int, mounts: bool) -> None:
    """Move this process, which loses the powers it had outside. ``mounts``: with a mount namespace where it may mount."""
    linux.setns(namespace, linux.CLONE_NEWUSER)
    if mounts:
        linux.unshare(linux.CLONE_NEWNS)


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def _map_to_itself(kind: str, pid: int) -> None:
    """In at least two spans: by one over everything programs, runc and crun among them, know the machine's own user
    namespace, and then make device nodes instead of binding the machine's."""
    with open(f"/proc/self/{kind}_map") as table:
        spans = [[int(word) for word in line.split()] for line in table]
    if len(spans) == 1 and spans[0][2] > 1:
        first, _, count = spans[0]
        spans = [[first, 0, 1], [first + 1, 0, count - 1]]
    fd = os.open(f"/proc/{pid}/{kind}_map", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, "".join(f"{inside} {inside} {count}\n" for inside, _, count in spans).encode())
    os.close(fd)


def _register(sock: _socket.socket, rule: str) -> NoReturn:
    """A child of its own, for it leaves the keeper's namespaces: makes both and hands them over."""
    stage = "namespace"
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        sock.send(b"entered")
        if sock.recv(1):
            stage = "mount"
            instance = linux.mount_detached("binfmt_misc")
            stage = "register"
            fd = os.open("register", os.O_WRONLY | os.O_CLOEXEC, dir_fd=instance)
            os.write(fd, rule.encode())
            os.close(fd)
            own = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            rights = own.to_bytes(4, sys.byteorder) + instance.to_bytes(4, sys.byteorder)
            sock.sendmsg([b"done"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    except OSError as error:
        sock.send(f"{stage} {error.errno}".encode())
    finally:
        os._exit(0)


def _refused(stage: str, number: int) -> Refused:
    said = os.strerror(number).lower()
    if stage == "mount" and number == errno.ENODEV:
        return Refused("no-binfmt", "this kernel has no binfmt_misc", "sudo modprobe binfmt_misc")
    if stage == "mount":
        release = os.uname().release
        text = f"Linux {release} gives a user namespace no binfmt_misc of its own, as 6.7 and later do ({said})"
        return Refused("no-binfmt", text, "")
    if stage == "namespace":
        hint = "sudo sysctl -w user.max_user_namespaces=15000" if number == errno.ENOSPC else ""
        return Refused("no-binfmt", f"an emulator needs a user namespace of its own, which is refused: {said}", hint)
    return Refused("no-binfmt", f"the kernel refuses the emulator: {said}", "")
