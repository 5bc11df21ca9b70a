"""What files an image has, without unpacking it: its layers' headers laid over each other, each file's bytes hashed.

Memory goes with the number of files (about 0.5 kB each), not with their sizes. A layer that two images share is read once.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from shiplap.errors import ImageError
from shiplap.images.place import ChunkReader, Source
from shiplap.layers import header as tar
from shiplap.layers.compression import Decompressed
from shiplap.layers.header import XATTR, Header
from shiplap.layers.reader import TarReader
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
KINDS = {
    tar.REGULAR: "file",
    tar.DIRECTORY: "directory",
    tar.SYMLINK: "symlink",
    tar.CHAR: "character device",
    tar.BLOCKDEV: "block device",
    tar.FIFO: "fifo",
}


class FileFact(msgspec.Struct, frozen=True, gc=False):
    """One entry. ``digest``: SHA-256 of a file's bytes; ``link``: a symlink's target; ``layer``: which it is of (0 = first)."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    mtime: int = 0
    link: str = ""
    device: str = ""
    digest: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    layer: int = 0
    name: str = ""
    """Of a hard link: the name under which the layer has the bytes."""


class LayerFacts(msgspec.Struct, frozen=True):
    """One layer alone: what it puts, what it removes, which directories it empties first."""

    puts: dict[str, FileFact]
    removes: tuple[str, ...]
    empties: tuple[str, ...]


class Layers:
    """Reads layers, each digest once."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._known: dict[Digest, LayerFacts] = {}
        self._check = check

    def facts(self, source: Source, layer: Descriptor, diff_id: Digest) -> LayerFacts:
        """What the layer does. Raises ImageError: invalid-tar, and what the source raises."""
        found = self._known.get(diff_id)
        if found is None:
            found = self._known[diff_id] = self._read(source, layer)
        return found

    def _read(self, source: Source, layer: Descriptor) -> LayerFacts:
        puts: dict[str, FileFact] = {}
        removes, empties = [], []
        for member, reader in members(source, layer):
            self._check()
            path = clean(member.name)
            directory, _, name = path.rpartition("/")
            if name == OPAQUE:
                empties.append(directory)
            elif name.startswith(WHITEOUT):
                removes.append(posixpath.join(directory, name.removeprefix(WHITEOUT)))
            elif member.kind == tar.HARDLINK:
                target = clean(member.link)
                known = puts.get(target)
                # What it names may lie in a layer below: then it is looked up when layers are laid over each other.
                puts[path] = (
                    msgspec.structs.replace(known, name=known.name or target)
                    if known is not None
                    else FileFact("hard link", 0, 0, 0, link=target)
                )
            elif member.kind in KINDS:
                puts[path] = _fact(member, reader)
        return LayerFacts(puts, tuple(removes), tuple(empties))


def lay_over(files: dict[str, FileFact], layer: LayerFacts, number: int) -> None:
    """Let ``files``, those of an image so far, be those after the layer ``number``."""
    linked = {
        path: files[fact.link] for path, fact in layer.puts.items() if fact.kind == "hard link" and fact.link in files
    }
    # What was a directory and becomes something else takes all that was in it along.
    replaced = [
        path
        for path, fact in layer.puts.items()
        if fact.kind != "directory" and path in files and files[path].kind == "directory"
    ]
    gone = {path + "/" for path in (*layer.removes, *replaced) if path in files}
    gone |= {path + "/" if path else "" for path in layer.empties}
    for path in layer.removes:
        files.pop(path, None)
    if gone:
        for path in [path for path in files if _under(path, gone)]:
            del files[path]
    for path, fact in layer.puts.items():
        if fact.kind != "hard link":
            files[path] = msgspec.structs.replace(fact, layer=number)
        elif path in linked:
            target = linked[path]
            files[path] = msgspec.structs.replace(target, name=target.name or fact.link)


def _under(path: str, directories: set[str]) -> bool:
    if "" in directories:
        return True
    end = path.find("/")
    while end >= 0:
        if path[: end + 1] in directories:
            return True
        end = path.find("/", end + 1)
    return False


def members(source: Source, layer: Descriptor) -> Iterator[tuple[Header, TarReader]]:
    """The members of a layer, whatever it is compressed with."""
    chunks = ChunkReader(source.chunks(layer))
    try:
        reader = TarReader(Decompressed(chunks))
        for member in reader:
            yield member, reader
    finally:
        chunks.close()


def clean(name: str) -> str:
    """A member's path as a plain text, ``""`` for the root; nothing is ever opened by it."""
    return posixpath.normpath("/" + name).strip("/")


def _fact(member: Header, reader: TarReader) -> FileFact:
    digest = b""
    if member.kind == tar.REGULAR:
        hasher = hashlib.sha256()
        for chunk in reader.chunks():
            hasher.update(chunk)
        digest = hasher.digest()
    special = member.kind in (tar.CHAR, tar.BLOCKDEV)
    xattrs: list[tuple[str, bytes]] = sorted(
        (key.removeprefix(XATTR), value) for key, value in member.pax.items() if key.startswith(XATTR)
    )
    return FileFact(
        KINDS[member.kind],
        member.mode & 0o7777,
        member.uid,
        member.gid,
        member.size if member.kind == tar.REGULAR else 0,
        member.mtime,
        member.link if member.kind == tar.SYMLINK else "",
        f"{member.major}:{member.minor}" if special else "",
        digest,
        tuple(xattrs),
    )


def file_pieces(source: Source, layer: Descriptor, wanted: set[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The wanted regular files of a layer, with their bytes, in the layer's order; read each before going on."""
    left = set(wanted)
    for member, reader in members(source, layer):
        path = clean(member.name)
        if path in left and member.kind == tar.REGULAR:
            left.discard(path)
            yield path, reader.chunks()
        if not left:
            return
    if left:
        raise ImageError(f"layer {layer.digest} lacks {min(left)}", code="invalid-tar")


def plain_fact(fact: FileFact) -> dict[str, Any]:
    """A fact as plain data, without what is empty."""
    found: dict[str, Any] = {"kind": fact.kind, "mode": f"{fact.mode:04o}", "owner": f"{fact.uid}:{fact.gid}"}
    if fact.kind == "file":
        found |= {"size": fact.size, "digest": "sha256:" + fact.digest.hex()}
    found["mtime"] = fact.mtime
    if fact.link:
        found["link"] = fact.link
    if fact.device:
        found["device"] = fact.device
    if fact.xattrs:
        found["xattrs"] = {key: value.hex() for key, value in fact.xattrs}
    return found
