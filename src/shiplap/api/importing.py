"""An image made of a root file system that comes from elsewhere: debootstrap, docker export, a tar."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from shiplap.api.images import ImageRow, opened, row_of
from shiplap.errors import UsageError
from shiplap.export.image import Assembled, platform_fields
from shiplap.export.moments import format_time
from shiplap.graph.node import walk
from shiplap.graph.operations import FileChange, MakeDirectory
from shiplap.layers import header as tar
from shiplap.layers.compression import Decompressed
from shiplap.layers.pack import write_tar
from shiplap.oci import media_types
from shiplap.oci.config import ContainerConfig, History, ImageConfig, RootFS, encode_config
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Manifest, encode_manifest
from shiplap.oci.platform import native_platform, parse_platform
from shiplap.oci.reference import parse_reference
from shiplap.settings import Settings
from shiplap.store.index import now
from shiplap.store.store import Store


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
        return row_of(store, full, descriptor.digest, now())


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
