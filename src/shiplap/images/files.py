"""Images in files: OCI layouts (directories), OCI archives and docker archives (tars), as a ``Source``.

A tar is looked through once, seeking from header to header, and its blobs are then read where they lie. One that is
compressed or comes from a pipe is first written, plain, to a file without a name. Nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from shiplap.errors import ImageError, Place, UsageError
from shiplap.images.place import CHUNK, checked_chunks
from shiplap.layers import header as tar
from shiplap.layers.compression import Decompressed, detect
from shiplap.layers.reader import TarReader
from shiplap.oci import media_types
from shiplap.oci.config import CONFIG_LIMIT, parse_config
from shiplap.oci.digest import Digest, digest_of, is_digest, split_digest
from shiplap.oci.manifest import (
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    decode_json,
    encode_manifest,
    parse_manifest,
)
from shiplap.oci.reference import Reference, parse_reference
from shiplap.oci.referrer import referrer_descriptor

_LIST_TAG = re.compile(r"[a-z0-9]+-[0-9a-f]{32,64}")
_NAME, _REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"

MOST_MEMBERS = 100_000
"""Files of an archive: far more than there are blobs in any, and no more than memory bears."""


class Box(Protocol):
    """Files by path, wherever they lie."""

    title: str

    def size(self, path: str) -> int:
        """Bytes of the file; -1 if there is none."""

    def open(self, path: str) -> BinaryIO:
        """The file, to be closed; it may be read beside others."""


class DirectoryBox:
    """A directory. Only names that are ours to choose are looked up: ``index.json`` and digests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.title = str(path)

    def size(self, path: str) -> int:
        try:
            return (self._path / path).stat().st_size
        except OSError:
            return -1

    def open(self, path: str) -> BinaryIO:
        try:
            return (self._path / path).open("rb")
        except OSError as error:
            raise ImageError(f"cannot read {self.title}/{path}: {error.strerror}", code="cannot-read") from None


class TarBox:
    """The members of a plain tar that can seek. ``close`` closes its file."""

    def __init__(self, file: BinaryIO, title: str) -> None:
        self.title = title
        self._file = file
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        reader = TarReader(file)
        for number, member in enumerate(reader):
            if number >= MOST_MEMBERS:
                raise ImageError(f"{title} has more than {MOST_MEMBERS} files", code="too-many-entries")
            name = posixpath.normpath(member.name)
            if member.kind == tar.REGULAR and not reader.sparse:
                self._members[name] = (file.tell(), member.size)
            elif member.kind == tar.SYMLINK:  # docker before 25: a layer that another has too
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.link))
            elif member.kind == tar.HARDLINK:
                self._links[name] = posixpath.normpath(member.link)
            reader.leap(file)

    def size(self, path: str) -> int:
        return self._members.get(self._followed(path), (0, -1))[1]

    def open(self, path: str) -> BinaryIO:
        found = self._members.get(self._followed(path))
        if found is None:
            raise ImageError(f"{self.title} lacks {path}", code="invalid-archive", hint="make the archive anew")
        return io.BufferedReader(_Stretch(self._file.fileno(), *found), CHUNK)

    def close(self) -> None:
        self._file.close()

    def _followed(self, path: str) -> str:
        path = posixpath.normpath(path)
        return self._links.get(path, path)


