"""The builder's end of the fork server: starts it, sends it steps, relays what they write."""

from __future__ import annotations

import _socket  # socket itself costs the imports of selectors and enum
import marshal
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from threading import Event, Lock
from typing import Any, TypeVar

import msgspec

from shiplap.errors import Interrupted, SandboxError
from shiplap.sandbox.messages import read_message, write_message
from shiplap.sandbox.spawn import Spawned, begun, spawn
from shiplap.sandbox.spec import Emulator, ExitStatus, Output

T = TypeVar("T")

_CANCEL_POLL_MS = 30
"""How soon a set ``cancel`` is seen. An Event cannot be polled for."""
_CHUNK = 64 << 10
_DRAIN_SECONDS = 0.8
"""How long to read on once the process has ended, if something outside the sandbox holds its pipe and keeps writing."""
_OUTLET_SECONDS = 15.0
"""How long to wait for a network: two programs may be tried, five seconds each."""
_KILL_SECONDS = 20.0
"""How long a killed step may take to go, e.g. while a disk write it waits for completes."""


class Outlet(msgspec.Struct, frozen=True):
    """An isolated network: ``program`` is what connects it, ``descriptor`` its namespace; or ``reason``: why there is none."""

    program: str
    reason: str
    descriptor: int = -1
    guard: _socket.socket | None = None
    owner: int = 0

    def close(self) -> None:
        """End it."""
        if self.guard is not None:
            self.guard.close()
            os.close(self.descriptor)


class Emulation(msgspec.Struct, frozen=True):
    """A user namespace in which an emulator is known: its descriptor, and one that keeps its binfmt_misc."""

    namespace: int
    instance: int
    owner: int

    def close(self) -> None:
        """End it; programs that run already run on."""
        os.close(self.namespace)
        os.close(self.instance)


