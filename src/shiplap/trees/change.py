"""Writing a layer: changes over a tree, made in a directory of their own in overlayfs' form, without any mount.

A :class:`Spot` is a directory of the changed tree. It exists in the layer only once something below it changed ("copied
up"); until then it is the base's. What was made here over nothing, or over what was removed, has no base any more.
Works for root and for an ordinary user: owners and devices that the kernel refuses are put on record (``owners``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import ClassVar

from shiplap.errors import TreeError
from shiplap.trees.entry import Entry, entry_of
from shiplap.trees.owners import Owner, Owners
from shiplap.trees.part import OPAQUE, is_opaque
from shiplap.trees.root import PATH_LIMIT
from shiplap.trees.tree import LINK_LIMIT, Directory, Tree, too_deep

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REFUSED = (errno.EPERM, errno.EINVAL, errno.EACCES)

Create = Callable[["Spot", str], "Spot"]
"""Makes the missing directory of that name in that spot."""


class ChangeTree:
    """The layer under construction at ``path`` (an existing, empty, private directory) over ``base`` (None: scratch).

    The directory is ours alone, and a Spot's path in it is made of names that were seen to be directories there; so
    paths relative to its descriptor are safe, and no descriptor is held for each directory.
    """

    def __init__(self, path: str, base: Tree | None) -> None:
        self.path = path
        self.base = base
        self.owners = Owners()
        self.uid = os.geteuid()
        self.gid = os.getegid()
        self.fd = os.open(path, _OPEN_DIRECTORY)
        self.times: dict[str, int] = {}
        self.opaque = OPAQUE[0]
        self._root = Spot(self, None, "", base.root() if base is not None and base.layers else None)
        self._root.exists = True
        self._spots: dict[str, Spot] = {"": self._root}
        if base is not None and base.layers:
            # The root of a layer carries the base's mode and owner; else a copied-up root would look like a fresh one.
            root = base.root_entry()
            self._root.set_entry(root.uid, root.gid, root.permissions)
            self.times[""] = root.mtime
        else:
            os.fchmod(self.fd, 0o755)

    def __enter__(self) -> ChangeTree:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for spot in self._spots.values():
            spot.close()
        self._spots = {}
        if kind is None:
            # Making entries moves a directory's time; what it shall be is set last. A directory gone since has none.
            for path, mtime in self.times.items():
                os.utime(path or ".", ns=(mtime, mtime), dir_fd=self.fd, follow_symlinks=False)
            self.owners.save(self.path)
        os.close(self.fd)

    def root(self) -> Spot:
        return self._root

    # -- resolution, as trees.root does it, over the changed tree

    def spot(self, path: str, *, create: Create | None = None, root: Spot | None = None) -> Spot:
        """The directory at ``path``, links followed inside ``root``. ``create(parent, name)`` makes a missing one.

        Raises TreeError (not-found, not-a-directory, too-many-links, bad-path).
        """
        clean = path.strip("/")
        root = root or self._root
        known = self._spots.get(root.where(clean) if clean else root.path)
        if known is not None:
            return known
        if len(clean) > PATH_LIMIT or "\0" in clean:
            raise TreeError(f"path is too long or has a NUL: {clean[:60]!r}", code="bad-path")
        stack = [root]
        pending = [part for part in reversed(clean.split("/")) if part and part != "."]
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                if len(stack) > 1:
                    stack.pop()
                continue
            here = stack[-1]
            entry = here.lookup(name)
            if entry is None:
                if create is None:
                    raise TreeError(f"/{here.where(name)}: no such file or directory", code="not-found")
                stack.append(create(here, name))
            elif entry.is_link:
                links += 1
                if links > LINK_LIMIT:
                    raise TreeError(f"/{clean}: too many links", code="too-many-links")
                target = here.read_link(name)
                if target.startswith("/"):
                    del stack[1:]
                pending.extend(part for part in reversed(target.split("/")) if part and part != ".")
            elif not entry.is_dir:
                raise TreeError(f"mkdir /{here.where(name)}: not a directory", code="not-a-directory")
            else:
                stack.append(here.child(name))
        return stack[-1]

    def place(self, path: str, *, create: Create | None = None) -> tuple[Spot, str]:
        """The directory and the name to write for ``path``, a link at its end followed (so its target is written).

        The name is empty for the root itself.
        """
        for _ in range(LINK_LIMIT):
            # Not normpath: "a/.." of a link "a" is what the link leads to, one up.
            head, _slash, name = path.rstrip("/").rpartition("/")
            if name in ("", ".", ".."):
                spot = self.spot(path, create=create)
                return (spot.parent, spot.path.rpartition("/")[2]) if spot.parent is not None else (spot, "")
            spot = self.spot(head, create=create)
            entry = spot.lookup(name)
            if entry is None or not entry.is_link:
                return spot, name
            target = spot.read_link(name)
            path = target if target.startswith("/") else f"{spot.path}/{target}"
        raise TreeError(f"{path}: too many links", code="too-many-links")

    def remember(self, spot: Spot) -> None:
        self._spots[spot.path] = spot

    def known(self, path: str) -> Spot | None:
        return self._spots.get(path)

    def forget(self, path: str) -> None:
        """``path`` was removed: what was known of it and of what lay below holds no more."""
        self.owners.forget(path)
        below = path + "/"
        for known in [known for known in self._spots if known == path or known.startswith(below)]:
            self._spots.pop(known).close()
        for known in [known for known in self.times if known == path or known.startswith(below)]:
            del self.times[known]


class Spot:
    """A directory of the changed tree. ``exists``: it is in the layer; else it is the base's still."""

    __slots__ = ("_base", "exists", "parent", "path", "tree")
    plans: ClassVar[bool] = False
    """True if files are not copied now, but taken from where they are when the layer is packed (``trees.planned``)."""

    def __init__(self, tree: ChangeTree, parent: Spot | None, path: str, base: Directory | None) -> None:
        self.tree = tree
        self.parent = parent
        self.path = path
        self.exists = False
        self._base = base

    def close(self) -> None:
        if self._base is not None:
            self._base.close()

    def where(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    # -- reading

    def lookup(self, name: str) -> Entry | None:
        """The entry ``name`` of the changed tree, links not followed."""
        own = self._own(name)
        if own is not None:
            return None if own.is_whiteout else own
        return self._base.lookup(name) if self._base is not None else None

    def read_link(self, name: str) -> str:
        if self._own(name) is not None:
            return os.readlink(self.where(name), dir_fd=self.tree.fd)
        under = self._base.lookup(name) if self._base is not None else None
        if under is None or self._base is None:
            raise TreeError(f"/{self.where(name)}: no such link", code="not-found")
        return self._base.read_link(under)

    def child(self, name: str) -> Spot:
        """The existing directory ``name`` (must be one, not a link)."""
        path = self.where(name)
        known = self.tree.known(path)
        if known is not None:
            return known
        own = self._own(name)
        under = self._base.lookup(name) if self._base is not None else None
        hidden = own is not None and is_opaque(self.tree.path, path)
        shows = under is not None and under.is_dir and not hidden
        base = self._base.child(under) if shows and under is not None and self._base is not None else None
        spot = Spot(self.tree, self, path, base)
        spot.exists = own is not None
        self.tree.remember(spot)
        return spot

    # -- writing; each first copies this directory up, if it is the base's still

    def ensure(self) -> None:
        """Copy this directory up (with its parents) if it is not in the layer yet."""
        missing: list[Spot] = []
        spot: Spot | None = self
        while spot is not None and not spot.exists:
            missing.append(spot)
            spot = spot.parent
        for each in reversed(missing):
            assert each.parent is not None and each.parent._base is not None
            under = each.parent._base
            entry = under.lookup(each.path.rpartition("/")[2])
            if entry is None:
                raise TreeError(f"/{each.path}: vanished while it was written", code="changed-while-read")
            each._copy_up(under, entry)

    def _copy_up(self, under: Directory, entry: Entry) -> None:
        """Copy this directory up: the base has it as ``entry`` of ``under``."""
        os.mkdir(self.path, 0o700, dir_fd=self.tree.fd)
        self.exists = True
        for key, value in under.xattrs(entry).items():
            self.set_xattr("", key, value)
        self.set_entry(entry.uid, entry.gid, entry.permissions)
        self.tree.times[self.path] = entry.mtime

    def make_directory(self, name: str, mode: int, uid: int, gid: int, mtime: int | None = None) -> Spot:
        """Make a new directory; what bears the name, if anything, must have been removed before."""
        self._change()
        hides = self._clear_whiteout(name)
        spot = Spot(self.tree, self, self.where(name), None)
        os.mkdir(spot.path, 0o700, dir_fd=self.tree.fd)
        spot.exists = True
        if hides:
            spot.hide_base()
        spot.set_entry(uid, gid, mode)
        if mtime is not None:
            self.tree.times[spot.path] = mtime
        self.tree.remember(spot)
        return spot

    def create_file(self, name: str) -> int:
        """A descriptor to write a new regular file; what bears the name must have been removed before."""
        self._change()
        if self._base is not None:
            self._clear_whiteout(name)
        return os.open(self.where(name), _CREATE, 0o600, dir_fd=self.tree.fd)

    def finish_file(
        self,
        fd: int,
        name: str,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        """Owner, mode, attributes and time of the file just written; closes ``fd``.

        In that order: chown clears setuid and capabilities. Attributes that are refused are left out, as in BuildKit.
        """
        try:
            if (uid, gid) != (self.tree.uid, self.tree.gid):
                try:
                    os.fchown(fd, uid, gid)
                except OSError as error:
                    if error.errno not in _REFUSED:
                        raise
                    self.tree.owners.record(self.where(name), Owner(uid, gid))
            os.fchmod(fd, mode)
            for key, value in (xattrs or {}).items():
                with contextlib.suppress(OSError):
                    os.setxattr(fd, key, value)
            os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)

    def make_link(self, name: str, target: str, uid: int, gid: int, mtime: int) -> None:
        """A symbolic link."""
        self._change()
        self._clear_whiteout(name)
        os.symlink(target, self.where(name), dir_fd=self.tree.fd)
        self._own_to(name, uid, gid)
        os.utime(self.where(name), ns=(mtime, mtime), dir_fd=self.tree.fd, follow_symlinks=False)

    def make_node(self, name: str, mode: int, rdev: int, uid: int, gid: int, mtime: int) -> None:
        """A FIFO or device; on record, over an empty file, where the kernel refuses to make one."""
        self._change()
        self._clear_whiteout(name)
        path = self.where(name)
        try:
            os.mknod(path, (mode & 0o170000) | 0o600, rdev, dir_fd=self.tree.fd)
            self._own_to(name, uid, gid)
            os.chmod(path, mode & 0o7777, dir_fd=self.tree.fd)
        except PermissionError:
            # The file on record has what can be had, so that a step may change it.
            os.close(os.open(path, _CREATE, 0o600, dir_fd=self.tree.fd))
            self._own_to(name, uid, gid)
            os.chmod(path, mode & 0o7777, dir_fd=self.tree.fd)
            self.tree.owners.record(path, Owner(uid, gid, mode, rdev))
        os.utime(path, ns=(mtime, mtime), dir_fd=self.tree.fd, follow_symlinks=False)

    def adopt(self, name: str, path: str) -> None:
        """Let the file or directory ``path`` of this disk, with all in it, be ``name`` here; it moves. What is on record
        of it has to be recorded anew."""
        self._change()
        if self._base is not None:
            self._clear_whiteout(name)
        os.rename(path, self.where(name), dst_dir_fd=self.tree.fd)

    def hard_link(self, name: str, source: str) -> None:
        """Another name for the file ``source`` (path in this layer, no directory)."""
        self._change()
        self._clear_whiteout(name)
        path = self.where(name)
        os.link(source, path, src_dir_fd=self.tree.fd, dst_dir_fd=self.tree.fd, follow_symlinks=False)
        owner = self.tree.owners.paths.get(source)
        if owner is not None:
            self.tree.owners.record(path, owner)

    def dress_file(self, name: str, mode: int, uid: int, gid: int, mtime: int) -> None:
        """Owner, mode and time of a regular file of this layer."""
        path = self.where(name)
        self._own_to(name, uid, gid)
        os.chmod(path, mode, dir_fd=self.tree.fd)
        os.utime(path, ns=(mtime, mtime), dir_fd=self.tree.fd, follow_symlinks=False)

    def copy_up(self, name: str) -> None:
        """Bring the base's file or link ``name`` into this layer, as overlayfs does before it is changed or linked."""
        self.ensure()
        entry = self._base.lookup(name) if self._base is not None else None
        if self._own(name) is not None or entry is None or self._base is None:
            return
        if entry.is_link:
            self.make_link(name, self._base.read_link(entry), entry.uid, entry.gid, entry.mtime)
        elif entry.is_file:
            source = self._base.open_file(entry)
            try:
                fd = self.create_file(name)
                while os.sendfile(fd, source, None, 1 << 24):
                    pass
            finally:
                os.close(source)
            self.finish_file(fd, name, entry.permissions, entry.uid, entry.gid, entry.mtime)
            for key, value in self._base.xattrs(entry).items():
                self.set_xattr(name, key, value)
        else:
            self.make_node(name, entry.mode, entry.rdev, entry.uid, entry.gid, entry.mtime)

    def take(
        self, directory: Directory, entry: Entry, name: str, mode: int, uid: int, gid: int, attributes: dict[str, bytes]
    ) -> None:
        """Let the file ``entry`` of ``directory`` be the file ``name`` here. Only where ``plans`` is True."""
        raise TypeError("this layer is made of files")

    def set_entry(self, uid: int, gid: int, mode: int) -> None:
        """Owner and permissions of this directory itself, which must be in the layer."""
        self._own_to("", uid, gid)
        os.chmod(self.path or ".", mode, dir_fd=self.tree.fd)

    def set_time(self, mtime: int) -> None:
        """Modification time of this directory, in nanoseconds, until something in it is made or removed."""
        self.ensure()
        self.tree.times[self.path] = mtime

    def set_xattr(self, name: str, key: str, value: bytes) -> None:
        """Set an extended attribute where file system and rights allow it (BuildKit, too, goes on without)."""
        path = self.where(name) if name else self.path
        try:
            os.setxattr(f"{self.tree.path}/{path}", key, value, follow_symlinks=False)
        except OSError:
            return

    def remove(self, name: str) -> None:
        """Remove ``name`` and all below it; a whiteout stays where the base has the name."""
        self._change()
        own = self._own(name)
        if own is not None:
            if own.is_whiteout:
                return
            self.tree.forget(self.where(name))
            remove_tree(self.tree.fd, self.where(name))
        if self._base is not None and self._base.lookup(name) is not None:
            os.mknod(self.where(name), stat.S_IFCHR, 0, dir_fd=self.tree.fd)

    def hide_base(self) -> None:
        """Make this directory opaque: what the base has here is gone, what the layer wrote stays."""
        self.ensure()
        self._base = None
        target = f"{self.tree.path}/{self.path}"
        try:
            os.setxattr(target, self.tree.opaque, b"y", follow_symlinks=False)
        except OSError:
            # The trusted namespace is for the machine's root; in a user namespace overlayfs reads user.overlay.*
            self.tree.opaque = OPAQUE[1]
            os.setxattr(target, self.tree.opaque, b"y", follow_symlinks=False)

    def _change(self) -> None:
        """Make ready for an entry to come or go, which moves this directory's time, whatever it was set to before."""
        self.ensure()
        self.tree.times.pop(self.path, None)

    def _own(self, name: str) -> Entry | None:
        if not self.exists:
            return None
        try:
            entry = entry_of(name, os.stat(self.where(name), dir_fd=self.tree.fd, follow_symlinks=False))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG and len(os.fsencode(name)) < 256:
                raise too_deep(self.where(name)) from None
            raise TreeError(f"/{self.where(name)}: {error}", code="bad-path") from None
        owners = self.tree.owners
        return owners.applied(self.where(name), entry) if owners else entry

    def _own_to(self, name: str, uid: int, gid: int) -> None:
        path = self.where(name) if name else self.path
        try:
            os.chown(path or ".", uid, gid, dir_fd=self.tree.fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self.tree.owners.record(path, Owner(uid, gid))
        else:
            self.tree.owners.paths.pop(path, None)

    def _clear_whiteout(self, name: str) -> bool:
        """Take away a whiteout of this layer; True if there was one, so that a directory made here hides the base's."""
        own = self._own(name)
        if own is None or not own.is_whiteout:
            return False
        os.unlink(self.where(name), dir_fd=self.tree.fd)
        return True


_DESCRIPTORS = 100
"""How many directories are held open, one in the other, while they are removed."""


def remove_tree(parent: int, name: str) -> None:
    """Remove ``name`` below the directory ``parent``, links not followed, however deep and whatever its modes."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    levels = [(parent, [name])]
    try:
        while levels[0][1]:
            fd, directories = levels[-1]
            if not directories:
                levels.pop()
                os.close(fd)
                above, siblings = levels[-1]
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(siblings.pop(), dir_fd=above)
            elif len(levels) > _DESCRIPTORS:
                # Deeper than descriptors should reach: bring the subtree up, and go on from there when its turn comes.
                moved = f".deep-{os.urandom(8).hex()}"
                os.rename(directories.pop(), moved, src_dir_fd=fd, dst_dir_fd=levels[1][0])
                levels[1][1].insert(0, moved)
            else:
                try:
                    below = _open_for_removal(fd, directories[-1])
                except FileNotFoundError:  # another thread removes it as well
                    directories.pop()
                else:
                    levels.append((below, []))
                    levels[-1][1].extend(_remove_files(below))
    finally:
        for fd, _ in levels[1:]:
            os.close(fd)


def _remove_files(fd: int) -> list[str]:
    """Remove what is no directory from the directory ``fd``: names of the others."""
    left = []
    for name in os.listdir(fd):
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            left.append(name)
    return left


def _open_for_removal(parent: int, name: str) -> int:
    try:
        os.chmod(name, 0o700, dir_fd=parent)
    except OSError:
        pass
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