class _Stretch(io.RawIOBase):
    """``size`` bytes of a file from ``offset`` on, with a position of its own."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        super().__init__()
        self._fd = fd
        self._next = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = os.pread(self._fd, min(view.nbytes, self._end - self._next), self._next)
        view[: len(data)] = data
        self._next += len(data)
        return len(data)


def open_tar(path: str, spool: str) -> TarBox:
    """The archive at ``path`` (``-``: standard input); ``spool`` is the directory for what must be written plain first.

    Raises UsageError (cannot-read, no-stdin).
    """
    if path == "-":
        return tar_of(_standard_input(), "standard input", spool)
    try:
        file = open(path, "rb")  # noqa: SIM115 (the box closes it)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", code="cannot-read") from None
    return tar_of(file, path, spool)


def tar_of(file: BinaryIO, title: str, spool: str) -> TarBox:
    """The archive in ``file``, which it closes."""
    if file.seekable():
        start = file.tell()
        plain = not detect(file.read(6))
        file.seek(start)
        if plain:
            return TarBox(file, title)
    with file:
        return TarBox(_spooled(Decompressed(file), spool), title)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise UsageError("standard input is closed", code="no-stdin", hint="redirect it from a file")
    return os.fdopen(os.dup(sys.stdin.fileno()), "rb")


def _spooled(stream: Decompressed, directory: str) -> BinaryIO:
    copy = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 (the box closes it)
    try:
        while chunk := stream.read(CHUNK):
            copy.write(chunk)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy


class Listed(msgspec.Struct, frozen=True):
    """An image of a box: ``names`` are full references, ``tags`` what a layout calls it."""

    descriptor: Descriptor
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Boxed:
    """All images of a box. What only docker's ``manifest.json`` describes gets a manifest made for it."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.referrers: dict[Digest, list[Descriptor]] = {}
        """Entries by what they refer to."""
        self._made: dict[Digest, bytes] = {}
        self._paths: dict[Digest, str] = {}
        if box.size("index.json") >= 0:
            self.images = self._oci()
        elif box.size("manifest.json") >= 0:
            self.images = self._docker()
        else:
            raise ImageError(
                f"{box.title} is neither an OCI nor a docker archive: it has no index.json and no manifest.json",
                code="not-an-archive",
                hint="a root file system comes in with shiplap import",
            )

    def find(self, name: str, digest: str = "") -> Listed:
        """The image called ``name`` (a tag or a reference), or with this digest. Raises ImageError (no-such-image)."""
        if digest:
            for image in self.images:
                if image.descriptor.digest == digest:
                    return image
            raw = self.read(digest, self.size(digest), MANIFEST_LIMIT)
            manifest = parse_manifest(raw, digest=digest)
            return Listed(Descriptor(manifest.media_type, digest, len(raw)))
        if not name and len({image.descriptor.digest for image in self.images}) == 1:
            return merged(self.images)
        wanted = name or "latest"
        found = [image for image in self.images if wanted in image.tags or _full(wanted) in image.names]
        found = found or [image for image in self.images if any(_tag(full) == wanted for full in image.names)]
        if len({image.descriptor.digest for image in found}) == 1:
            return found[0]
        known = dict.fromkeys(text for image in self.images for text in (*image.names, *image.tags))
        has = ", ".join(known) or "one without a name"
        if found or not name:
            raise ImageError(
                f"{self.box.title} has several images: {has}", code="ambiguous-image", hint="add :NAME of one of them"
            )
        raise ImageError(f"{self.box.title} has no image {wanted}; it has {has}", code="no-such-image")

    def size(self, digest: Digest) -> int:
        """Bytes of a blob; -1 if it is not here."""
        made = self._made.get(digest)
        return len(made) if made is not None else self.box.size(self._path(digest))

    def read(self, digest: Digest, size: int, limit: int) -> bytes:
        """All of a small blob."""
        if size > limit:
            raise ImageError(f"blob of {size} bytes is over the limit", code="too-large", where=Place(blob=digest))
        made = self._made.get(digest)
        return made if made is not None else b"".join(self.chunks(Descriptor(digest=digest, size=size)))

    def manifest(self, entry: Descriptor) -> bytes:
        """The manifest of an entry of an index. Raises ImageError (size-mismatch, digest-mismatch)."""
        return self.read(entry.digest, self._sized(entry), MANIFEST_LIMIT)

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """A blob. Raises ImageError (blob-missing, digest-mismatch)."""
        if self.size(descriptor.digest) < 0:
            raise ImageError(
                f"{self.box.title} lacks the blob {descriptor.digest}",
                code="blob-missing",
                where=Place(blob=descriptor.digest),
                hint="it holds some platforms only, or is damaged: choose another with --platform",
            )
        with self.box.open(self._path(descriptor.digest)) as file:
            yield from checked_chunks(file, descriptor)

    def _path(self, digest: Digest) -> str:
        return self._paths.get(digest) or "blobs/" + "/".join(split_digest(digest))

    def _small(self, path: str, limit: int = 16 << 20) -> bytes:
        if self.box.size(path) > limit:
            raise ImageError(f"{path} of {self.box.title} is over {limit} bytes", code="too-large")
        with self.box.open(path) as file:
            return file.read(self.box.size(path))

    def _oci(self) -> list[Listed]:
        index = parse_manifest(self._small("index.json"))
        if not isinstance(index, Index):
            raise ImageError(f"index.json of {self.box.title} is no index", code="invalid-archive")
        found: list[Listed] = []
        attached: list[Listed] = []
        for entry in index.manifests:
            annotations = entry.annotations or {}
            tag, full = annotations.get(_REF, ""), annotations.get(_NAME, "")
            if not full and ("/" in tag or ":" in tag):
                full = tag
            descriptor = Descriptor(self._kind(entry), entry.digest, self._sized(entry))
            image = Listed(descriptor, (str(parse_reference(full)),) if full else (), (tag,) if tag else ())
            (attached if not full and self._attached(entry, tag) else found).append(image)
        return found or attached

    def _attached(self, entry: Descriptor, tag: str) -> bool:
        """Whether an entry is here for what it refers to, which is remembered: itself (as oras has it) or all in a list."""
        if self.size(entry.digest) < 0 or (tag and not _LIST_TAG.fullmatch(tag)):
            return False
        raw = self.manifest(entry)
        parsed = parse_manifest(raw, entry.media_type)
        if tag:  # "Unavailable Referrers API" of the distribution specification, which regctl goes by in layouts, too
            listed = parsed.manifests if isinstance(parsed, Index) else ()
            self.referrers.setdefault(tag.replace("-", ":"), []).extend(listed)
            return isinstance(parsed, Index)
        described, subject = referrer_descriptor(raw, parsed.media_type or entry.media_type)
        if subject:
            self.referrers.setdefault(subject, []).append(described)
        return bool(subject)

    def _sized(self, entry: Descriptor) -> int:
        size = self.size(entry.digest)
        if size >= 0 and entry.size not in (-1, size):
            raise ImageError(
                f"{self.box.title}: {entry.digest} has {size} bytes, its index says {entry.size}",
                code="size-mismatch",
                where=Place(blob=entry.digest),
                hint="the file is damaged: make it anew",
            )
        return size if entry.size < 0 else entry.size

    def _kind(self, entry: Descriptor) -> str:
        if entry.media_type in media_types.INDEXES | media_types.MANIFESTS:
            return entry.media_type
        raise ImageError(f"{self.box.title} holds no image but {entry.media_type[:100]}", code="invalid-archive")

    def _docker(self) -> list[Listed]:
        found = []
        for item in decode_json(self._small("manifest.json"), list[dict[str, Any]], "manifest.json"):
            names = tuple(str(parse_reference(text)) for text in item.get("RepoTags") or ())
            found.append(Listed(self._described(item), names))
        return found

    def _described(self, item: dict[str, Any]) -> Descriptor:
        path, layers = item.get("Config"), item.get("Layers") or []
        if not isinstance(path, str) or not all(isinstance(layer, str) for layer in layers):
            raise ImageError(f"manifest.json of {self.box.title} names no config", code="invalid-archive")
        raw = self._small(path, CONFIG_LIMIT)
        config = digest_of(raw)
        self._made[config] = raw
        diff_ids = parse_config(raw).diff_ids
        if len(diff_ids) != len(layers):
            raise ImageError(f"{self.box.title}: the config knows another number of layers", code="invalid-archive")
        manifest = Manifest(
            media_type=media_types.OCI_MANIFEST,
            config=Descriptor(media_types.OCI_CONFIG, config, len(raw)),
            layers=tuple(self._layer(layer, diff_id) for layer, diff_id in zip(layers, diff_ids, strict=True)),
        )
        encoded = encode_manifest(manifest)
        digest = digest_of(encoded)
        self._made[digest] = encoded
        return Descriptor(manifest.media_type, digest, len(encoded))

    def _layer(self, path: str, diff_id: Digest) -> Descriptor:
        kinds = {"gzip": media_types.OCI_LAYER_GZIP, "zstd": media_types.OCI_LAYER_ZSTD}
        size = self.box.size(path)
        with self.box.open(path) as file:
            compression = detect(file.read(6))
        algorithm, _, encoded = path.removeprefix("blobs/").partition("/")
        if not compression:
            digest = diff_id  # what is not compressed is its own diff
        elif is_digest(f"{algorithm}:{encoded}"):
            digest = f"{algorithm}:{encoded}"
        else:
            with self.box.open(path) as file:
                digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        self._paths[digest] = path
        return Descriptor(kinds.get(compression, media_types.OCI_LAYER), digest, size)


