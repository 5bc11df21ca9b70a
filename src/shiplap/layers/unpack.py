"""Applying a tar stream to a tree: image layers (with whiteouts) and archives that ADD unpacks.

Every name is resolved inside the root, through the layers beneath as well (``lib/x`` where a lower layer has
``lib -> usr/lib``); what leads out is contained, as containerd does, and nothing is ever written through a link's end.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import msgspec

from shiplap.errors import ImageError, Place, TreeError
from shiplap.layers import header as tar
from shiplap.layers.header import XATTR, Header
from shiplap.layers.reader import Source, TarReader
from shiplap.trees.change import ChangeTree, Spot
from shiplap.trees.copy import write_all

WHITEOUT = ".wh."
OPAQUE_WHITEOUT = ".wh..wh..opq"
_KINDS = {tar.CHAR: stat.S_IFCHR, tar.BLOCKDEV: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
_ID_LIMIT = (1 << 32) - 2


class UnpackRule(msgspec.Struct, frozen=True):
    """``whiteouts``: names of the form ``.wh.x`` delete (layers). ``owner``: for everything, instead of the archive's.

    ``size_limit``: most bytes of file data in all; ``check`` is called now and then and raises to stop.
    """

    whiteouts: bool = True
    owner: tuple[int, int] | None = None
    size_limit: int = 1 << 50
    check: Callable[[], None] = lambda: None


def unpack(stream: Source, target: ChangeTree, rule: UnpackRule | None = None, root: Spot | None = None) -> int:
    """Apply the plain tar ``stream`` below ``root`` (default: the tree's own); the bytes of file data written.

    Raises ImageError: invalid-tar, truncated-tar, escaping-name, too-large and the limits of the reader.
    """
    return _Unpacker(target, rule or UnpackRule(), root or target.root()).run(TarReader(stream))


class _Unpacker:
    def __init__(self, target: ChangeTree, rule: UnpackRule, root: Spot) -> None:
        self._target = target
        self._rule = rule
        self._root = root
        self._written = 0
        self._times: dict[Spot, int] = {}

    def run(self, reader: TarReader) -> int:
        for member in reader:
            try:
                self._apply(member, reader)
            except OSError as error:
                raise ImageError(
                    f"cannot unpack {member.name[:200]!r}: {error.strerror}",
                    code="cannot-unpack",
                    where=Place(member.name[:200]),
                ) from error
            except TreeError as error:
                raise ImageError(f"cannot unpack {member.name[:200]!r}: {error}", code="cannot-unpack") from None
            except ValueError as error:  # a NUL in a name
                raise ImageError(f"cannot unpack {member.name[:200]!r}: {error}", code="invalid-tar") from None
        for spot, mtime in self._times.items():  # last of all: whatever is unpacked into a directory moves its time
            if self._target.known(spot.path) is spot:
                spot.set_time(mtime)
        return self._written

    def _apply(self, member: Header, reader: TarReader) -> None:
        self._rule.check()
        parts = _parts(member.name)
        if not parts:
            # ADD unpacks into a directory that stays what it is; a layer says what its root is.
            if member.kind == tar.DIRECTORY and self._rule.whiteouts:
                self._dress_directory(self._root, member)
            return
        name = parts[-1]
        if self._rule.whiteouts and any(part.startswith(WHITEOUT) for part in parts):
            self._whiteout(parts)
            return
        spot = self._target.spot("/".join(parts[:-1]), create=_implied, root=self._root)
        existing = spot.lookup(name)
        if existing is not None and not (existing.is_dir and member.kind == tar.DIRECTORY):
            if member.kind == tar.HARDLINK and _parts(member.link) == parts:
                return
            if member.kind in _KINDS or member.kind in (tar.REGULAR, tar.HARDLINK, tar.SYMLINK, tar.DIRECTORY):
                spot.remove(name)
        self._make(member, reader, spot, name, exists=existing is not None and existing.is_dir)

    def _make(self, member: Header, reader: TarReader, spot: Spot, name: str, exists: bool) -> None:
        uid, gid = self._owner(member)
        mtime = _time(member)
        if member.kind == tar.DIRECTORY:
            if exists and spot.lookup(name) is not None:
                self._dress_directory(spot.child(name), member)
            else:
                made = spot.make_directory(name, member.mode, uid, gid)
                _set_xattrs(made, "", member)
                self._times[made] = mtime
        elif member.kind == tar.REGULAR:
            self._written += member.size
            if self._written > self._rule.size_limit:
                raise ImageError(f"archive holds more than {self._rule.size_limit} bytes", code="too-large")
            fd = spot.create_file(name)
            try:
                for piece in reader.pieces():
                    self._rule.check()
                    if isinstance(piece, bytes):
                        write_all(fd, piece)
                    else:
                        os.lseek(fd, piece, os.SEEK_CUR)  # a hole stays one
                if reader.sparse:
                    os.ftruncate(fd, member.size)  # it may end in one
            except BaseException:
                os.close(fd)
                raise
            spot.finish_file(fd, name, member.mode, uid, gid, mtime)
            _set_xattrs(spot, name, member)
        elif member.kind == tar.SYMLINK:
            spot.make_link(name, member.link, uid, gid, mtime)
        elif member.kind == tar.HARDLINK:
            self._hard_link(member, spot, name)
        elif member.kind in _KINDS:
            rdev = os.makedev(member.major & 0xFFFFFFFF, member.minor & 0xFFFFFFFF) if member.kind != tar.FIFO else 0
            if member.kind == tar.CHAR and rdev == 0:
                return  # overlayfs' own mark for "deleted": no file that an image can hold
            spot.make_node(name, _KINDS[member.kind] | member.mode, rdev, uid, gid, mtime)
        # Other types (contiguous, vendor extensions) hold no file for us; Docker skips them as well.

    def _dress_directory(self, spot: Spot, member: Header) -> None:
        spot.ensure()
        spot.set_entry(*self._owner(member), member.mode)
        _set_xattrs(spot, "", member)
        self._times[spot] = _time(member)

    def _hard_link(self, member: Header, spot: Spot, name: str) -> None:
        parts = _parts(member.link)
        if not parts:
            raise ImageError(f"hard link {member.name[:200]!r} leads to no file", code="bad-hard-link")
        try:
            holder = self._target.spot("/".join(parts[:-1]), root=self._root)
            source = holder.lookup(parts[-1])
        except TreeError:
            source = None
        if source is None or source.is_dir:
            raise ImageError(
                f"hard link {member.name[:200]!r} leads to {member.link[:200]!r}, which is no file",
                code="bad-hard-link",
            )
        holder.copy_up(parts[-1])
        spot.hard_link(name, holder.where(parts[-1]))
        if source.is_file:
            # As containerd and Docker do: what the last name says of the file holds for all of them.
            for place, leaf in ((spot, name), (holder, parts[-1])):
                place.dress_file(leaf, member.mode, *self._owner(member), _time(member))

    def _whiteout(self, parts: list[str]) -> None:
        name = parts[-1]
        if any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise ImageError(f"a whiteout is used as a directory: {'/'.join(parts)[:200]!r}", code="invalid-whiteout")
        try:
            spot = self._target.spot("/".join(parts[:-1]), root=self._root)
        except TreeError:
            if name[len(WHITEOUT) :] in ("", ".", ".."):
                raise ImageError(f"invalid whiteout {name!r}", code="invalid-whiteout") from None
            return  # nothing is there that could be deleted
        if name == OPAQUE_WHITEOUT:
            spot.hide_base()
        elif name.startswith(".wh..wh."):
            return  # bookkeeping of aufs
        else:
            victim = name[len(WHITEOUT) :]
            if victim in ("", ".", ".."):
                raise ImageError(f"invalid whiteout {name!r}", code="invalid-whiteout")
            spot.remove(victim)

    def _owner(self, member: Header) -> tuple[int, int]:
        if self._rule.owner is not None:
            return self._rule.owner
        if not (0 <= member.uid <= _ID_LIMIT and 0 <= member.gid <= _ID_LIMIT):
            raise ImageError(
                f"{member.name[:200]!r} is owned by {member.uid}:{member.gid}, which is out of range",
                code="invalid-tar",
            )
        return member.uid, member.gid


def _parts(name: str) -> list[str]:
    """The components of a member's name. A leading ``/`` drops away; ``..`` that would leave the root is refused."""
    parts: list[str] = []
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                raise ImageError(f"archive names a file outside of its root: {name[:200]!r}", code="escaping-name")
            parts.pop()
        else:
            parts.append(part)
    return parts


def _implied(parent: Spot, name: str) -> Spot:
    return parent.make_directory(name, 0o755, 0, 0)


def _time(member: Header) -> int:
    # Times before 1970, and what does not fit into 63 bits of nanoseconds (2262), become 1970: containerd's ``boundTime``.
    mtime = member.mtime * 1_000_000_000
    return mtime if 0 <= mtime < 1 << 63 else 0


def _set_xattrs(spot: Spot, name: str, member: Header) -> None:
    for key, value in member.pax.items():
        attribute = key.removeprefix(XATTR)
        if ".overlay." not in attribute and len(value) <= 65536:
            spot.set_xattr(name, attribute, value)
