"""The keeper: the process that holds a step's root, watches the step, and cleans up after it.

It has the overlay in a mount namespace of its own, so it sees the root without what is mounted over it. The step is the
first process of a new pid namespace: when it ends, however it ends, the kernel kills whatever it left.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import resource
import select
import sys

from shiplap.sandbox import linux, mounts
from shiplap.sandbox.messages import read_message, write_message
from shiplap.sandbox.refused import Refused
from shiplap.sandbox.rooted import Made, reach, unmake
from shiplap.sandbox.step import explain, first_process, scratch, spare

NO_FOLLOW = 0x100  # AT_SYMLINK_NOFOLLOW
TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from typing import NoReturn

    from shiplap.sandbox.ledger import Ledger
    from shiplap.sandbox.step import Facts, Request
    from shiplap.sandbox.supervisor import Supervisor


def keep(sock: int, stdout: int, stderr: int, network: int, namespace: int, facts: Facts) -> NoReturn:
    """The keeper's life: read the request, run it, answer ("exit", code, out of memory, owners) or ("error", code, text,
    hint). ``network``: the namespace of an isolated network, or -1; ``namespace``: the user namespace to exec in, or -1.

    Never returns: a process forked from the helper must not fall back into its loop.
    """
    try:
        request = read_message(sock)
        try:
            answer: tuple[object, ...] = _Keeper(request, sock, network, namespace, facts).run(stdout, stderr)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side must hear of it
            answer = ("error", *explain(error))
        try:
            write_message(sock, answer)
        except OSError:  # the builder was killed, and nobody else knows of its bundle
            if request["runtime"] is not None:
                _remove(request["runtime"]["bundle"])
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


class _Keeper:
    def __init__(self, request: Request, sock: int, network: int, namespace: int, facts: Facts) -> None:
        self._request = request
        self._network = network
        self._namespace = namespace
        self._sock = sock
        self._facts = facts
        self._made: list[Made] = []
        self._failure: tuple[str, str, str] | None = None
        self._ledger: Ledger | None = None
        self._supervisor: Supervisor | None = None

    def run(self, stdout: int, stderr: int) -> tuple[object, ...]:
        request, facts = self._request, self._facts
        if not facts.filter and not request["insecure"] and request["runtime"] is None:
            hint = "use --isolation oci with runc or crun"
            raise Refused("no-seccomp", f"the native sandbox has no system call table for {facts.machine}", hint)
        if os.listdir(request["work"]):
            raise Refused("work-not-empty", f"overlay's work directory {request['work']} has been used before")
        os.umask(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (facts.nofile[1], facts.nofile[1]))
        self._emulate()  # in a process that must not be the first of the new pid namespace
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        os.mkdir(scratch(request), 0o700)
        for index, mount in enumerate(request["mounts"]):
            if mount["kind"] == "overlay":
                for name in ("", "upper", "work"):  # one by one: a builder that gave up may have removed what is above
                    os.mkdir(spare(request, index, name), 0o755)
        nodev = not request["insecure"] and request["runtime"] is None
        upper = os.open(request["upper"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        root = mounts.mount_root(request["lowers"], request["upper"], request["work"], facts.userns, nodev)
        try:
            mounts.real_directories(root)
            self._keep_owners(root)
            self._working_directory(root)
            code, memory = self._process(stdout, stderr)
            unmake(root, self._made)
            self._made = []
            owners = self._ledger.collect(upper, root) if self._ledger is not None else None
        finally:
            unmake(root, self._made)
            if self._ledger is not None:
                self._ledger.close()
            os.close(root)
            os.close(upper)
            _unmount(request["upper"])
            if request["runtime"] is not None and request["runtime"]["delete"]:
                _delete_container(request["runtime"]["delete"])
        if self._failure is not None:
            return ("error", *self._failure)
        return ("exit", code, memory, owners)

    def _emulate(self) -> None:
        """Get ready for a step that is to run in a user namespace of its own. In there nobody may make a device, so the
        calls that do are heard; and a network without a way out has to belong to it, too."""
        request, facts = self._request, self._facts
        if self._namespace >= 0:
            facts.heard = facts.emulated
            if request["network"] == "none" and request["runtime"] is None:
                from shiplap.sandbox import binfmt

                self._network = binfmt.lonely(self._namespace)

    def _keep_owners(self, root: int) -> None:
        """Begin the ledger of what this kernel would refuse, if it lets us hear of it."""
        request, facts = self._request, self._facts
        if facts.heard:
            from shiplap.sandbox.ledger import Ledger
            from shiplap.sandbox.supervisor import Supervisor

            self._ledger = Ledger(facts.machine, facts.single)
            self._ledger.seed(root, request["owners"], bool(request["lowers"]))
            self._supervisor = Supervisor(self._ledger, facts.machine, request["groups"])

    def _working_directory(self, root: int) -> None:
        """Made, as the step's user's, if it is missing."""
        uid, gid = self._request["uid"], self._request["gid"]
        foreign = self._facts.single and (uid, gid) != (0, 0)
        place = reach(root, self._request["cwd"], "dir", 0o755, (0, 0) if foreign else (uid, gid))
        if foreign and self._ledger is not None:
            for made in place.made:
                path = "/".join((*made.parent, made.name))
                self._ledger.write(self._ledger.look(root, os.fsencode(path), NO_FOLLOW), uid, gid)
        place.close()

    def _process(self, stdout: int, stderr: int) -> tuple[int, bool]:
        kills = _memory_kills()
        report, write = os.pipe()
        mine, theirs = _socket.socketpair() if self._supervisor is not None else (None, None)
        pid = os.fork()
        if pid == 0:
            heard = theirs.fileno() if theirs is not None else -1
            first_process(self._request, self._facts, stdout, stderr, write, heard, self._network, self._namespace)
        os.close(write)
        os.close(stdout)
        os.close(stderr)
        if theirs is not None:
            theirs.close()
        try:
            status = self._watch(pid, report, mine)
        finally:
            if self._supervisor is not None:
                self._supervisor.close()
        code = os.waitstatus_to_exitcode(status)
        code = 128 - code if code < 0 else code
        return code, code == 137 and _memory_kills() > kills

    def _watch(self, pid: int, report: int, heard: _socket.socket | None) -> int:
        """Wait for the process, reading what it reports, and kill it once the socket is closed. Its wait status.

        ``heard``: where the process hands over the listener of its calls, which are answered meanwhile.
        """
        supervisor, listener = self._supervisor, -1
        try:
            ended = os.pidfd_open(pid)
        except OSError:  # before Linux 5.3: look every few milliseconds
            ended = -1
        poller = select.poll()
        for fd in (self._sock, report, ended, heard.fileno() if heard is not None else -1):
            if fd >= 0:
                poller.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poller.poll(10 if ended < 0 else None)}
            if listener in ready and supervisor is not None:
                supervisor.answer()
                if len(ready) == 1:
                    continue
            if heard is not None and heard.fileno() in ready:
                poller.unregister(heard)
                listener = _received(heard)
                heard.close()
                heard = None
                if listener >= 0 and supervisor is not None:
                    supervisor.listen(listener)
                    poller.register(listener, select.POLLIN)
            if report in ready and not self._hear(report):
                poller.unregister(report)
            if self._sock in ready:
                poller.unregister(self._sock)
                os.kill(pid, _signal.SIGKILL)
            if ended < 0 or ended in ready:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    break
        while report in ready and self._hear(report):
            pass
        if ended >= 0:
            os.close(ended)
        os.close(report)
        return status

    def _hear(self, report: int) -> bool:
        try:
            kind, *rest = read_message(report)
        except EOFError:
            return False
        if kind == "made":
            self._made.append(Made(*rest))
        elif kind == "owned":
            if self._ledger is not None:
                from shiplap.sandbox.ledger import key

                self._ledger.records[key(rest[0], rest[1])] = (rest[2], rest[3], 0, 0, -1)
        else:
            self._failure = (rest[0], rest[1], rest[2])
        return True


def _received(sock: _socket.socket) -> int:
    """The descriptor that comes over ``sock``; -1 if its other end has been closed."""
    data, ancillary, _, _ = sock.recvmsg(1, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    return int.from_bytes(ancillary[0][2], sys.byteorder) if data and ancillary else -1


def _unmount(path: str) -> None:
    try:
        linux.unmount(path)
    except OSError:
        linux.unmount(path, linux.MNT_DETACH)


def _delete_container(words: list[str]) -> None:
    """Let an OCI runtime remove its cgroup. No process of the container is alive; the numbers in the runtime's record
    are of a pid namespace that is gone, so it runs in an empty one, where it cannot take another process for its own.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    linux.setns(own, linux.CLONE_NEWPID)  # nothing can be forked into the one that is gone
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        try:
            linux.mount("proc", "/proc", "proc", mounts.INERT)
            os.execve(words[0], words, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    os.close(own)


def _remove(directory: str) -> None:
    for path, directories, files in os.walk(directory, topdown=False):
        for name in files:
            os.unlink(os.path.join(path, name))
        for name in directories:
            os.rmdir(os.path.join(path, name))
    os.rmdir(directory)


def _memory_kills() -> int:
    """How often this machine has killed for want of memory (Linux 4.13; 0 before): all there is without a cgroup."""
    try:
        with open("/proc/vmstat", "rb") as table:
            return next((int(line.split()[1]) for line in table if line.startswith(b"oom_kill ")), 0)
    except OSError:
        return 0