class BoxSource:
    """A ``Source``: one image of a box."""

    attaches = True

    def __init__(self, boxed: Boxed, image: Listed) -> None:
        self._boxed = boxed
        self._root = image.descriptor
        self.names = image.names
        self.title = boxed.box.title

    def root(self) -> tuple[Descriptor, bytes]:
        return self._root, self.manifest(self._root)

    def holds(self, descriptor: Descriptor) -> bool:
        return self._boxed.size(descriptor.digest) >= 0

    def manifest(self, descriptor: Descriptor) -> bytes:
        if self._boxed.size(descriptor.digest) < 0:
            return b"".join(self._boxed.chunks(descriptor))  # which says that it is missing
        return self._boxed.manifest(descriptor)

    def chunks(self, descriptor: Descriptor, step: str = "") -> Iterator[bytes]:
        small = self._boxed.size(descriptor.digest) == descriptor.size <= CONFIG_LIMIT
        if small:
            data = self._boxed.read(descriptor.digest, descriptor.size, CONFIG_LIMIT)
            return iter((data,)) if data else iter(())
        return self._boxed.chunks(descriptor)

    def interrupt(self) -> None:
        pass  # files answer at once

    def home_of(self, descriptor: Descriptor) -> Reference | None:
        return None

    def referrers(self, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        found = {each.digest: each for each in self._boxed.referrers.get(digest, ())}
        return tuple(each for each in found.values() if artifact_type in ("", each.artifact_type))


def merged(images: list[Listed]) -> Listed:
    """One image that is listed under several names."""
    names = tuple(dict.fromkeys(name for image in images for name in image.names))
    tags = tuple(dict.fromkeys(tag for image in images for tag in image.tags))
    return Listed(images[0].descriptor, names, tags)


def _tag(full: str) -> str:
    return parse_reference(full).tag


def _full(text: str) -> str:
    try:
        return str(parse_reference(text))
    except ImageError:
        return ""
