"""What one does with the images of a store: list, look into, name, save, load, import, remove."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from shiplap.errors import ImageError, ShiplapError, UsageError
from shiplap.export.archive import archive_members, layout_files
from shiplap.export.aside import replacing
from shiplap.export.image import Assembled, platform_fields
from shiplap.export.moments import format_time
from shiplap.graph.node import walk
from shiplap.graph.operations import FileChange, MakeDirectory
from shiplap.layers import header as tar
from shiplap.layers.compression import Decompressed
from shiplap.layers.pack import write_tar
from shiplap.layers.reader import TarReader
from shiplap.oci import media_types
from shiplap.oci.config import ContainerConfig, History, ImageConfig, RootFS, encode_config
from shiplap.oci.digest import Digest, is_digest
from shiplap.oci.manifest import Descriptor, Index, Manifest, decode_json, encode_manifest, parse_manifest
from shiplap.oci.platform import native_platform, parse_platform
from shiplap.oci.reference import parse_reference
from shiplap.settings import Settings
from shiplap.store.index import now
from shiplap.store.store import Store


class ImageRow(msgspec.Struct, frozen=True):
    """One line of ``shiplap images``. ``name`` is empty for an image without one; ``size`` is that of its blobs, in bytes."""

    name: str
    digest: str
    id: str
    created: float
    size: int
    platform: str


@contextmanager
def opened(settings: Settings) -> Iterator[Store]:
    """The store of ``settings``."""
    with Store(Path(settings.root)) as store:
        yield store


def list_images(settings: Settings) -> list[ImageRow]:
    """Every image, by name; those known by their digest alone only if that is no named image's."""
    with opened(settings) as store:
        images = store.images.all()
        named = {image.digest for image in images if not is_digest(image.name)}
        shown = [image for image in images if not is_digest(image.name) or image.digest not in named]
        return [_row(store, image.name, image.digest, image.created) for image in shown]


def _row(store: Store, name: str, digest: Digest, created: float) -> ImageRow:
    shown = "" if is_digest(name) else parse_reference(name).familiar()
    try:
        resolved = store.images.resolve(digest, None)
    except ShiplapError:
        return ImageRow(shown, digest, "", created, 0, "")
    size = sum(layer.size for layer in resolved.manifest.layers) + resolved.manifest.config.size
    return ImageRow(shown, digest, resolved.manifest.config.digest, created, size, str(resolved.config.platform))


def inspect(text: str, settings: Settings) -> dict[str, Any]:
    """Name, descriptor, manifest and config of an image, as plain data."""
    with opened(settings) as store:
        image = store.images.find(text)
        resolved = store.images.resolve(image.digest, None)
        return {
            "Name": "" if is_digest(image.name) else image.name,
            "Digest": image.digest,
            "MediaType": image.media_type,
            "ManifestDigest": resolved.digest,
            "Id": resolved.manifest.config.digest,
            "Platform": str(resolved.config.platform),
            "Manifest": json.loads(resolved.raw),
            "Image": json.loads(resolved.config_raw),
        }


def history(text: str, settings: Settings) -> list[dict[str, Any]]:
    """How an image was made, newest first: created, created_by, comment, and the size of each layer (bytes)."""
    with opened(settings) as store:
        resolved = store.images.resolve(store.images.find(text).digest, None)
        sizes = iter(resolved.manifest.layers)
        rows = []
        for entry in resolved.config.history or ():
            layer = None if entry.empty_layer else next(sizes, None)
            rows.append(
                {
                    "created": entry.created or "",
                    "created_by": entry.created_by,
                    "comment": entry.comment,
                    "size": layer.size if layer is not None else 0,
                    "digest": layer.digest if layer is not None else "",
                }
            )
        return rows[::-1]


def tag(source: str, target: str, settings: Settings) -> str:
    """Give the image ``source`` the further name ``target``; the normalised name."""
    name = str(parse_reference(target))
    with opened(settings) as store, store.in_use():
        image = store.images.find(source)
        store.images.resolve(image.digest, None)  # which holds it, should its other name be forgotten now
        store.images.put(name, image.digest, image.media_type, image.size)
    return name


def remove(texts: Sequence[str], settings: Settings) -> list[str]:
    """Forget names; the names forgotten. Blobs that nothing needs any more go with the next prune."""
    removed = []
    with Store(Path(settings.root), freeing=True) as store:
        for text in texts:
            image = store.images.find(text)
            store.images.remove(image.name)
            removed.append(image.name)
    return removed


