"""Answers the calls of a step that the kernel refuses in a user namespace, or would answer with root for everybody.

With a single id there is nobody to give a file to: chown(2) fails, and every file is root's. So these calls come here
(seccomp_unotify(2), Linux 5.0), and what they would have done is written into a ledger, by which the calls that show
owners are answered. Device nodes, which no user namespace may make, become empty files on record.

It grants nothing. The keeper does only what the step, root of the same namespace, could do itself: it gives a file to
root, or makes a file, directory or link, in the mounts of the step, from the step's own root directory and at a path that
it has read once. A step that changes the path meanwhile, or swaps a directory, gains the same as by another call. Which
process asked is pinned (SECCOMP_IOCTL_NOTIF_ID_VALID) once its directories are open and before anything is done.
Everything that is not understood goes on to the kernel as if nobody had listened.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import fcntl
import os
import resource
import stat
import struct

from shiplap.sandbox import identity, linux
from shiplap.sandbox.identity import EFFECTIVE, FILES, Denied
from shiplap.sandbox.ledger import EMPTY, FOLLOW, NO_FOLLOW, Found, Ledger
from shiplap.sandbox.syscalls import table

TYPE_CHECKING = False  # see mounts.py
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shiplap.sandbox.identity import Credentials

    Arguments = tuple[int, ...]

_SEND, _VALID, _ADD_FD, _SET_FLAGS = 0xC0182101, 0x40082102, 0x40182103, 0x40082104
"""linux/seccomp.h; the size of each structure is part of its number."""
_NOTICE = struct.Struct("<QIIiIQ6Q")
_CONTINUE = 1
_WAKE_UP = 1
_ADD_AND_ANSWER = 2
_AT_FDCWD = -100
_LOCKS = 10
"""RLIMIT_LOCKS has meant nothing since Linux 2.4.25, but is inherited over fork and exec, and can be read and set from
outside: it holds the number of a process's credentials."""
_STAT_OWNER = {"x86_64": (24, 28, 40), "aarch64": (16, 24, 32)}
"""Where ``struct stat`` has mode, uid (then gid) and device number."""
_O_TMPFILE = 0o20000000
_TICK = 0.2
"""Seconds. A call whose process was killed after it was announced is not there to be received, and receiving waits."""
_ALARM = (_signal.SIGALRM,)
"""The tick is let in while receiving only: it would interrupt what else is done for a step, and copying a file of a lower
layer up does end with EINTR for any signal (splice_from_pipe_next)."""


