"""Packing a layer: from the files of its directory straight to compressed tar, both digests computed on the way."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, BinaryIO

import msgspec

from shiplap.errors import TreeError
from shiplap.layers import header as tar
from shiplap.layers.compression import codec
from shiplap.layers.difference import CAPABILITY, Change, changes
from shiplap.layers.header import XATTR, Header, encode_header, padding
from shiplap.layers.sink import Packed, Sink
from shiplap.layers.times import Times
from shiplap.layers.unpack import WHITEOUT
from shiplap.trees.descent import flatten
from shiplap.trees.entry import Entry
from shiplap.trees.tree import Directory, Tree

CHUNK = 1 << 20
_KINDS = {stat.S_IFCHR: tar.CHAR, stat.S_IFBLK: tar.BLOCKDEV, stat.S_IFIFO: tar.FIFO}


def pack_layer(
    layer: Tree,
    base: Tree | None,
    out: BinaryIO,
    compression: str = "gzip",
    level: int | None = None,
    times: Times | None = None,
) -> Packed:
    """Write the difference of ``layer`` to ``base`` to ``out``. Deterministic for given trees."""
    return write_tar(layer_members(changes(layer, base), times), out, compression, level)


def write_tar(
    members: Iterable[bytes],
    out: BinaryIO,
    compression: str = "gzip",
    level: int | None = None,
    *,
    end: bytes = tar.END,
) -> Packed:
    """Write the pieces of a tar, and its ``end``, compressed to ``out``; memory stays within a few chunks."""
    sink = Sink(out, codec(compression, level))
    with sink:
        for piece in members:
            sink.add(piece)
        sink.add(end)
    return sink.packed()


def layer_members(found: Iterable[Change], times: Times | None = None) -> Iterator[bytes]:
    """The tar pieces (headers, data, padding) of changes."""
    names: dict[tuple[int, int], str] = {}
    for change in found:
        if change.entry is None:
            head, name = posixpath.split(change.path)
            yield encode_header(Header(posixpath.join(head, WHITEOUT + name)))
        else:
            yield from entry_members(change.directory, change.entry, change.path, names, times)


def entry_members(
    directory: Directory, entry: Entry, path: str, names: dict[tuple[int, int], str], times: Times | None = None
) -> Iterator[bytes]:
    """The tar pieces of one entry under the name ``path``. ``names``: inodes written so far."""
    mtime = entry.mtime // 1_000_000_000 if times is None else times.of(entry.mtime)
    header = Header(path, mode=entry.permissions, uid=entry.uid, gid=entry.gid, mtime=mtime)
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFSOCK:
        return
    if kind == stat.S_IFDIR:
        header.name += "/"
        header.kind = tar.DIRECTORY
    elif kind == stat.S_IFLNK:
        header.kind = tar.SYMLINK
        header.link = directory.read_link(entry)
    elif kind in _KINDS:
        header.kind = _KINDS[kind]
        if kind != stat.S_IFIFO:
            header.major, header.minor = os.major(entry.rdev), os.minor(entry.rdev)
    else:
        header.size = entry.size
    if entry.nlink > 1 and kind != stat.S_IFDIR:
        first = names.get((entry.device, entry.inode))
        if first is not None:
            header.kind, header.link, header.size = tar.HARDLINK, first, 0
        else:
            names[entry.device, entry.inode] = path
    small = 0 < header.size <= CHUNK
    data = b""
    if kind in (stat.S_IFREG, stat.S_IFDIR) and header.kind != tar.HARDLINK:
        data, attributes = directory.load(entry) if small else (b"", directory.xattrs(entry))
        capability = attributes.get(CAPABILITY)
        if capability:
            header.pax = {XATTR + CAPABILITY: capability}
    head = encode_header(header)
    if small:
        yield b"".join((head, data, padding(entry.size)))
        return
    yield head
    if header.size:
        yield from _data(directory, entry)
        yield padding(entry.size)


def _data(directory: Directory, entry: Entry) -> Iterator[bytes]:
    fd = directory.open_file(entry)
    try:
        left = entry.size
        while left:
            chunk = os.read(fd, min(left, CHUNK))
            if not chunk:
                raise TreeError(f"{directory.where(entry.name)}: changed while it was read", code="changed-while-read")
            left -= len(chunk)
            yield chunk
    finally:
        os.close(fd)


def tree_members(
    tree: Tree,
    times: Times | None = None,
    check: Callable[[], None] = lambda: None,
    root_of: int | None = None,
    below: str = "",
    without: Collection[str] = (),
) -> Iterator[bytes]:
    """The tar pieces of a whole tree, merged: what ``--output type=tar`` writes.

    ``below``: what every name begins with. ``without``: paths that are left out.
    ``root_of``: a user id whose files become root's (those of the user who puts a root file system together).
    """
    names: dict[tuple[int, int], str] = {}

    def walk(directory: Directory) -> Iterator[Any]:
        check()
        for entry in directory.entries():
            if without and directory.where(entry.name) in without:
                continue
            if entry.uid == root_of:
                entry = msgspec.structs.replace(entry, uid=0, gid=0)
            yield from entry_members(directory, entry, below + directory.where(entry.name), names, times)
            if entry.is_dir:
                child = directory.child(entry)
                try:
                    yield walk(child)
                finally:
                    child.close()

    yield from flatten(walk(tree.root()))