# -- archives


def save(texts: Sequence[str], output: str, settings: Settings, kind: str = "docker") -> None:
    """Write one image, under all the names given for it, as a docker archive or (``kind`` oci) an OCI archive."""
    with opened(settings) as store, store.in_use():
        images = [store.images.find(text) for text in texts]
        if len({image.digest for image in images}) != 1:
            raise UsageError("save writes one image to one archive", code="several-images", hint="save them one by one")
        image = images[0]
        names = [known.name for known in images if not is_digest(known.name)]
        root = Descriptor(image.media_type, image.digest, image.size)
        files = layout_files(store, root, names, format_time(int(now())), docker=kind == "docker")
        with nullcontext(sys.stdout.buffer) if output == "-" else replacing(Path(output)) as out:
            for piece in archive_members(store, files):
                out.write(piece)
            out.flush()


def load(source: str, settings: Settings) -> list[str]:
    """Read a docker or OCI archive (``-``: standard input) or an OCI layout directory; the names that came in."""
    with opened(settings) as store, store.in_use():
        if source != "-" and Path(source).is_dir():
            return _Loader(store).directory(Path(source))
        try:
            with nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb") as file:
                return _Loader(store).archive(file)
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error.strerror}", code="cannot-read") from None


class _Loader:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._small: dict[str, bytes] = {}
        self._paths: dict[str, Digest] = {}

    def archive(self, file: BinaryIO) -> list[str]:
        reader = TarReader(Decompressed(file))
        for member in reader:
            name = member.name.removeprefix("./")
            if member.kind == tar.SYMLINK:
                continue
            if member.kind == tar.REGULAR:
                self._keep(name, member.size, reader.chunks())
        return self._finish()

    def directory(self, path: Path) -> list[str]:
        for file in [path / "index.json", *sorted(path.glob("blobs/*/*"))]:
            with file.open("rb") as opened_file:
                chunks = iter(lambda: opened_file.read(1 << 20), b"")
                self._keep(str(file.relative_to(path)), file.stat().st_size, chunks)
        return self._finish()

    def _keep(self, name: str, size: int, chunks: Iterator[bytes]) -> None:
        if "/" not in name and name.endswith(".json") and size < 16 << 20:
            self._small[name] = b"".join(chunks)
        algorithm, _, encoded = name.removeprefix("blobs/").partition("/")
        if name.startswith("blobs/") and is_digest(f"{algorithm}:{encoded}"):
            self._store.blobs.save(f"{algorithm}:{encoded}", size, chunks)
        elif name not in self._small:
            self._paths[name] = self._save(chunks)
        elif name not in ("index.json", "manifest.json", "repositories"):
            self._paths[name] = self._store.blobs.write(self._small[name])

    def _save(self, chunks: Iterator[bytes]) -> Digest:
        hasher = hashlib.sha256()
        with self._store.blobs.writer() as writer:
            for chunk in chunks:
                hasher.update(chunk)
                writer.write(chunk)
            digest = "sha256:" + hasher.hexdigest()
            writer.commit(digest)
        return digest

    def _finish(self) -> list[str]:
        if "index.json" in self._small:
            return self._oci()
        if "manifest.json" in self._small:
            return self._docker()
        raise ImageError(
            "this is neither an OCI nor a docker archive: it has no index.json and no manifest.json",
            code="not-an-archive",
            hint="a root file system comes in with shiplap import",
        )

    def _oci(self) -> list[str]:
        index = parse_manifest(self._small["index.json"])
        if not isinstance(index, Index):
            raise ImageError("index.json of the archive is no index", code="invalid-archive")
        names = []
        for entry in index.manifests:
            annotations = entry.annotations or {}
            name = annotations.get("io.containerd.image.name") or annotations.get(
                "org.opencontainers.image.ref.name", ""
            )
            full = entry.digest
            if name and ("/" in name or ":" in name):
                full = str(parse_reference(name))
            size = self._store.blobs.size(entry.digest)
            self._store.images.put(full, entry.digest, entry.media_type, size)
            names.append(full)
        return names

    def _docker(self) -> list[str]:
        names = []
        for item in decode_json(self._small["manifest.json"], list[dict[str, Any]], "manifest.json"):
            assembled = self._convert(item)
            for text in item.get("RepoTags") or [assembled.manifest.digest]:
                name = text if is_digest(text) else str(parse_reference(text))
                descriptor = assembled.manifest
                self._store.images.put(name, descriptor.digest, descriptor.media_type, descriptor.size)
                names.append(name)
        return names

    def _convert(self, item: dict[str, Any]) -> Assembled:
        config = self._blob(item["Config"])
        layers = []
        for path in item.get("Layers") or []:
            digest = self._blob(path)
            with self._store.blobs.open(digest) as blob:
                compression = Decompressed(blob).compression
            kind = {"gzip": media_types.OCI_LAYER_GZIP, "zstd": media_types.OCI_LAYER_ZSTD}.get(
                compression, media_types.OCI_LAYER
            )
            layers.append(Descriptor(kind, digest, self._store.blobs.size(digest)))
        return _write_image(self._store, config, tuple(layers))

    def _blob(self, path: str) -> Digest:
        algorithm, _, encoded = path.removeprefix("blobs/").partition("/")
        if is_digest(f"{algorithm}:{encoded}"):
            return f"{algorithm}:{encoded}"
        if path not in self._paths:
            raise ImageError(f"archive lacks {path}", code="invalid-archive")
        return self._paths[path]