class Supervisor:
    """Serves one listener. ``machine``: of the step's processes (uname -m); ``groups``: of its first process."""

    def __init__(self, ledger: Ledger, machine: str, groups: Sequence[int]) -> None:
        self._ledger = ledger
        self._machine = machine
        self._listener = -1
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._outside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._root = b""
        self._memory = linux.Memory()
        self._known: list[Credentials] = [identity.root(tuple(groups))]
        self._incoming: linux.Listener | None = None
        self._id = 0
        handlers: dict[str, Callable[[int, Arguments], int | None]] = {
            "chown": lambda pid, a: self._chown(pid, _AT_FDCWD, a[0], a[1], a[2], FOLLOW),
            "lchown": lambda pid, a: self._chown(pid, _AT_FDCWD, a[0], a[1], a[2], NO_FOLLOW),
            "fchownat": lambda pid, a: self._chown(pid, _int(a[0]), a[1], a[2], a[3], a[4] & (NO_FOLLOW | EMPTY)),
            "fchown": lambda pid, a: self._chown(pid, _int(a[0]), 0, a[1], a[2], EMPTY),
            "stat": lambda pid, a: self._stat(pid, _AT_FDCWD, a[0], a[1], FOLLOW),
            "lstat": lambda pid, a: self._stat(pid, _AT_FDCWD, a[0], a[1], NO_FOLLOW),
            "newfstatat": lambda pid, a: self._stat(pid, _int(a[0]), a[1], a[2], a[3]),
            "fstat": lambda pid, a: self._stat(pid, _int(a[0]), 0, a[1], EMPTY),
            "statx": lambda pid, a: self._stat(pid, _int(a[0]), a[1], a[4], a[2], a[3]),
            "mkdir": lambda pid, a: self._make(pid, _AT_FDCWD, a[0], stat.S_IFDIR | a[1] & 0o1777),
            "mkdirat": lambda pid, a: self._make(pid, _int(a[0]), a[1], stat.S_IFDIR | a[2] & 0o1777),
            "mknod": lambda pid, a: self._make(pid, _AT_FDCWD, a[0], a[1] & 0xFFFF, a[2]),
            "mknodat": lambda pid, a: self._make(pid, _int(a[0]), a[1], a[2] & 0xFFFF, a[3]),
            "symlink": lambda pid, a: self._make(pid, _AT_FDCWD, a[1], stat.S_IFLNK, target=a[0]),
            "symlinkat": lambda pid, a: self._make(pid, _int(a[1]), a[2], stat.S_IFLNK, target=a[0]),
            "creat": lambda pid, a: self._open(pid, _AT_FDCWD, a[0], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, a[1]),
            "open": lambda pid, a: self._open(pid, _AT_FDCWD, a[0], a[1], a[2]),
            "openat": lambda pid, a: self._open(pid, _int(a[0]), a[1], a[2], a[3]),
            "openat2": self._open_how,
            "execve": lambda pid, a: self._exec(pid, _AT_FDCWD, a[0], FOLLOW),
            "execveat": lambda pid, a: self._exec(pid, _int(a[0]), a[1], a[4]),
            "getuid": lambda pid, a: self._who(pid)[0][0],
            "geteuid": lambda pid, a: self._who(pid)[0][1],
            "getgid": lambda pid, a: self._who(pid)[1][0],
            "getegid": lambda pid, a: self._who(pid)[1][1],
            "getresuid": lambda pid, a: self._tell(pid, a, 0),
            "getresgid": lambda pid, a: self._tell(pid, a, 1),
            "getgroups": self._get_groups,
            "setgroups": self._set_groups,
            "getrlimit": lambda pid, a: self._unlimited(pid, a[1]),
            "setrlimit": lambda pid, a: 0,
            "prlimit64": lambda pid, a: self._unlimited(pid, a[3]),
            **{name: self._becomes(name) for name in ("setuid", "setreuid", "setresuid", "setfsuid")},
            **{name: self._becomes(name) for name in ("setgid", "setregid", "setresgid", "setfsgid")},
        }
        numbers = table(machine)
        self._handlers = {numbers[name]: handler for name, handler in handlers.items() if name in numbers}

    def listen(self, listener: int) -> None:
        """Take over a listener, and begin to tick."""
        self._listener = listener
        self._incoming = linux.Listener(listener)
        try:
            fcntl.ioctl(listener, _SET_FLAGS, _WAKE_UP)  # Linux 6.6: hand over on one processor, without a wait
        except OSError:
            pass
        _signal.signal(_signal.SIGALRM, lambda *_: None)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALARM)
        _signal.setitimer(_signal.ITIMER_REAL, _TICK, _TICK)

    def close(self) -> None:
        """Stop, and stand where this process stood before."""
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _ALARM)
        if self._root:
            os.fchdir(self._outside)
            os.chroot(".")
        os.chdir("/")
        for fd in (self._listener, self._proc, self._outside):
            if fd >= 0:
                os.close(fd)

    def answer(self) -> None:
        """Receive one call that was announced (POLLIN), and answer it."""
        if self._incoming is None:
            return
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _ALARM)
        notice = self._incoming.receive()
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALARM)
        if not notice:
            return
        self._id, pid, _, number, _, _, *arguments = _NOTICE.unpack(notice)
        value: int | None
        try:
            value = self._handlers[number](pid, tuple(arguments))
        except OSError as error:
            value = -(error.errno or errno.EIO)
        except Denied as error:
            value = -error.number
        except (_Unclear, KeyError):
            value = None
        if value == _ANSWERED:
            return
        if value is None:
            self._send(0, 0, _CONTINUE)
        elif value < 0:
            self._send(0, value, 0)
        else:
            self._send(value, 0, 0)

    def _send(self, value: int, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._listener, _SEND, struct.pack("<QqiI", self._id, value, error, flags))
        except OSError:
            pass  # the process was killed

    # -- where a process stands

    def _pin(self) -> None:
        """Raise unless the process that asked is still there, so what was opened by its number is its own."""
        try:
            fcntl.ioctl(self._listener, _VALID, struct.pack("<Q", self._id))
        except OSError:
            raise _Unclear from None

    def _path(self, pid: int, directory: int, address: int, flags: int) -> tuple[bytes, int]:
        """The path at ``address``, relative to /proc, or absolute in the process's root, in which we then are; and
        NO_FOLLOW if ``flags`` have it, unless the path is a descriptor's own."""
        try:
            text = self._memory.text(pid, address) if address else b""
        except OSError:
            raise _Unclear from None
        own = b"%d/fd/%d" % (pid, directory) if directory != _AT_FDCWD else b"%d/cwd" % pid
        if not text:
            if not flags & EMPTY:
                raise _Unclear
            return own, FOLLOW
        root = self._ledger.mounted(self._proc, b"%d/root" % pid)
        if root != self._root:
            fd = os.open(f"{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
            try:
                self._pin()
                os.fchdir(fd)
                os.chroot(".")
                self._root = root
            finally:
                os.close(fd)
        if not text.startswith(b"/"):
            return own + b"/" + text, flags & NO_FOLLOW
        for prefix in (b"/proc/self/", b"/proc/thread-self/"):  # we are nobody in the step's /proc
            if text.startswith(prefix):
                return b"%d/" % pid + text[len(prefix) :], flags & NO_FOLLOW
        if text.startswith((b"/dev/fd/", b"/dev/std")):
            number = {b"/dev/stdin": b"0", b"/dev/stdout": b"1", b"/dev/stderr": b"2"}.get(text, text[8:])
            return b"%d/fd/" % pid + number, FOLLOW
        return text, flags & NO_FOLLOW

    def _hold(self, pid: int, directory: int, address: int, flags: int) -> int:
        """An O_PATH descriptor of what a process names, pinned."""
        path, nofollow = self._path(pid, directory, address, flags)
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if nofollow else 0), dir_fd=self._proc)
        try:
            self._pin()
        except _Unclear:
            os.close(fd)
            raise
        return fd

    # -- owners

    def _chown(self, pid: int, directory: int, address: int, uid: int, gid: int, flags: int) -> int | None:
        user, group = (None if number & 0xFFFFFFFF == 0xFFFFFFFF else number & 0xFFFFFFFF for number in (uid, gid))
        fd = self._hold(pid, directory, address, flags)
        try:
            found = self._ledger.look(fd, b"", EMPTY)
            before = self._ledger.owner(found)
            if not identity.may_give(self._who(pid), before, user, group):
                return -errno.EPERM
            # The kernel's own chown brings the file into the layer, clears setuid bits and capabilities, and is refused
            # where the step's would be: on what is read-only, or does not belong to root inside.
            zero = [-1 if number is None else 0 for number in (user, group)]
            os.chown(f"self/fd/{fd}", zero[0], zero[1], dir_fd=self._proc)
            found = self._ledger.look(fd, b"", EMPTY)
            self._ledger.write(found, before[0] if user is None else user, before[1] if group is None else group)
        finally:
            os.close(fd)
        return 0

    def _stat(
        self, pid: int, directory: int, address: int, target: int, flags: int, mask: int | None = None
    ) -> int | None:
        ledger = self._ledger
        if not ledger.records:
            return None
        flags &= 0xFFFFFFFF
        path, follow = self._path(pid, directory, address, flags)
        try:
            record = ledger.recorded(self._proc, path, follow)
        except OSError:
            return None  # the kernel says it better
        if record is None:
            return None
        self._pin()
        uid, gid, kind, rdev, _ = record
        if mask is not None:
            raw = bytearray(ledger.status.statx(self._proc, path, flags & ~(EMPTY | NO_FOLLOW) | follow, mask))
            struct.pack_into("<II", raw, 20, uid, gid)
            if kind:
                struct.pack_into("<H", raw, 28, kind | int.from_bytes(raw[28:30], "little") & 0o7777)
                struct.pack_into("<II", raw, 128, os.major(rdev), os.minor(rdev))
        else:
            raw = bytearray(ledger.status.stat(self._proc, path, follow))
            mode_at, owner_at, rdev_at = _STAT_OWNER[self._machine]
            struct.pack_into("<II", raw, owner_at, uid, gid)
            if kind:
                mode = int.from_bytes(raw[mode_at : mode_at + 4], "little")
                struct.pack_into("<I", raw, mode_at, kind | mode & 0o7777)
                struct.pack_into("<Q", raw, rdev_at, rdev)
            raw = raw[: 128 if self._machine == "aarch64" else 144]
        self._memory.write(pid, target, bytes(raw))
        return 0

    # -- what a process makes

    def _plain(self, who: Credentials) -> bool:
        """Whether what a process makes is root's without our doing."""
        return who[0][FILES] == 0 and who[1][FILES] == 0 and not self._ledger.groups

    def _parent(self, pid: int, directory: int, address: int) -> tuple[int, bytes, Found]:
        """The directory, as O_PATH descriptor, and the name in it that a process is about to make."""
        path = self._path(pid, directory, address, NO_FOLLOW)[0].rstrip(b"/")
        head, _, leaf = path.rpartition(b"/")
        if leaf in (b"", b".", b".."):
            raise _Unclear
        fd = os.open(head or b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            self._pin()
            return fd, leaf, self._ledger.look(fd, b"", EMPTY)
        except BaseException:
            os.close(fd)
            raise

    def _born(self, who: Credentials, parent: Found, directory: int, leaf: bytes, kind: int = 0, rdev: int = 0) -> None:
        """Put on record what was just made."""
        uid, gid = self._made_by(who, parent)
        if uid or gid or kind:
            self._ledger.write(self._ledger.look(directory, leaf, NO_FOLLOW), uid, gid, kind, rdev)

    def _made_by(self, who: Credentials, parent: Found) -> tuple[int, int]:
        """Whose a file is that these make in that directory."""
        return who[0][FILES], self._ledger.owner(parent)[1] if parent.mode & stat.S_ISGID else who[1][FILES]

    def _umask(self, pid: int) -> int:
        fd = os.open(f"{pid}/status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            for line in os.read(fd, 512).splitlines():
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
        finally:
            os.close(fd)
        return 0o022

    def _make(self, pid: int, directory: int, address: int, mode: int, rdev: int = 0, *, target: int = 0) -> int | None:
        who = self._who(pid)
        kind = stat.S_IFMT(mode)
        node = kind in (stat.S_IFCHR, stat.S_IFBLK) and not (kind == stat.S_IFCHR and rdev == 0)
        if not node and self._plain(who):
            return None
        fd, leaf, parent = self._parent(pid, directory, address)
        try:
            permissions = mode & 0o7777 & ~self._umask(pid)
            if node:
                if who[0][EFFECTIVE] != 0:
                    return -errno.EPERM
                if self._makes_nodes(leaf, kind | permissions, rdev, fd):
                    return 0
                os.close(os.open(leaf, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, permissions, dir_fd=fd))
                self._born(who, parent, fd, leaf, kind, os.makedev(*_split(rdev)))
                return 0
            if kind == stat.S_IFLNK:
                os.symlink(self._memory.text(pid, target), leaf, dir_fd=fd)
            elif kind == stat.S_IFDIR:
                os.mkdir(leaf, permissions, dir_fd=fd)
            else:
                os.mknod(leaf, kind | permissions, rdev, dir_fd=fd)
            self._born(who, parent, fd, leaf)
        finally:
            os.close(fd)
        return 0

    def _makes_nodes(self, leaf: bytes, mode: int, rdev: int, directory: int) -> bool:
        """Make a device node, if we are the machine's root, and only the step is in a user namespace (binfmt.py)."""
        try:
            os.mknod(leaf, mode, os.makedev(*_split(rdev)), dir_fd=directory)
        except PermissionError:
            return False
        return True

    def _open_how(self, pid: int, arguments: Arguments) -> int | None:
        flags, mode, resolve = struct.unpack("<QQQ", self._memory.read(pid, arguments[2], 24))
        if resolve or not flags & (os.O_CREAT | _O_TMPFILE):
            return None
        return self._open(pid, _int(arguments[0]), arguments[1], flags, mode)

    def _open(self, pid: int, directory: int, address: int, flags: int, mode: int) -> int | None:
        who = self._who(pid)
        if self._plain(who):
            return None
        flags &= 0xFFFFFFFF
        temporary = flags & _O_TMPFILE
        fd, leaf, parent = self._parent(pid, directory, address)
        try:
            try:
                there = self._ledger.look(fd, leaf, NO_FOLLOW)
            except FileNotFoundError:
                if temporary:
                    return None
            else:
                if not temporary:
                    return None  # it exists, or is a link: nothing is made here
                parent = there
            permissions = mode & 0o7777 & ~self._umask(pid)
            more = os.O_CLOEXEC | (0 if temporary else os.O_EXCL | os.O_NOFOLLOW)
            try:
                made = os.open(leaf, flags | more, permissions, dir_fd=fd)
            except FileExistsError:
                return None
            try:
                uid, gid = self._made_by(who, parent)
                if uid or gid:
                    self._ledger.write(self._ledger.look(made, b"", EMPTY), uid, gid)
                return self._give(made, bool(flags & os.O_CLOEXEC), exclusive=bool(flags & os.O_EXCL or temporary))
            finally:
                os.close(made)
        finally:
            os.close(fd)

    def _give(self, fd: int, close_on_exec: bool, exclusive: bool) -> int | None:
        """Hand an open file to the process that asked for it; its number there is the answer."""
        flags = os.O_CLOEXEC if close_on_exec else 0
        try:
            packed = bytearray(struct.pack("<QIIII", self._id, _ADD_AND_ANSWER, fd, 0, flags))
            fcntl.ioctl(self._listener, _ADD_FD, packed)
            return _ANSWERED  # Linux 5.14
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise
        try:
            packed = bytearray(struct.pack("<QIIII", self._id, 0, fd, 0, flags))
            return int(fcntl.ioctl(self._listener, _ADD_FD, packed))
        except OSError:  # before 5.9 there is no way; now that the file is there, the kernel can open it
            return -errno.EEXIST if exclusive else None

    # -- who a process is

    def _who(self, pid: int) -> Credentials:
        if len(self._known) == 1:
            return self._known[0]
        number = resource.prlimit(pid, _LOCKS)[0]
        return self._known[number] if 0 <= number < len(self._known) else self._known[0]

    def _become(self, pid: int, who: Credentials) -> None:
        if who not in self._known:
            self._known.append(who)
        number = self._known.index(who)
        self._pin()
        resource.prlimit(pid, _LOCKS, (number or resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def _becomes(self, name: str) -> Callable[[int, Arguments], int]:
        files = name.startswith("setfs")

        def become(pid: int, arguments: Arguments) -> int:
            who = self._who(pid)
            new = identity.changed(who, name, arguments[:3])
            if new != who:
                self._become(pid, new)
            return who["gid" in name][FILES] if files else 0

        return become

    def _tell(self, pid: int, addresses: Sequence[int], at: int) -> int:
        for address, number in zip(addresses, self._who(pid)[at][:3], strict=False):
            self._memory.write(pid, address, struct.pack("<I", number))
        return 0

    def _get_groups(self, pid: int, arguments: Arguments) -> int:
        groups = self._who(pid)[2]
        size = _int(arguments[0])
        if size:
            if size < len(groups):
                return -errno.EINVAL
            if groups:
                self._memory.write(pid, arguments[1], struct.pack(f"<{len(groups)}I", *groups))
        return len(groups)

    def _set_groups(self, pid: int, arguments: Arguments) -> int:
        size = _int(arguments[0])
        if not 0 <= size <= 1024:  # a page holds no more, and Linux takes 65536
            return -errno.EINVAL
        raw = self._memory.read(pid, arguments[1], 4 * size) if size else b""
        self._become(pid, identity.with_groups(self._who(pid), struct.unpack(f"<{size}I", raw)))
        return 0

    def _unlimited(self, pid: int, target: int) -> int:
        """The limit that we use for ourselves is infinite to whoever asks, and stays so: pam_limits sets them all."""
        if target:
            self._memory.write(pid, target, b"\xff" * 16)
        return 0

    def _exec(self, pid: int, directory: int, address: int, flags: int) -> int | None:
        """The setuid bit of a program makes a process root again (sudo, su)."""
        who = self._who(pid)
        if identity.is_root(who):
            return None
        path, follow = self._path(pid, directory, address, flags)
        try:
            found = self._ledger.look(self._proc, path, follow)
        except OSError:
            return None
        if not stat.S_ISREG(found.mode):
            return None
        uid, gid = self._ledger.owner(found)
        new = identity.executed(
            who, uid if found.mode & stat.S_ISUID else None, gid if found.mode & 0o2010 == 0o2010 else None
        )
        if new != who:
            self._become(pid, new)
        return None


_ANSWERED = 1 << 40
"""No descriptor and no id is so large."""


class _Unclear(Exception):
    """Let the kernel do what it does."""


def _int(value: int) -> int:
    """An argument as the kernel's int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _split(device: int) -> tuple[int, int]:
    """Major and minor of the number mknod(2) takes (32 bits of it)."""
    device &= 0xFFFFFFFF
    return device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
