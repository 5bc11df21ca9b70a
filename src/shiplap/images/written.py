"""Images into files: a ``Target`` that is an OCI layout, an OCI archive or a docker archive."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from shiplap.errors import ExportError, ImageError
from shiplap.export.archive import (
    LAYOUT_FILE,
    NAME_ANNOTATION,
    REF_ANNOTATION,
    blob_path,
    docker_entry,
    encode_index,
    index_entries,
    layout_pieces,
    merged,
)
from shiplap.export.aside import locked, replacing, writing
from shiplap.export.moments import format_time
from shiplap.images.choose import choose_manifest
from shiplap.images.fetching import fetch_blobs
from shiplap.images.place import Source, Transfer
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import MANIFEST_LIMIT, Descriptor, Index, encode_json, parse_manifest
from shiplap.oci.platform import Platform, native_platform
from shiplap.oci.reference import parse_reference


class Shipment(NamedTuple):
    """An image on its way into an archive."""

    transfer: Transfer
    source: Source


def archive_bytes(
    shipments: Sequence[Shipment], docker: bool, platform: Platform, tag: str = "", step: str = ""
) -> Iterator[bytes]:
    """The tar of an archive with these images, whose blobs are read on the way, each once.

    ``docker``: with docker's ``manifest.json``; of an index it names the manifest for ``platform``. ``tag``: what the
    image is called in the layout, if that is no full reference. ``step`` names the transfer in Progress facts.
    Raises ImageError (no-such-platform).
    """
    small: dict[Digest, bytes] = {}
    large: dict[Digest, tuple[Descriptor, Source]] = {}
    for transfer, source in shipments:
        manifests, blobs = transfer.whole()
        small.update((descriptor.digest, raw) for descriptor, raw in manifests)
        for blob in blobs:
            large.setdefault(blob.digest, (blob, source))
    created = format_time(int(time.time()))
    entries = [entry for transfer, _ in shipments for entry in _entries(transfer, tag, created)]
    files: list[tuple[str, bytes | Digest]] = [("index.json", encode_index(entries)), ("oci-layout", LAYOUT_FILE)]
    files += [(blob_path(digest), digest) for digest in {*small, *large}]
    if docker:
        docker_entries = [_docker_entry(shipment, platform) for shipment in shipments]
        files.append(("manifest.json", encode_json(docker_entries)))

    def size_of(digest: Digest) -> int:
        return len(small[digest]) if digest in small else large[digest][0].size

    for piece in layout_pieces(sorted(files, key=lambda item: item[0]), size_of):
        if isinstance(piece, bytes):
            yield piece
        elif piece[0] in small:
            yield small[piece[0]]
        else:
            blob, source = large[piece[0]]
            yield from source.chunks(blob, step)


def _entries(transfer: Transfer, tag: str, created: str) -> list[Descriptor]:
    attached = [_unnamed(each.root) for each in transfer.attached]
    return [*index_entries(transfer.root, transfer.names, created, tag), *attached]


def _unnamed(entry: Descriptor) -> Descriptor:
    """An entry that refers to another and is found by its subject: what its maker annotated it with shall not name it here."""
    own = {key: value for key, value in entry.annotations.items() if key not in (NAME_ANNOTATION, REF_ANNOTATION)}
    return msgspec.structs.replace(entry, annotations=own)


def _docker_entry(shipment: Shipment, platform: Platform) -> dict[str, Any]:
    transfer, source = shipment
    _, _, manifest = choose_manifest(source, platform, *transfer.manifests[-1])
    return docker_entry(manifest, transfer.names)


class ArchiveTarget:
    """A ``Target``: the file ``path``, replaced. ``name``: what the image is called in it; empty: as where it was."""

    partial = True

    def __init__(self, path: str, name: str, docker: bool, platform: Platform | None = None) -> None:
        self.title = "standard output" if path == "-" else path
        self._path = path
        self._docker = docker
        self._name = name
        self._platform = platform or native_platform()
        self.one_platform = docker
        self.attaches = not docker

    def write(self, transfer: Transfer, source: Source, step: str) -> None:
        named, tag = called(transfer, self._name, full=self._docker)
        pieces = archive_bytes([Shipment(named, source)], self._docker, self._platform, tag, step)
        to_file(self._path, lambda out: write_pieces(pieces, out))


def called(transfer: Transfer, name: str, full: bool) -> tuple[Transfer, str]:
    """``transfer`` under ``name``, or with the tag that it is (unless only ``full`` references will do)."""
    if not name:
        return transfer, ""
    if full or "/" in name or ":" in name:
        return msgspec.structs.replace(transfer, names=(str(parse_reference(name)),)), ""
    return msgspec.structs.replace(transfer, names=()), name


def write_pieces(pieces: Iterator[bytes], out: BinaryIO) -> None:
    for piece in pieces:
        out.write(piece)


def to_file(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Let ``write`` make the file ``path``: completely, or not at all; or write to standard output (``-``).

    Raises ExportError (cannot-write).
    """
    if path == "-":
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    try:
        with writing(Path(path)) as out:
            write(out)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}", code="cannot-write") from None


class LayoutTarget:
    """A ``Target``: the OCI layout ``path``, made if need be. Its other images stay; ``tag`` comes to mean this one."""

    partial = True
    one_platform = False
    attaches = True

    def __init__(self, path: str, tag: str) -> None:
        self._path = Path(path)
        self._tag = tag
        self.title = path

    def write(self, transfer: Transfer, source: Source, step: str) -> None:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with locked(self._path):
                self._write(transfer, source, step)
        except OSError as error:
            raise ExportError(f"cannot write {self.title}: {error.strerror}", code="cannot-write") from None

    def _write(self, transfer: Transfer, source: Source, step: str) -> None:
        known = self._index()
        manifests, blobs = transfer.whole()
        fetch_blobs(source, [blob for blob in blobs if not self._has(blob)], self._put, step)
        for descriptor, raw in manifests:
            path = self._path / blob_path(descriptor.digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as out:
                out.write(raw)
        named, tag = called(transfer, self._tag, full=False)
        entries = _entries(named, tag, format_time(int(time.time())))
        with replacing(self._path / "oci-layout") as out:
            out.write(LAYOUT_FILE)
        with replacing(self._path / "index.json") as out:
            out.write(encode_index(merged(known, entries)))

    def _has(self, blob: Descriptor) -> bool:
        path = self._path / blob_path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def _put(self, blob: Descriptor, chunks: Iterator[bytes]) -> None:
        path = self._path / blob_path(blob.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as out:
            for chunk in chunks:
                out.write(chunk)

    def _index(self) -> tuple[Descriptor, ...]:
        try:
            with (self._path / "index.json").open("rb") as file:
                raw = file.read(MANIFEST_LIMIT + 1)
        except FileNotFoundError:
            if any(self._path.iterdir()):
                raise ExportError(
                    f"{self.title} is not empty, and no OCI layout",
                    code="not-a-layout",
                    hint="choose an empty or new directory",
                ) from None
            return ()
        index = parse_manifest(raw)
        if not isinstance(index, Index):
            raise ImageError(f"index.json of {self.title} is no index", code="invalid-archive")
        return index.manifests
