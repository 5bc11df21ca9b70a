"""Files that appear complete or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from shiplap.errors import ExportError

_CANNOT = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
"""What a file system or kernel says that knows no file without a name."""
_MOST_LINKS = 40
"""As many links behind each other as the kernel follows (path_resolution(7))."""


def writing(path: Path) -> AbstractContextManager[BinaryIO]:
    """Open the file that a user named, for writing. What a link leads to is written, and the link stays.

    A device, pipe or socket takes what is written as it comes, as does an open file of this process (``/dev/stdout``,
    ``/dev/fd/63``); else it is as with ``replacing``. Raises ExportError (cannot-write).
    """
    try:
        path = _behind_links(path)
        if path.parent == Path(f"/proc/{os.getpid()}/fd"):
            return open(os.dup(int(path.name)), "wb")
        if not _replaceable(path):
            return open(os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC), "wb")
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}", code="cannot-write") from None
    return replacing(path)


def _behind_links(path: Path) -> Path:
    """The path that ``path`` leads to; an open file of a process is no further one (its link need not be a path)."""
    for _ in range(_MOST_LINKS):
        path = Path(os.path.realpath(path.parent), path.name)
        if not path.is_symlink() or path.is_relative_to("/proc"):
            return path
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _replaceable(path: Path) -> bool:
    """Whether there is a plain file or nothing; a directory is, too, for it then says that it is one."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


class locked(AbstractContextManager[None]):
    """Those who write to one directory take turns: one that reads what it adds to would lose another's."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class replacing:
    """Writes a file that has no name yet (O_TMPFILE, open(2)), and puts it at ``path`` if all went well.

    So whoever is killed over it leaves nothing behind. Only where the file system cannot do that it is written aside.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}.shiplap")
        self._nameless = True

    def __enter__(self) -> BinaryIO:
        try:
            try:
                fd = os.open(self._path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                self._nameless = False
                self._aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
                fd = os.open(self._aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ExportError(f"cannot write {self._path}: {error.strerror}", code="cannot-write") from None
        self._file = open(fd, "wb")
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                while not self._placed():
                    continue
        finally:
            if not self._nameless:
                self._aside.unlink(missing_ok=True)
            self._file.close()

    def _placed(self) -> bool:
        """Rename it over ``path``; False if another process that writes the same file came in between."""
        if self._nameless:
            # A name that is there was left by one that was killed just here, or is another's of this very moment.
            self._aside.unlink(missing_ok=True)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.link(f"/proc/self/fd/{self._file.fileno()}", self._aside, src_dir_fd=directory)
            except FileExistsError:
                return False
            finally:
                os.close(directory)
        try:
            self._aside.rename(self._path)
        except FileNotFoundError:
            return False
        return True
