"""Locks between processes: ``flock(2)`` on files of the store. They die with the process that holds them.

A lock file may be removed by whoever holds its lock. So who gets a lock looks whether the file still bears its name.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shiplap.errors import StoreError

_POLL = 0.001, 0.02
"""Seconds between two tries: the first, and what they grow to."""


class Held:
    """A lock that is held, until ``release``."""

    __slots__ = ("_fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def share(self) -> None:
        """Let others in who want to share it."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def release(self, *, remove: bool = False) -> None:
        """Give it back; ``remove``: and its file, for no more is to be done under it. Harmless when done twice."""
        if self._fd < 0:
            return
        if remove:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
        os.close(self._fd)
        self._fd = -1


def hold_lock(
    path: str,
    *,
    shared: bool = False,
    wait: bool = True,
    create: bool = True,
    check: Callable[[], None] = lambda: None,
) -> Held | None:
    """The lock of the file ``path``; None if it is taken and ``wait`` is False, or not there and not to be created.

    ``check`` is called while waiting and may raise to give up. Raises StoreError (no-locks), OSError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    pause = _POLL[0]
    while True:
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            while True:
                try:
                    fcntl.flock(fd, kind)
                    break
                except BlockingIOError:
                    if not wait:
                        os.close(fd)
                        return None
                    check()
                    time.sleep(pause)
                    pause = min(pause * 2, _POLL[1])
                except OSError as error:
                    raise StoreError(
                        f"cannot lock {path}: {error.strerror}",
                        code="no-locks",
                        hint="put the store on a local file system, with --root or SHIPLAP_ROOT",
                    ) from None
            if _names(path, fd):
                return Held(fd, path)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _names(path: str, fd: int) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(fd))


@contextmanager
def locked(
    path: str,
    *,
    shared: bool = False,
    wait: bool = True,
    remove: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Iterator[bool]:
    """Hold the lock file ``path``. Yields False at once if it is taken and ``wait`` is False.

    ``remove``: take the file away in the end. ``check`` is called while waiting and may raise to give up.
    """
    held = hold_lock(path, shared=shared, wait=wait, check=check)
    try:
        yield held is not None
    finally:
        if held is not None:
            held.release(remove=remove)
