"""Locks between processes: ``flock(2)`` on files of the store. They die with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shiplap.errors import StoreError

_POLL = 0.02


@contextmanager
def locked(
    path: str, *, shared: bool = False, wait: bool = True, check: Callable[[], None] = lambda: None
) -> Iterator[bool]:
    """Hold the lock file ``path``. Yields False at once if it is taken and ``wait`` is False.

    ``check`` is called while waiting and may raise to give up.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        while True:
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait:
                    yield False
                    return
                check()
                time.sleep(_POLL)
            except OSError as error:
                raise StoreError(
                    f"cannot lock {path}: {error.strerror}",
                    code="no-locks",
                    hint="put the store on a local file system, with --root or SHIPLAP_ROOT",
                ) from None
        yield True
    finally:
        os.close(fd)
