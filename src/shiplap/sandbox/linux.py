"""The kernel's calls that Python lacks. The only file of shiplap with ctypes; every failure is an OSError.

Loaded by the helper as well, so it imports nothing that costs time. Structures and numbers: Linux 6.12 uapi headers.
Calls numbered from 424 up have one number on every architecture.
"""

from __future__ import annotations

import ctypes
import errno
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

ATTR_RDONLY = 1
ATTR_NOSUID = 2
ATTR_NODEV = 4
ATTR_NOEXEC = 8

_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NR_KEYCTL = {"x86_64": 250, "aarch64": 219}
_NR_SIGACTION = {"x86_64": 13, "aarch64": 134}
_NR_STATX = {"x86_64": 332, "aarch64": 291}
_NR_NEWFSTATAT = {"x86_64": 262, "aarch64": 79}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
_SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_SECCOMP = 22
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAP_VERSION_3 = 0x20080522

_long, _ulong, _int, _text, _pointer = (
    ctypes.c_long,
    ctypes.c_ulong,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_void_p,
)
_libc = ctypes.CDLL(None, use_errno=True)
for _name, _arguments in {
    "unshare": (_int,),
    "setns": (_int, _int),
    "mount": (_text, _text, _text, _ulong, _text),
    "umount2": (_text, _int),
    "pivot_root": (_text, _text),
    "prctl": (_int, _ulong, _ulong, _ulong, _ulong),
    "sethostname": (_text, ctypes.c_size_t),
    "capset": (_pointer, _pointer),
    "capget": (_pointer, _pointer),
}.items():
    getattr(_libc, _name).argtypes = _arguments
    getattr(_libc, _name).restype = _int
for _name in ("process_vm_readv", "process_vm_writev"):
    getattr(_libc, _name).argtypes = (_int, _pointer, _ulong, _pointer, _ulong, _ulong)
    getattr(_libc, _name).restype = ctypes.c_ssize_t
_libc.ioctl.argtypes = (_int, _ulong, _ulong)
_libc.ioctl.restype = _int
_libc.syscall.argtypes = (_long,) * 7
_libc.syscall.restype = _long


class _How(ctypes.Structure):
    """``struct open_how`` (linux/openat2.h)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _Attributes(ctypes.Structure):
    """``struct mount_attr`` (linux/mount.h)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