def _write_image(store: Store, config: Digest, layers: tuple[Descriptor, ...]) -> Assembled:
    manifest = Manifest(
        media_type=media_types.OCI_MANIFEST,
        config=Descriptor(media_types.OCI_CONFIG, config, store.blobs.size(config)),
        layers=layers,
    )
    raw = encode_manifest(manifest)
    digest = store.blobs.write(raw)
    resolved = store.images.resolve(digest, None)
    descriptor = Descriptor(manifest.media_type, digest, len(raw), platform=platform_fields(resolved.config.platform))
    return Assembled(descriptor, config, len(layers))


def import_rootfs(
    source: str, name: str, settings: Settings, changes: Sequence[str] = (), platform: str = ""
) -> ImageRow:
    """Make an image of one layer from a root file system: a tar (``-``: standard input), plain or compressed, or a directory.

    ``changes`` are ENV, CMD, ENTRYPOINT, WORKDIR, USER and LABEL instructions for its config.
    """
    full = str(parse_reference(name))
    config = _changed(changes)
    with opened(settings) as store, store.in_use():
        with store.blobs.writer() as writer:
            packed = write_tar(_rootfs_tar(source), writer.file, end=b"")
            writer.commit(packed.digest)
        wanted = parse_platform(platform) if platform else native_platform()
        created = format_time(now())
        image = ImageConfig(
            architecture=wanted.architecture,
            os=wanted.os,
            variant=wanted.variant,
            config=config,
            created=created,
            history=(History(created=created, created_by=f"shiplap import {source}"),),
            rootfs=RootFS(diff_ids=(packed.diff_id,)),
        )
        layer = Descriptor(media_types.OCI_LAYER_GZIP, packed.digest, packed.size)
        descriptor = _write_image(store, store.blobs.write(encode_config(image)), (layer,)).manifest
        store.images.put(full, descriptor.digest, descriptor.media_type, descriptor.size)
        return _row(store, full, descriptor.digest, now())


def _rootfs_tar(source: str) -> Iterator[bytes]:
    if source != "-" and Path(source).is_dir():
        from shiplap.layers.pack import tree_members
        from shiplap.trees.tree import Tree

        with Tree((source,), live=True) as tree:
            yield from tree_members(tree, root_of=os.geteuid())
        yield tar.END
        return
    try:
        with nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb") as file:
            stream = Decompressed(file)
            while chunk := stream.read(1 << 20):
                yield chunk
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror}", code="cannot-read") from None


def _changed(changes: Sequence[str]) -> ContainerConfig:
    """The config that ``changes`` make, by building them onto nothing."""
    from shiplap.dockerfile.lower import lower
    from shiplap.dockerfile.options import LowerOptions
    from shiplap.dockerfile.parse import parse

    text = "FROM scratch\n" + "\n".join(changes)
    native = native_platform()
    plan = lower(
        parse(text.encode(), "--change"), LowerOptions(target_platform=native, build_platform=native), _NoImages()
    )
    # WORKDIR makes a directory too; the root file system is taken to have it, as docker import does.
    made = [node.operation for node in walk([plan.target])] if plan.target is not None else []
    if not all(isinstance(one, FileChange) and all(isinstance(a, MakeDirectory) for a in one.actions) for one in made):
        raise UsageError("--change takes only instructions that change the config", code="invalid-change")
    return plan.config.config


class _NoImages:
    def resolve(self, *_: Any) -> Any:
        raise UsageError("--change cannot name another image", code="invalid-change")
