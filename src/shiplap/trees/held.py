"""Directories held open while a tree is walked, each opened in the other: safe from who changes it meanwhile.

A process has 1024 descriptors, and a tree may have twice as many levels. So of the directories that are not closed only the
last few are open; the others are found again by path when they are asked for, and have to be what they were.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict

HELD = 64
"""How many directories of one walk are open."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Held:
    """A directory. The first one is the caller's descriptor, which stays open."""

    __slots__ = ("_fd", "_identity", "_open", "_root", "_way")

    def __init__(self, root: int, way: str = "", fd: int = -1, opened: OrderedDict[int, Held] | None = None) -> None:
        self._root = root
        self._way = way
        self._fd = fd if way else root
        self._open: OrderedDict[int, Held] = opened if opened is not None else OrderedDict()
        self._identity = (0, 0)

    def fd(self) -> int:
        """Its descriptor, good until the next directory is opened. OSError (ESTALE) if another has taken its place."""
        if self._fd < 0:
            fd = os.open(self._way, _OPEN, dir_fd=self._root)
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != self._identity:
                os.close(fd)
                raise OSError(errno.ESTALE, "the directory was replaced while it was read", self._way)
            self._keep(fd)
        return self._fd

    def child(self, name: str) -> Held:
        """The directory ``name`` in it, opened without following a link. OSError."""
        fd = os.open(name, _OPEN, dir_fd=self.fd())
        below = Held(self._root, f"{self._way}/{name}" if self._way else name, -1, self._open)
        below._keep(fd)
        return below

    def close(self) -> None:
        if self._way and self._fd >= 0:
            del self._open[id(self)]
            os.close(self._fd)
            self._fd = -1

    def _keep(self, fd: int) -> None:
        self._fd = fd
        self._open[id(self)] = self
        if len(self._open) > HELD:
            self._open[next(iter(self._open))]._let_go()

    def _let_go(self) -> None:
        found = os.fstat(self._fd)
        self._identity = (found.st_dev, found.st_ino)
        self.close()
