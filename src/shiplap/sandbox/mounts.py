"""Makes the file system a step sees, in the mount namespace of the caller. Nothing here can reach the machine's own.

Descriptors, not paths, name both ends of a mount: a link in an image cannot lead one astray (CVE-2024-1753,
CVE-2025-31133 and their kin). Kernel file systems are mounted with mount(2) on ``/proc/self/fd/N``, trees with
open_tree, mount_setattr and move_mount (Linux 5.12), or by binding and remounting before that.
"""

from __future__ import annotations

import errno
import os
import stat

from shiplap.sandbox import linux, profile
from shiplap.sandbox.linux import ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY
from shiplap.sandbox.refused import Refused
from shiplap.sandbox.rooted import Place, open_in, reach

TYPE_CHECKING = False  # typing and collections would take longer to import than a step takes to run
if TYPE_CHECKING:
    from collections.abc import Sequence

INERT = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC
_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_PRIVILEGED_NODES = (
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
)
STACK = 500
"""Lower layers that one overlay takes (OVL_MAX_STACK, fs/overlayfs/params.h)."""
_OVERLAY_EXTRAS = ("volatile,index=off,redirect_dir=nofollow,metacopy=off", "index=off", "")
"""Tried in turn, for older kernels. ``volatile`` (5.10): without it, unmounting syncs the whole disk below the upper
directory; whoever publishes a layer syncs it anyway. The others keep the upper directory in the plain whiteout form."""


def fd_path(fd: int) -> str:
    """A path that is ``fd`` itself, for calls that take only paths."""
    return f"/proc/self/fd/{fd}"