class _Vector(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = [("base", ctypes.c_uint64), ("length", ctypes.c_size_t)]


class _Program(ctypes.Structure):
    """``struct sock_fprog`` (linux/filter.h)."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", _pointer)]


def _checked(result: int, what: str) -> int:
    """``result`` unless it is -1; then the OSError of the thread's errno, naming ``what``."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _syscall(what: str, number: int, *arguments: int) -> int:
    padded = (*arguments, *(0 for _ in range(6 - len(arguments))))
    return _checked(int(_libc.syscall(number, *padded)), what)


def forget_new_calls() -> None:
    """Make openat2, open_tree, move_mount and mount_setattr fail with ENOSYS, to try out the ways around them."""
    global _NR_OPENAT2, _NR_OPEN_TREE, _NR_MOVE_MOUNT, _NR_MOUNT_SETATTR
    _NR_OPENAT2 = _NR_OPEN_TREE = _NR_MOVE_MOUNT = _NR_MOUNT_SETATTR = 4000


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def unshare(flags: int) -> None:
    """Leave the namespaces of ``flags`` (CLONE_NEW*) for new ones."""
    _checked(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """Enter the namespace behind ``fd``."""
    _checked(_libc.setns(fd, kind), "setns")


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(_bytes(source), _bytes(target), _bytes(kind), flags, _bytes(data) if data else None)
    _checked(result, f"mount {kind or source or ''} on {target}")


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(_bytes(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Swap the root mount of this mount namespace."""
    _checked(_libc.pivot_root(_bytes(new), _bytes(old)), "pivot_root")


def set_hostname(name: str) -> None:
    """Name this UTS namespace."""
    raw = os.fsencode(name)
    _checked(_libc.sethostname(raw, len(raw)), "sethostname")


def openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2), Linux 5.6. ENOSYS before, EPERM under some seccomp filters: callers walk by hand then."""
    how = _How(flags | os.O_CLOEXEC, 0, resolve)
    raw = ctypes.create_string_buffer(os.fsencode(path))
    return _syscall(
        f"openat2 {path}",
        _NR_OPENAT2,
        directory,
        ctypes.addressof(raw),
        ctypes.addressof(how),
        ctypes.sizeof(how),
    )


def open_tree(fd: int) -> int:
    """A detached copy of the mount tree at ``fd`` (Linux 5.2), with everything mounted below it."""
    empty = ctypes.create_string_buffer(b"")
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    return _syscall("open_tree", _NR_OPEN_TREE, fd, ctypes.addressof(empty), flags)


def mount_detached(kind: str) -> int:
    """A file system of this kind that is mounted nowhere, and goes with its descriptor (Linux 5.2)."""
    name = ctypes.create_string_buffer(os.fsencode(kind))
    context = _syscall(f"fsopen {kind}", _NR_FSOPEN, ctypes.addressof(name), _CLOEXEC)
    try:
        _syscall(f"fsconfig {kind}", _NR_FSCONFIG, context, _FSCONFIG_CMD_CREATE)
        return _syscall(f"fsmount {kind}", _NR_FSMOUNT, context, _CLOEXEC, ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)
    finally:
        os.close(context)


def mount_setattr(fd: int, attributes: int) -> None:
    """Add ``attributes`` (ATTR_*) to every mount of the tree at ``fd`` (Linux 5.12)."""
    empty = ctypes.create_string_buffer(b"")
    change = _Attributes(attributes, 0, 0, 0)
    _syscall(
        "mount_setattr",
        _NR_MOUNT_SETATTR,
        fd,
        ctypes.addressof(empty),
        _AT_EMPTY_PATH | _AT_RECURSIVE,
        ctypes.addressof(change),
        ctypes.sizeof(change),
    )


def move_mount(tree: int, target: int) -> None:
    """Attach the detached ``tree`` over the file or directory open as ``target`` (Linux 5.2)."""
    empty = ctypes.create_string_buffer(b"")
    where = ctypes.addressof(empty)
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _syscall("move_mount", _NR_MOVE_MOUNT, tree, where, target, where, flags)


def die_with_parent(signal: int) -> None:
    """Ask for ``signal`` when the thread that made this process ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl PDEATHSIG")


def keep_capabilities(keep: bool) -> None:
    """Whether a change from uid 0 to another keeps the permitted set (until exec)."""
    _checked(_libc.prctl(_PR_SET_KEEPCAPS, int(keep), 0, 0, 0), "prctl KEEPCAPS")


def known_capabilities() -> int:
    """Mask of every capability this kernel knows."""
    mask = 0
    for number in range(64):
        if _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) < 0:
            break
        mask |= 1 << number
    return mask


def limit_bounding(keep: int) -> None:
    """Drop every capability outside the mask ``keep`` from the bounding set."""
    for number in range(64):
        present = _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)
        if present < 0:
            return
        if present and not keep >> number & 1:
            _checked(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl CAPBSET_DROP")


def capabilities() -> tuple[int, int, int]:
    """Effective, permitted and inheritable masks of this thread."""
    header = _CapHeader(_CAP_VERSION_3, 0)
    data = (_CapData * 2)()
    _checked(_libc.capget(ctypes.addressof(header), ctypes.addressof(data)), "capget")
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three masks of this thread; clears what ambient set is left."""
    header = _CapHeader(_CAP_VERSION_3, 0)
    data = (_CapData * 2)()
    for half, shift in enumerate((0, 32)):
        data[half].effective = effective >> shift & 0xFFFFFFFF
        data[half].permitted = permitted >> shift & 0xFFFFFFFF
        data[half].inheritable = inheritable >> shift & 0xFFFFFFFF
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # EINVAL before Linux 4.3: no such set
    _checked(_libc.capset(ctypes.addressof(header), ctypes.addressof(data)), "capset")


def raise_ambient(mask: int) -> None:
    """Put ``mask`` into the ambient set: it survives the exec of an ordinary program."""
    for number in range(64):
        if mask >> number & 1:
            _checked(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0), "prctl CAP_AMBIENT")


def install_seccomp(program: bytes, machine: str) -> None:
    """Load a BPF ``program`` (8 bytes an instruction). Needs CAP_SYS_ADMIN or no_new_privs.

    SPEC_ALLOW as runc does: without it every step pays for the speculative-store-bypass mitigation before Linux 5.16.
    """
    code = ctypes.create_string_buffer(program, len(program))
    argument = _Program(len(program) // 8, ctypes.addressof(code))
    number = _NR_SECCOMP.get(machine)
    if number is not None:
        try:
            _syscall(
                "seccomp",
                number,
                _SECCOMP_SET_MODE_FILTER,
                _SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                ctypes.addressof(argument),
            )
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
    _checked(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(argument), 0, 0), "prctl SECCOMP")


def install_listener(program: bytes, machine: str) -> int:
    """Load a BPF ``program`` that answers some calls with SECCOMP_RET_USER_NOTIF; the descriptor they are heard on.

    Linux 5.0. From 5.19 on a call that was heard is not broken off by a signal, which Go sends its threads all the time.
    Needs CAP_SYS_ADMIN. Raises OSError (ENOSYS where there is no number for ``machine``).
    """
    if machine not in _NR_SECCOMP:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "seccomp")
    code = ctypes.create_string_buffer(program, len(program))
    argument = _Program(len(program) // 8, ctypes.addressof(code))
    flags = _SECCOMP_FILTER_FLAG_NEW_LISTENER | _SECCOMP_FILTER_FLAG_SPEC_ALLOW
    for extra in (_SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0):
        try:
            return _syscall(
                "seccomp",
                _NR_SECCOMP[machine],
                _SECCOMP_SET_MODE_FILTER,
                flags | extra,
                ctypes.addressof(argument),
            )
        except OSError as error:
            if error.errno != errno.EINVAL or not extra:
                raise
    raise AssertionError


class Listener:
    """Receives what ``install_listener`` has heard: ``struct seccomp_notif`` (linux/seccomp.h)."""

    SIZE = 80
    _RECEIVE = 0xC0502100

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = ctypes.create_string_buffer(self.SIZE)
        self._address = ctypes.addressof(self._buffer)

    def receive(self) -> bytes:
        """The next call; empty if a signal came first. Not fcntl.ioctl, which may begin again after a signal."""
        ctypes.memset(self._address, 0, self.SIZE)
        if _libc.ioctl(self.fd, self._RECEIVE, self._address) < 0:
            return b""
        return self._buffer.raw


class Memory:
    """Memory of other processes, a piece at a time. Needs the right to trace them."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(4096)
        self._here = _Vector(ctypes.addressof(self._buffer), 0)
        self._there = _Vector(0, 0)
        self._vectors = (ctypes.addressof(self._here), 1, ctypes.addressof(self._there), 1, 0)

    def read(self, pid: int, address: int, size: int) -> bytes:
        """At most ``size`` (up to 4096) bytes at ``address`` of process ``pid``."""
        self._here.length = self._there.length = size
        self._there.base = address
        done = _checked(_libc.process_vm_readv(pid, *self._vectors), "process_vm_readv")
        return self._buffer.raw[:done]

    def text(self, pid: int, address: int) -> bytes:
        """The bytes up to a NUL. Raises OSError (ENAMETOOLONG) where 4096 bytes hold none."""
        found = b""
        while len(found) < 4096:
            room = 4096 - address % 4096  # what lies in the next page may not be there
            part = self.read(pid, address, min(room, 256))
            end = part.find(0)
            if end >= 0:
                return found + part[:end]
            found += part
            address += len(part)
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def write(self, pid: int, address: int, data: bytes) -> None:
        """Put ``data`` (at most 4096 bytes) at ``address`` of process ``pid``."""
        ctypes.memmove(self._buffer, data, len(data))
        self._here.length = self._there.length = len(data)
        self._there.base = address
        if _checked(_libc.process_vm_writev(pid, *self._vectors), "process_vm_writev") != len(data):
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))


class Status:
    """``struct statx`` and the machine's ``struct stat`` of files, as the kernel writes them."""

    def __init__(self, machine: str) -> None:
        self._statx = _NR_STATX[machine]
        self._stat = _NR_NEWFSTATAT[machine]
        self._buffer = ctypes.create_string_buffer(256)
        self._address = ctypes.addressof(self._buffer)

    def statx(self, directory: int, path: bytes, flags: int, mask: int) -> bytes:
        """256 bytes of statx(2) (Linux 4.11)."""
        name = ctypes.c_char_p(path)
        where = ctypes.cast(name, _pointer).value or 0
        if _libc.syscall(self._statx, directory, where, flags, mask, self._address, 0) < 0:
            _checked(-1, "statx")
        return self._buffer.raw

    def stat(self, directory: int, path: bytes, flags: int) -> bytes:
        """144 bytes of fstatat(2), of which aarch64 uses 128."""
        name = ctypes.c_char_p(path)
        where = ctypes.cast(name, _pointer).value or 0
        if _libc.syscall(self._stat, directory, where, self._address, flags, 0, 0) < 0:
            _checked(-1, "newfstatat")
        return self._buffer.raw[:144]


def default_internal_signals(machine: str) -> None:
    """Give signals 32 and 33 their default action. glibc's posix_spawn leaves them ignored, and its own sigaction
    refuses to touch them; a step would inherit that."""
    number = _NR_SIGACTION.get(machine)
    action = ctypes.create_string_buffer(32)
    for signal in (32, 33) if number is not None else ():
        _syscall("rt_sigaction", number or 0, signal, ctypes.addressof(action), 0, 8)


def join_new_keyring(machine: str) -> None:
    """Leave the builder's session keyring, so that a step cannot read keys of the user (as runc does)."""
    number = _NR_KEYCTL.get(machine)
    if number is not None:
        _syscall("keyctl", number, _KEYCTL_JOIN_SESSION_KEYRING, 0)
