"""A user namespace with an emulator in a binfmt_misc of its own (Linux 6.7), for one step. The machine's is never touched.

The kernel looks for who runs a foreign program in the binfmt_misc of the process's user namespace, else of the parent's,
and so on up to the machine's. So a step that needs an emulator takes its last breath before exec inside a user namespace
with the same ids (each mapped to itself) that has been given one. The instance is mounted nowhere: it lives as long as the
descriptor that the keeper holds, no path leads to it, and the step, which may not mount, can register nothing.

Flags: F opens the emulator here and now, so that the step's root need not hold it; O has it given the program open; C lets
a setuid program be one (sudo works; the power is the step's own, in a namespace that means nothing outside); P tells argv[0].
"""

from __future__ import annotations

import _socket
import errno
import os
import sys

from shiplap.sandbox import linux
from shiplap.sandbox.refused import Refused

TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from typing import NoReturn


class Emulation:
    """``namespace``: descriptor of the user namespace to exec in; the other keeps its binfmt_misc alive."""

    __slots__ = ("_instance", "namespace")

    def __init__(self, namespace: int, instance: int) -> None:
        self.namespace = namespace
        self._instance = instance

    def close(self) -> None:
        """End it; programs that run already run on."""
        os.close(self.namespace)
        os.close(self._instance)


def emulate(program: str, magic: bytes, mask: bytes, flags: str) -> Emulation:
    """Have files that begin with ``magic``, as far as ``mask`` has bits set, run by the emulator ``program``.

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
    return Emulation(fds[0], fds[1])


def enter(namespace: int, mounts: bool) -> None:
    """Move this process, which loses the powers it had outside. ``mounts``: with a mount namespace where it may mount."""
    linux.setns(namespace, linux.CLONE_NEWUSER)
    if mounts:
        linux.unshare(linux.CLONE_NEWNS)


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def _map_to_itself(kind: str, pid: int) -> None:
    with open(f"/proc/self/{kind}_map") as table:
        spans = [line.split() for line in table]
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
