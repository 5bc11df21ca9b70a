"""Leases: what each running process uses or is about to make, so that nobody takes it away meanwhile.

A process has one file in ``leases/``, locked as long as it lives. It names each thing there *before* it looks whether
the thing exists, or before it makes it. Naming is done under the gate, shared; whoever decides what goes holds the gate
alone, reads all leases, forgets what nobody has named, and lets go. So a thing is either named in time, or seen to be
gone. The gate is held for microseconds by the ones, for milliseconds by the other, and never while waiting for work.

A lease whose lock can be had is that of a dead process. What stands in it as being made, and was not finished, is
garbage: ``Store.recover`` takes it away, with the temporary files, which bear the lease's name.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shiplap.errors import Interrupted
from shiplap.store.locks import Held, hold_lock, locked

SNAPSHOT, BLOB, MOUNT = "s", "b", "m"
NEW_SNAPSHOT, NAMED_SNAPSHOT, NEW_BLOB = "S", "N", "B"
"""In upper case what is being made. A snapshot with a name of its own (an image's layer) is found by it; any other only
through a result that names it, so without one it is garbage."""
_USED = {"s": SNAPSHOT, "b": BLOB, "m": MOUNT, "S": SNAPSHOT, "N": SNAPSHOT, "B": BLOB}


class Dead:
    """The lease of a process that has died, ours now: ``things`` are (kind, name)."""

    def __init__(self, held: Held, things: list[tuple[str, str]], ours: set[str]) -> None:
        self._held = held
        self._ours = ours
        self._ours.add(held.path)
        self.id = os.path.basename(held.path)
        self.things = things

    def made(self, kind: str) -> list[str]:
        return [name for found, name in self.things if found == kind]

    def settle(self, *, done: bool) -> None:
        """Let go of it, and forget it if all was cleared up."""
        self._held.release(remove=done)
        self._ours.discard(self._held.path)


class Lease:
    """This process's own. It begins with ``begin`` or with the first thing that is made; until then nothing is held."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "leases"
        self._gate = str(root / "locks" / "gate")
        self._lock = threading.Lock()
        self._begun = threading.Lock()
        self._held: set[tuple[str, str]] = set()
        self._own: Held | None = None
        self._file = -1
        self._door = -1
        self._deciding = 0
        self._abandoned = False
        self._taken_over: set[str] = set()
        """Leases of the dead that we hold to clear up: nobody else's, though they are locked."""

    @property
    def active(self) -> bool:
        return self._file >= 0

    @property
    def name(self) -> str:
        """What temporary files of this process begin with; empty before ``begin`` and after ``end``."""
        own = self._own
        return os.path.basename(own.path) if own is not None else ""

    def abandon(self) -> None:
        """Let nobody begin anything new: this process is about to end at once. Takes no lock: a signal handler may call it."""
        self._abandoned = True

    def begin(self) -> str:
        """Take part; the name that temporary files bear. Does nothing the second time. Raises Interrupted once abandoned."""
        if self._abandoned:
            raise Interrupted("this process is ending")
        with self._begun:
            while self._own is None:
                # Whoever clears up may find the file before it is locked; then another one is tried.
                path = self._directory / os.urandom(6).hex()
                self._own = hold_lock(str(path), wait=False)
            if self._file < 0:
                self._door = os.open(self._gate, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._file = os.open(self._own.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        return os.path.basename(self._own.path)

    def end(self) -> None:
        """Let everything go."""
        with self._begun:
            if self._own is not None:
                self._own.release(remove=True)
                self._own = None
            for fd in (self._file, self._door):
                if fd >= 0:
                    os.close(fd)
            self._file = self._door = -1
            self._held = set()

    def hold(self, kind: str, *names: str) -> None:
        """From now on nobody removes these. Look whether they exist afterwards, not before. OSError on a full disk."""
        if self._file < 0:
            return
        if self._deciding == threading.get_ident():
            return  # who decides only looks: the gate keeps all in its place
        with self._lock:
            wanted = [(kind, name) for name in names if (kind, name) not in self._held]
            if not wanted:
                return
            fcntl.flock(self._door, fcntl.LOCK_SH)
            try:
                self._note(wanted)
            finally:
                fcntl.flock(self._door, fcntl.LOCK_UN)

    def note(self, kind: str, *names: str) -> None:
        """Name what is being removed, while deciding: if we die over it, what is not recorded then is cleared up."""
        self._note([(kind, name) for name in names])

    def _note(self, wanted: list[tuple[str, str]]) -> None:
        if not wanted:
            return
        os.write(self._file, "".join(f"{kind} {name}\n" for kind, name in wanted).encode())
        self._held.update(wanted)

    def make(self, kind: str, name: str) -> None:
        """The same for what is about to be made, so that it is cleared up if this process dies over it."""
        self.begin()
        self.hold(kind, name)

    def holds(self, kind: str, name: str) -> bool:
        """Whether it was named so by this process."""
        return (kind, name) in self._held

    @contextmanager
    def deciding(self) -> Iterator[set[tuple[str, str]]]:
        """Hold the gate alone. Yields all that living processes hold, this one too; kinds are in lower case.

        Short things only: every build waits that asks for something new.
        """
        self.begin()
        with locked(self._gate):
            self._deciding = threading.get_ident()
            try:
                yield {(_USED[kind], name) for path in self._alive() for kind, name in _read(path) if kind in _USED}
            finally:
                self._deciding = 0

    def others_hold(self, kind: str, name: str) -> bool:
        """Whether another living process has named it."""
        own = self._own.path if self._own is not None else ""
        return any(
            _USED.get(found) == kind and named == name
            for path in self._alive()
            if path != own
            for found, named in _read(path)
        )

    def dead(self) -> list[Dead]:
        """The leases of processes that have died, each taken over."""
        found = []
        for path in self._others():
            held = hold_lock(path, wait=False, create=False) if path not in self._taken_over else None
            if held is not None:
                found.append(Dead(held, _read(path), self._taken_over))
        return found

    def living(self) -> set[str]:
        """The names of the leases that are held, this one's among them."""
        return {os.path.basename(path) for path in self._alive()}

    def _alive(self) -> list[str]:
        alive = [self._own.path] if self._own is not None else []
        for path in self._others():
            if path in self._taken_over:
                continue
            held = hold_lock(path, wait=False, create=False)
            if held is None:
                alive.append(path)
            else:
                held.release()  # dead: it holds nothing any more, and waits for ``dead``
        return alive

    def _others(self) -> list[str]:
        own = self._own.path if self._own is not None else ""
        return [path for name in os.listdir(self._directory) if (path := f"{self._directory}/{name}") != own]


def _read(path: str) -> list[tuple[str, str]]:
    # The last line may be torn off by a full disk: then nothing of that name was made.
    with suppress(OSError):
        text = Path(path).read_text(errors="replace")
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [(line[0], line[2:]) for line in lines if line[1:2] == " "]
    return []
