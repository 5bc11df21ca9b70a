"""An image as one file or directory: OCI image layout (image-spec 1.1, image-layout.md), alone or as a docker archive.

A docker archive is an OCI layout with Docker's ``manifest.json`` beside ``index.json``, so that both kinds of tool read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from shiplap.errors import ExportError, ImageError
from shiplap.export.aside import locked, replacing
from shiplap.layers import header as tar
from shiplap.layers.header import Header, encode_header, padding
from shiplap.oci.digest import Digest, split_digest
from shiplap.oci.manifest import MANIFEST_LIMIT, Descriptor, Index, Manifest, encode_json, parse_manifest
from shiplap.oci.media_types import OCI_INDEX
from shiplap.oci.reference import parse_reference
from shiplap.store.store import Store

NAME_ANNOTATION = "io.containerd.image.name"
REF_ANNOTATION = "org.opencontainers.image.ref.name"
CREATED_ANNOTATION = "org.opencontainers.image.created"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


def index_json(root: Descriptor, names: Sequence[str], created: str, tag: str = "") -> bytes:
    """``index.json`` of a layout that holds ``root``: one entry for each name (normalised), or one without, called ``tag``."""
    return encode_index(index_entries(root, names, created, tag))


def encode_index(entries: Sequence[Descriptor]) -> bytes:
    """``index.json`` with these entries."""
    return encode_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def index_entries(root: Descriptor, names: Sequence[str], created: str, tag: str = "") -> list[Descriptor]:
    """What ``index.json`` says of ``root``: an entry for each name (normalised), or one without, called ``tag``."""
    entries = []
    for name in names or [""]:
        annotations = dict(root.annotations)
        if created:
            annotations[CREATED_ANNOTATION] = created
        if name:
            annotations[NAME_ANNOTATION] = name
            annotations[REF_ANNOTATION] = parse_reference(name).tag or "latest"
        elif tag:
            annotations[REF_ANNOTATION] = tag
        entries.append(msgspec.structs.replace(root, annotations=dict(sorted(annotations.items()))))
    return entries


def merged(known: Sequence[Descriptor], new: Sequence[Descriptor]) -> list[Descriptor]:
    """The entries of an index that were there, but for those that ``new`` ones take the place of, and then the new."""
    return [*(entry for entry in known if not any(_replaces(each, entry) for each in new)), *new]


def _replaces(new: Descriptor, entry: Descriptor) -> bool:
    """Whether ``new`` takes the place of ``entry`` in an index: the same name, or the same image where neither has one."""
    keys = (NAME_ANNOTATION, REF_ANNOTATION)
    fresh, old = ([each.annotations.get(key, "") for key in keys] for each in (new, entry))
    return old == fresh if any(fresh) else entry.digest == new.digest and not any(old)


def layout_files(
    store: Store, root: Descriptor, names: Sequence[str], created: str, docker: bool, tag: str = ""
) -> list[tuple[str, bytes | Digest]]:
    """The files of a layout: path and content, or the digest of the blob that is the content. Sorted by path."""
    files: list[tuple[str, bytes | Digest]] = [
        ("index.json", index_json(root, names, created, tag)),
        ("oci-layout", LAYOUT_FILE),
    ]
    for digest in sorted(store.images.blobs_of(root.digest)):
        files.append((blob_path(digest), digest))
    if docker:
        files.append(("manifest.json", _docker_manifest(store, root, names)))
    return sorted(files, key=lambda item: item[0])


def blob_path(digest: Digest) -> str:
    return "blobs/" + "/".join(split_digest(digest))


def _docker_manifest(store: Store, root: Descriptor, names: Sequence[str]) -> bytes:
    manifest = parse_manifest(store.blobs.read(root.digest), digest=root.digest)
    if isinstance(manifest, Index):
        raise ExportError(
            "docker exporter does not currently support exporting manifest lists",
            code="docker-index",
            hint="use --output type=oci, or build for one platform",
        )
    assert isinstance(manifest, Manifest)
    return encode_json([docker_entry(manifest, names)])


def docker_entry(manifest: Manifest, names: Sequence[str]) -> dict[str, Any]:
    """What Docker's ``manifest.json`` says of an image with these names (normalised)."""
    return {
        "Config": blob_path(manifest.config.digest),
        "RepoTags": [parse_reference(name).familiar() for name in names] or None,
        "Layers": [blob_path(layer.digest) for layer in manifest.layers],
    }


def archive_members(store: Store, files: Iterable[tuple[str, bytes | Digest]]) -> Iterator[bytes]:
    """The bytes of the tar of a layout; each blob's digest is checked on the way."""
    for piece in archive_pieces(store, files):
        if isinstance(piece, bytes):
            yield piece
            continue
        with store.blobs.verified(piece[0]) as blob:
            while chunk := blob.read(1 << 20):
                yield chunk
            blob.finish()


def archive_pieces(store: Store, files: Iterable[tuple[str, bytes | Digest]]) -> Iterator[bytes | tuple[Digest, int]]:
    """The tar of a layout, in the order and with the modes that BuildKit writes: bytes, or digest and size of a blob."""
    return layout_pieces(files, store.blobs.size)


def layout_pieces(
    files: Iterable[tuple[str, bytes | Digest]], size_of: Callable[[Digest], int]
) -> Iterator[bytes | tuple[Digest, int]]:
    """``archive_pieces``, of blobs wherever they are; ``size_of`` tells their sizes in bytes."""
    directories = {"blobs": False}
    for path, content in files:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if not directories.get(directory):
                directories[directory] = True
                yield encode_header(Header(directory + "/", tar.DIRECTORY, 0o755))
        if isinstance(content, bytes):
            yield encode_header(Header(path, mode=0o444, size=len(content)))
            yield content + padding(len(content))
            continue
        size = size_of(content)
        yield encode_header(Header(path, mode=0o444, size=size))
        yield content, size
        yield padding(size)
    yield tar.END


def write_archive(store: Store, files: Iterable[tuple[str, bytes | Digest]], out: BinaryIO) -> None:
    """Write the layout as a tar to ``out``."""
    for piece in archive_members(store, files):
        out.write(piece)


def write_layout(store: Store, files: Iterable[tuple[str, bytes | Digest]], directory: Path) -> None:
    """Write the layout as a directory. Images that are there stay, but for those of the same names; the index comes last."""
    late: list[tuple[str, bytes]] = []
    for path, content in files:
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            late.append((path, content))
        elif not target.exists():
            with store.blobs.verified(content) as blob, replacing(target) as out:
                while chunk := blob.read(1 << 20):
                    out.write(chunk)
                blob.finish()
    with locked(directory):
        for path, data in sorted(late, key=lambda item: item[0] == "index.json"):
            with replacing(directory / path) as out:
                out.write(_with_others(directory / path, data) if path == "index.json" else data)


def _with_others(path: Path, raw: bytes) -> bytes:
    """The index ``raw``, behind what the one at ``path`` says of other images."""
    try:
        with path.open("rb") as file:
            known = parse_manifest(file.read(MANIFEST_LIMIT + 1))
    except (FileNotFoundError, ImageError):
        return raw  # what cannot be read names no image
    ours = parse_manifest(raw)
    if not isinstance(known, Index) or not isinstance(ours, Index):
        return raw
    return encode_index(merged(known.manifests, ours.manifests))