class Helper:
    """One fork server, started at first use or begun before (spawn.py). Any thread may call ``step``, many at once.

    A process forked from the builder starts its own. ``close`` (or the end of the process) ends it.
    """

    def __init__(self, words: tuple[str, ...] = ()) -> None:
        """``words``: arguments for helper.py."""
        self._words = words
        self._lock = Lock()
        self._process: Spawned | None = None
        self._connecting = Lock()
        self._outlets: dict[Emulator | None, Outlet] = {}
        self._emulations: dict[Emulator, Emulation] = {}

    def outlet(self, emulator: Emulator | None = None) -> Outlet:
        """The isolated network of this helper's steps (of those with this ``emulator``), made at first use. Raises
        SandboxError if the helper died, or as ``emulation`` does."""
        user = self.emulation(emulator).namespace if emulator is not None else -1
        with self._connecting:
            outlet = self._outlets.get(emulator)
            if outlet is None or outlet.owner != os.getpid():
                outlet = self._outlets[emulator] = self._connect(user)
            return outlet

    def _connect(self, user: int) -> Outlet:
        for last in (False, True):
            mine = self._asked_for_network(user)
            mine.settimeout(_OUTLET_SECONDS)
            try:
                data, fds = _received(mine)
            except OSError:
                data, fds = b"it takes too long", []
            if fds:
                return Outlet(data.decode(), "", fds[0], mine, os.getpid())
            mine.close()
            if data or last:  # else whoever should have answered was killed, maybe before anybody listened
                break
        return Outlet("", data.decode(errors="replace") or "it did not start", -1, None, os.getpid())

    def _asked_for_network(self, user: int) -> _socket.socket:
        """Where the answer comes; of the helper's own network it may be there already."""

        def ask(helper: Spawned) -> _socket.socket:
            mine, helper.network = (helper.network, None) if user < 0 else (None, helper.network)
            return mine or helper.ask_for_network(user)

        return self._with_process(ask)

    def emulation(self, emulator: Emulator) -> Emulation:
        """The user namespace of this helper's steps with this ``emulator``, made at first use. Raises SandboxError
        (no-binfmt) if the kernel refuses it."""
        with self._connecting:
            found = self._emulations.get(emulator)
            if found is None or found.owner != os.getpid():
                found = self._emulations[emulator] = self._emulate(emulator)
            return found

    def _emulate(self, emulator: Emulator) -> Emulation:
        mine, theirs = _socket.socketpair()
        try:
            try:
                self._send([theirs.fileno()], b"m")
            finally:
                theirs.close()
            write_message(mine.fileno(), msgspec.structs.asdict(emulator))
            data, fds = _received(mine)
        except OSError:
            data, fds = b"", []
        finally:
            mine.close()
        if not data:
            raise SandboxError("the sandbox's helper process died", code="helper-died")
        answer = marshal.loads(data)
        if answer[0] == "error":
            _, code, message, hint = answer
            raise SandboxError(message, code=code, hint=hint or None)
        return Emulation(fds[0], fds[1], os.getpid())

    def step(
        self, request: Mapping[str, Any], output: Output, cancel: Event, network: int = -1, namespace: int = -1
    ) -> ExitStatus:
        """Run one step (wire.request) to its end; ``network``: descriptor of the one it joins; ``namespace``: of the user
        namespace that knows its emulator.

        Raises Interrupted, SandboxError.
        """
        if cancel.is_set():
            raise Interrupted("cancelled before the step started")
        mine, theirs = _socket.socketpair()
        pipes = [os.pipe(), os.pipe()]
        run = _Run(mine, {pipes[0][0]: 1, pipes[1][0]: 2}, output, cancel)
        try:
            try:
                more = [fd for fd in (namespace, network) if fd >= 0]
                fds = [theirs.fileno(), pipes[0][1], pipes[1][1], *more]
                self._send(fds, b"e" if namespace >= 0 else b"s")
            finally:
                theirs.close()
                for _, write in pipes:
                    os.close(write)
            try:
                write_message(mine.fileno(), dict(request))
            except OSError as error:
                raise SandboxError("the sandbox's helper process died", code="helper-died") from error
            return run.follow()
        finally:
            run.stop()

    def close(self) -> None:
        """End the fork server; steps still running are killed. Safe to call twice."""
        with self._connecting:
            everything: list[Outlet | Emulation] = [*self._outlets.values(), *self._emulations.values()]
            for held in everything:
                if held.owner == os.getpid():
                    held.close()
            self._outlets, self._emulations = {}, {}
        with self._lock:
            self._forget()

    def _send(self, fds: list[int], kind: bytes) -> None:
        self._with_process(lambda helper: helper.send(kind, fds))

    def _with_process(self, act: Callable[[Spawned], T]) -> T:
        """Let ``act`` send something to the process, which is started if there is none; once more if it had been killed."""
        with self._lock:
            for last in (False, True):
                if self._process is None or self._process.owner != os.getpid():
                    self._process = (begun() if not self._words else None) or spawn(self._words)
                try:
                    return act(self._process)
                except OSError as error:
                    self._forget()
                    if last:
                        raise SandboxError("the sandbox's helper process died", code="helper-died") from error
            raise AssertionError

    def _forget(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def _received(sock: _socket.socket) -> tuple[bytes, list[int]]:
    """A message and the descriptors that came with it, two at most."""
    data, ancillary, _, _ = sock.recvmsg(4096, _socket.CMSG_SPACE(2 * 4), _socket.MSG_CMSG_CLOEXEC)
    rights = b"".join(part for _, _, part in ancillary)
    return data, [int.from_bytes(rights[at : at + 4], sys.byteorder) for at in range(0, len(rights), 4)]


class _Run:
    """One step under way: its socket and the reading ends of its pipes (descriptor to stream number)."""

    def __init__(self, sock: _socket.socket, streams: dict[int, int], output: Output, cancel: Event) -> None:
        self._sock = sock
        self._streams = streams
        self._output = output
        self._cancel = cancel
        self._answer: tuple[Any, ...] | None = None
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        for fd in streams:
            os.set_blocking(fd, False)
            self._poller.register(fd, select.POLLIN)

    def follow(self) -> ExitStatus:
        """Relay output until the keeper answers, then what is left in the pipes."""
        while self._answer is None:
            for fd, _ in self._poller.poll(_CANCEL_POLL_MS):
                if fd == self._sock.fileno():
                    self._read_answer()
                else:
                    self._relay(fd)
            if self._cancel.is_set() and self._answer is None:
                self.stop(closing=False)
                raise Interrupted("the step was cancelled")
        self._drain()
        if self._answer[0] == "error":
            _, code, message, hint = self._answer
            raise SandboxError(message, code=code, hint=hint or None)
        _, status, memory, owners = self._answer
        return ExitStatus(status, memory, owners)

    def stop(self, closing: bool = True) -> None:
        """Make the keeper kill what still runs, wait until it has gone, and release everything. Idempotent."""
        if self._sock.fileno() >= 0:
            try:
                self._sock.shutdown(_socket.SHUT_WR)
            except OSError:
                pass
            self._await_keeper()
        if closing:
            self._sock.close()
            for fd in self._streams:
                os.close(fd)
            self._streams = {}

    def _await_keeper(self) -> None:
        """The keeper closes its end after the process, the mounts and the placeholders are gone."""
        self._sock.settimeout(_KILL_SECONDS)
        try:
            while self._sock.recv(_CHUNK):
                pass
        except OSError:
            pass

    def _read_answer(self) -> None:
        try:
            self._answer = read_message(self._sock.fileno())
        except (EOFError, OSError) as error:
            raise SandboxError("the sandbox's keeper process was killed", code="helper-died") from error

    def _relay(self, fd: int) -> bool:
        """Pass on what is in the pipe ``fd``; whether there may be more."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._poller.unregister(fd)
            os.close(fd)
            self._streams.pop(fd)
            return False
        self._output(self._streams[fd], data)
        return True

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        for fd in list(self._streams):
            while self._relay(fd):
                if time.monotonic() > deadline:
                    break
