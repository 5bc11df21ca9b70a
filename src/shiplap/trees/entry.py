"""One name in a directory: what ``lstat`` says of it, and who owns it according to the layer."""

from __future__ import annotations

import os
import stat

import msgspec

WHITEOUT_DEVICE = 0
"""Device number of overlayfs' whiteouts: character device 0:0 (kernel Documentation/filesystems/overlayfs.rst)."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """``mode`` is the whole ``st_mode``; ``mtime`` is in nanoseconds; ``layer`` numbers the tree's layer it was found in."""

    name: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    rdev: int
    nlink: int
    device: int
    inode: int
    ctime: int
    layer: int = 0

    @property
    def is_dir(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFREG

    @property
    def is_link(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFLNK

    @property
    def is_whiteout(self) -> bool:
        return self.mode & 0o170000 == stat.S_IFCHR and self.rdev == WHITEOUT_DEVICE

    @property
    def permissions(self) -> int:
        """The low twelve bits: rwx of user, group, other, and setuid, setgid, sticky."""
        return self.mode & 0o7777


def is_text(name: str) -> bool:
    """Whether a name is UTF-8. What is not holds surrogates (PEP 383), which few encodings of data accept."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def entry_of(name: str, st: os.stat_result, layer: int = 0) -> Entry:
    """The entry that a ``stat_result`` describes."""
    return Entry(
        name,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        st.st_size,
        st.st_mtime_ns,
        st.st_rdev,
        st.st_nlink,
        st.st_dev,
        st.st_ino,
        st.st_ctime_ns,
        layer,
    )