def open_directory(path: str) -> int:
    """O_PATH descriptor of a directory of the machine."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def mount_overlay(lowers: Sequence[str], upper: str, work: str, target: str, userns: bool, flags: int) -> None:
    """Overlay of ``lowers`` (top first, at most MOST_LOWERS) and ``upper`` at ``target``. Raises Refused.

    One overlay takes STACK layers. Where there are more, those at the bottom become an overlay of their own, and that
    one layer: nothing lies beneath it that its whiteouts could hide. Overlays stack twice (FILESYSTEM_MAX_STACK_DEPTH).
    """
    upper_fd, work_fd = open_directory(upper), open_directory(work)
    own = f",upperdir={upper_fd},workdir={work_fd}"
    try:
        if len(lowers) <= STACK:
            _mount_overlay(lowers, own, target, userns, flags)
            return
        # The work directory itself is used by descriptor. Its name is free to stand for the bottom until overlayfs has
        # made a private mount of that.
        _mount_overlay(lowers[STACK - 1 :], "", work, userns, flags)
        try:
            _mount_overlay((*lowers[: STACK - 1], work), own, target, userns, flags)
        finally:
            linux.unmount(work, linux.MNT_DETACH)
    finally:
        os.close(upper_fd)
        os.close(work_fd)


def _mount_overlay(lowers: Sequence[str], writable: str, target: str, userns: bool, flags: int) -> None:
    """The layers are named by descriptor numbers relative to /proc/self/fd: 500 of them fit into the one page that
    mount(2) takes, and /proc/self/mountinfo shows a step no path of the machine."""
    opened: list[int] = []
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        opened.extend(map(open_directory, lowers))
        options = f"lowerdir={':'.join(map(str, opened))}{writable}{',userxattr' if userns else ''}"
        os.chdir("/proc/self/fd")
        for extras in _OVERLAY_EXTRAS if writable else _OVERLAY_EXTRAS[1:]:
            try:
                linux.mount("overlay", target, "overlay", flags, f"{options},{extras}".rstrip(","))
                return
            except OSError as error:
                if error.errno != errno.EINVAL or not extras:
                    raise _no_overlay(error, userns) from error
    finally:
        os.fchdir(here)
        for fd in (*opened, here):
            os.close(fd)


def _no_overlay(error: OSError, userns: bool) -> Refused:
    if error.errno == errno.ENODEV:
        hint = "load the overlay module: sudo modprobe overlay"
    elif userns:
        hint = (
            "overlay in a user namespace needs Linux 5.11 and a store on ext4, xfs, btrfs or tmpfs, not overlay or NFS"
        )
    else:
        hint = "put the store on ext4, xfs or btrfs: overlay and NFS cannot hold an overlay's upper directory"
    return Refused("no-overlay", f"the kernel refuses to mount an overlay file system: {error.strerror}", hint)


def mount_root(lowers: Sequence[str], upper: str, work: str, userns: bool, nodev: bool) -> int:
    """The root file system, mounted over the directory ``upper`` itself. Returns its O_PATH descriptor.

    Whoever needs ``upper`` itself from then on has opened it before.
    """
    flags = linux.MS_NODEV if nodev else 0
    if lowers:
        mount_overlay(lowers, upper, work, upper, userns, flags)
    else:
        tree = Place(open_directory(upper), -1, (), [])
        attach(tree.fd, tree, flags, again=upper)
        tree.close()
    return open_directory(upper)


def real_directories(root: int) -> None:
    """Make dev, proc and sys real directories. A link there would send the runtime's own writes to wherever it points
    (CVE-2026-41579). They stay in the layer, as they do with BuildKit."""
    for name in ("dev", "proc", "sys"):
        try:
            mode = os.stat(name, dir_fd=root, follow_symlinks=False).st_mode
        except FileNotFoundError:
            mode = 0
        if stat.S_ISDIR(mode):
            continue
        if mode:
            os.unlink(name, dir_fd=root)
        os.mkdir(name, 0o755, dir_fd=root)


def attach(source: int, place: Place, attributes: int, again: str = "") -> None:
    """Bind the tree at ``source``, with what is mounted in it, over ``place``, adding ``attributes`` (ATTR_*) to all.

    ``again``: a path of the machine that leads to ``place``, if ``place`` has no parent to open it from.
    """
    try:
        tree = linux.open_tree(source)
        try:
            if attributes:
                linux.mount_setattr(tree, attributes)
            linux.move_mount(tree, place.fd)
        finally:
            os.close(tree)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        bind(source, place, attributes, again)


def bind(source: int, place: Place, attributes: int, again: str = "") -> None:
    """``attach`` for kernels before 5.12: bind, then remount what came along, each with the flags it had."""
    linux.mount(fd_path(source), fd_path(place.fd), None, linux.MS_BIND | linux.MS_REC)
    if not attributes:
        return
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    top = os.open(again, flags) if again else os.open(place.name, flags, dir_fd=place.parent)
    try:
        path = os.readlink(fd_path(top))
        _remount(fd_path(top), attributes)
    finally:
        os.close(top)
    with open("/proc/self/mountinfo", "rb") as table:
        points = [line.split()[4].decode("unicode_escape").encode("latin-1") for line in table]
    prefix = os.fsencode(path) + b"/"
    for point in points:
        if point.startswith(prefix):
            _remount(os.fsdecode(point), attributes)


def _remount(path: str, attributes: int) -> None:
    """A user namespace may not lift flags it inherited (EPERM), so repeat them; ST_* equal MS_* but for relatime."""
    had = os.statvfs(path).f_flag
    kept = had & (ATTR_RDONLY | INERT | 1024 | 2048) | (linux.MS_RELATIME if had & 4096 else 0)
    linux.mount(None, path, None, linux.MS_REMOUNT | linux.MS_BIND | kept | attributes)


class Inside:
    """The mounts below one root, made in order. ``scratch`` is a directory covered by a private tmpfs here.

    ``covered``: top directories that an OCI runtime will mount over, so that nothing can be mounted there now.
    """

    def __init__(self, root: int, scratch: str, userns: bool, insecure: bool, covered: Sequence[str] = ()) -> None:
        self.root = root
        self._covered = covered
        self.userns = userns
        self.insecure = insecure
        linux.mount("tmpfs", scratch, "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=700")
        self._scratch = open_directory(scratch)
        self._scratch_path = scratch
        self._files = 0
        self._staging = False
        self.owned: list[tuple[int, int, int, int]] = []
        """Device, inode, and the owner that the kernel would not give to a file made here."""

    def staging(self, on: bool) -> None:
        """Whether targets are from now on relative to the scratch directory: mounts to be bound from there later."""
        self._staging = on

    def kernel(self, network: bool, shm_size: int, gid_5: bool) -> None:
        """/proc, /dev and /sys with all that belongs in them. ``network``: whether the network namespace is not the machine's,
        without which a user namespace may not mount sysfs; ``gid_5``: whether group tty exists here."""
        self._proc()
        self._dev(shm_size, gid_5)
        self._sys(network)
        if not self.insecure:
            self._mask()

    def file(self, target: str, data: bytes, mode: int, owner: tuple[int, int]) -> Place:
        """``data`` at ``target``, read-only and inert."""
        source = self._write(data, mode, owner)
        try:
            return self._step_bind(source, target, ATTR_RDONLY | INERT)
        finally:
            os.close(source)

    def tree(self, target: str, source: str, subpath: str, readonly: bool) -> Place:
        """The machine's file or directory ``source``, or ``subpath`` in it, at ``target``."""
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
        return self._narrowed(fd, target, subpath, readonly)

    def view(self, target: str, lowers: Sequence[str], spare: str, subpath: str, readonly: bool) -> Place:
        """A throw-away overlay of ``lowers`` at ``target``, its changes in the empty directory ``spare``."""
        upper, work = (os.path.join(spare, name) for name in ("upper", "work"))
        if not lowers:
            return self._narrowed(open_directory(upper), target, subpath, readonly)
        self._files += 1
        name = f"view-{self._files}"
        os.mkdir(name, dir_fd=self._scratch)
        point = f"{self._scratch_path}/{name}"
        mount_overlay(lowers, upper, work, point, self.userns, linux.MS_NODEV)
        return self._narrowed(open_directory(point), target, subpath, readonly)

    def tmpfs(self, target: str, size: int) -> Place:
        """An empty file system in memory at ``target``, of ``size`` bytes (0: the kernel's default, half of memory)."""
        place = self._target(target, "dir")
        mode = 0o1777 if place.made else stat.S_IMODE(os.fstat(place.fd).st_mode)  # runc's rule: what it covers, it is
        data = f"mode={mode:o},size={size}" if size else f"mode={mode:o}"
        linux.mount("tmpfs", fd_path(place.fd), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, data)
        return place

    def _narrowed(self, fd: int, target: str, subpath: str, readonly: bool) -> Place:
        try:
            if subpath.strip("/."):
                inner = open_in(fd, subpath)
                os.close(fd)
                fd = inner
            attributes = ATTR_RDONLY if readonly else 0
            return self._step_bind(fd, target, attributes | (0 if self.insecure else ATTR_NODEV))
        finally:
            os.close(fd)

    def _step_bind(self, source: int, target: str, attributes: int) -> Place:
        place = self._target(target, "dir" if stat.S_ISDIR(os.fstat(source).st_mode) else "file")
        attach(source, place, attributes)
        return place

    def _target(self, target: str, make: str) -> Place:
        place = reach(self._scratch if self._staging else self.root, target, make)
        if not place.names:
            raise Refused("mount-target", f'invalid mount target "{target}"')
        if place.names[0] == "proc":
            raise Refused("mount-target", f'"{target}" cannot be mounted because it is inside /proc')
        if place.names[0] in self._covered:
            hint = "use --isolation native, or a target without links"
            raise Refused("mount-target", f'"{target}" leads by a link into /{place.names[0]}', hint)
        return place

    def _write(self, data: bytes, mode: int, owner: tuple[int, int]) -> int:
        self._files += 1
        name = f"file-{self._files}"
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._scratch)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        try:
            os.fchown(fd, *owner)
        except OSError:
            made = os.fstat(fd)
            self.owned.append((made.st_dev, made.st_ino, *owner))
        os.fchmod(fd, mode)
        os.close(fd)
        return os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._scratch)

    def _new(self, path: str, kind: str, flags: int, data: str = "") -> None:
        place = reach(self.root, path, "dir")
        try:
            linux.mount(kind, fd_path(place.fd), kind, flags, data)
        finally:
            place.close()

    def _proc(self) -> None:
        try:
            self._new("/proc", "proc", INERT)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            hint = "run the outer container with --security-opt systempaths=unconfined, or build on the machine itself"
            raise Refused("no-proc", "the kernel refuses a new /proc: it is masked in this container", hint) from error

    def _dev(self, shm_size: int, gid_5: bool) -> None:
        nodev = 0 if self.insecure and not self.userns else linux.MS_NODEV
        self._new("/dev", "tmpfs", linux.MS_NOSUID | linux.MS_STRICTATIME | nodev, "mode=755,size=65536k")
        for name, major, minor in _NODES:
            self._node(name, os.makedev(major, minor))
        dev = open_in(self.root, "dev")
        for name, target in (*_LINKS, *((("core", "/proc/kcore"),) if os.path.exists("/proc/kcore") else ())):
            os.symlink(target, name, dir_fd=dev)
        if self.insecure:
            self._privileged_nodes(dev)
        os.close(dev)
        data = "newinstance,ptmxmode=0666,mode=0620" + (",gid=5" if gid_5 else "")
        self._new("/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, data)
        self._new("/dev/shm", "tmpfs", INERT, f"mode=1777,size={shm_size}")
        self._new("/dev/mqueue", "mqueue", INERT)

    def _node(self, name: str, device: int) -> None:
        """A device bound over an empty file. The file systems of a step are nodev, so that a device it makes itself
        (CAP_MKNOD is among its capabilities, and there may be no device cgroup) opens nothing of the machine's."""
        if self.userns:
            try:
                source = os.open(f"/dev/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            found = os.fstat(source)
            if not stat.S_ISCHR(found.st_mode) or found.st_rdev != device:
                os.close(source)
                return
        else:
            os.mknod(name, stat.S_IFCHR | 0o666, device, dir_fd=self._scratch)
            source = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._scratch)
        place = reach(self.root, f"/dev/{name}", "file")
        attach(source, place, ATTR_NOSUID | ATTR_NOEXEC)
        place.close()
        os.close(source)

    def _privileged_nodes(self, dev: int) -> None:
        for name, major, minor in _PRIVILEGED_NODES:
            if self.userns:
                if os.path.exists(f"/dev/{name}"):
                    self._node(name, os.makedev(major, minor))
                continue
            if "/" in name:
                os.mkdir(os.path.dirname(name), 0o755, dir_fd=dev)
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
        for number in range(0 if self.userns else 8):
            os.mknod(f"loop{number}", stat.S_IFBLK | 0o660, os.makedev(7, number), dir_fd=dev)

    def _sys(self, network: bool) -> None:
        readonly = 0 if self.insecure else ATTR_RDONLY
        if network or not self.userns:
            self._new("/sys", "sysfs", INERT | readonly)
        else:
            source = open_directory("/sys")
            place = reach(self.root, "/sys")
            attach(source, place, INERT | readonly)
            place.close()
            os.close(source)
        unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        try:
            self._new("/sys/fs/cgroup", "cgroup2" if unified else "tmpfs", INERT | readonly)
        except OSError:
            if self.userns and not network:  # the machine's own tree came along with /sys: cover it
                self._new("/sys/fs/cgroup", "tmpfs", INERT | linux.MS_RDONLY)

    def _mask(self) -> None:
        null = open_in(self.root, "dev/null")
        for path in profile.MASKED:
            try:
                place = reach(self.root, path)
            except OSError:
                continue
            if stat.S_ISDIR(os.fstat(place.fd).st_mode):
                linux.mount("tmpfs", fd_path(place.fd), "tmpfs", linux.MS_RDONLY)
            else:
                attach(null, place, 0)
            place.close()
        os.close(null)
        for path in profile.READONLY:
            try:
                place = reach(self.root, path)
            except OSError:
                continue
            attach(place.fd, place, ATTR_RDONLY)
            place.close()


def enter(root: int) -> None:
    """Make ``root`` the root directory and drop every other mount of this namespace."""
    os.fchdir(root)
    try:
        linux.pivot_root(".", ".")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        hint = "shiplap cannot run where / is an initial ramdisk; run it from a real root file system"
        raise Refused("no-pivot-root", "the kernel refuses pivot_root here", hint) from error
    linux.unmount(".", linux.MNT_DETACH)
    os.chdir("/")
