"""Finds, and where needed makes, a path inside a root directory, never leaving it.

openat2(RESOLVE_IN_ROOT) where the kernel has it; else, and whenever something must be made, a walk that opens each
component without following it, reads links itself, and steps back over a stack of descriptors for ``..``. Whoever swaps
a component meanwhile can make the walk fail, not escape. (The sandbox may not import trees/, and the helper that uses
this module may not import anything slow, hence a second, smaller copy of that rule here.)
"""

from __future__ import annotations

import errno
import os
import stat

from shiplap.sandbox import linux

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 255
"""As in filepath-securejoin, which decides this in the runtimes; the kernel stops at 40."""


class Made:
    """A file or directory that did not exist: ``parent`` are the names from the root to its directory."""

    __slots__ = ("after", "before", "inode", "name", "on_root", "parent")

    def __init__(self, parent: tuple[str, ...], name: str, inode: int, before: int, after: int, on_root: bool) -> None:
        self.parent = parent
        self.name = name
        self.inode = inode
        self.before = before
        """Modification time of the parent in ns before, and ``after``, this was made in it."""
        self.after = after
        self.on_root = on_root
        """Whether it lies on the root's own file system, not on something mounted over it."""

    def record(self) -> tuple[object, ...]:
        """As plain values, to cross a pipe."""
        return self.parent, self.name, self.inode, self.before, self.after, self.on_root


class Place:
    """A path found: descriptors (O_PATH) of it and of its directory, and the name between them ("" for the root)."""

    __slots__ = ("fd", "made", "name", "names", "parent")

    def __init__(self, fd: int, parent: int, names: tuple[str, ...], made: list[Made]) -> None:
        self.fd = fd
        self.parent = parent
        self.names = names
        """From the root to the place, without any link."""
        self.name = names[-1] if names else ""
        self.made = made

    def close(self) -> None:
        os.close(self.fd)
        if self.parent >= 0:
            os.close(self.parent)


def open_in(root: int, path: str) -> int:
    """Descriptor (O_PATH) of ``path`` inside the directory ``root``, links followed within it. Raises OSError."""
    try:
        resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
        return linux.openat2(root, path.lstrip("/") or ".", os.O_PATH, resolve)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.E2BIG):
            raise
    place = reach(root, path)
    if place.parent >= 0:
        os.close(place.parent)
    return place.fd


def reach(root: int, path: str, make: str = "", mode: int = 0o755, owner: tuple[int, int] = (-1, -1)) -> Place:
    """Walk to ``path`` inside ``root``. What is missing is made if ``make`` is "dir" or "file" (the kind of the last
    component), with ``mode`` (directories) and ``owner`` (uid, gid); otherwise FileNotFoundError. ELOOP after 255
    links.
    """
    walk = _Walk(root, make, mode, owner)
    try:
        walk.go(path)
        return walk.finish()
    except BaseException:
        walk.close()
        raise


class _Walk:
    def __init__(self, root: int, make: str, mode: int, owner: tuple[int, int]) -> None:
        self._fds = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)]
        self._names: list[str] = []
        self._device = os.fstat(self._fds[0]).st_dev
        self._make = make
        self._mode = mode
        self._owner = owner
        self._made: list[Made] = []

    def go(self, path: str) -> None:
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                self._back()
                continue
            rest = any(part not in ("", ".") for part in todo)
            fd = self._open(name, directory=rest or self._make != "file")
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                target = os.readlink("", dir_fd=fd)
                os.close(fd)
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    while len(self._fds) > 1:
                        self._back()
                todo += target.split("/")[::-1]
                continue
            self._fds.append(fd)
            self._names.append(name)
            if rest and not stat.S_ISDIR(mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), "/" + "/".join(self._names))

    def finish(self) -> Place:
        fd = self._fds.pop()
        parent = self._fds.pop() if self._fds else -1
        self.close()
        return Place(fd, parent, tuple(self._names), self._made)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _back(self) -> None:
        if len(self._fds) > 1:
            os.close(self._fds.pop())
            self._names.pop()

    def _open(self, name: str, directory: bool) -> int:
        try:
            return os.open(name, _PATH, dir_fd=self._fds[-1])
        except FileNotFoundError:
            if not self._make:
                raise
        here = self._fds[-1]
        before = os.fstat(here)
        if directory:
            os.mkdir(name, self._mode, dir_fd=here)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644, dir_fd=here))
        if self._owner != (-1, -1):
            os.chown(name, *self._owner, dir_fd=here, follow_symlinks=False)
        inode = os.stat(name, dir_fd=here, follow_symlinks=False).st_ino
        after = os.fstat(here).st_mtime_ns
        on_root = before.st_dev == self._device
        self._made.append(Made(tuple(self._names), name, inode, before.st_mtime_ns, after, on_root))
        return os.open(name, _PATH, dir_fd=here)


def unmake(root: int, made: list[Made]) -> None:
    """Remove what ``reach`` made on the root's own file system, if it is still the same inode and empty, last first.

    The directory gets back the modification time it had, or, if the step has changed it since, keeps the step's. What
    cannot be removed stays: it is the step's own business by now.
    """
    for item in reversed(made):
        if not item.on_root:
            continue
        try:
            _unmake(root, item)
        except OSError:
            continue


def _unmake(root: int, item: Made) -> None:
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        for name in item.parent:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = inner
        found = os.stat(item.name, dir_fd=here, follow_symlinks=False)
        if found.st_ino != item.inode:
            return
        times = os.fstat(here)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(item.name, dir_fd=here)
        elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.unlink(item.name, dir_fd=here)
        else:
            return
        modified = item.before if times.st_mtime_ns == item.after else times.st_mtime_ns
        os.utime(here, ns=(times.st_atime_ns, modified))
    finally:
        os.close(here)
