"""Images in registries, as source and target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, cast

from shiplap.errors import ImageError
from shiplap.images.place import ChunkReader, Source, Transfer
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Manifest, parse_manifest
from shiplap.oci.reference import Reference, parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.push import OutgoingBlob, OutgoingManifest, push_image, push_index
from shiplap.registry.upload import Opener


class RegistrySource:
    """A ``Source``: what a registry has under the reference ``text``."""

    attaches = True

    def __init__(self, registry: Registry, text: str) -> None:
        self._registry = registry
        self._reference = parse_reference(text)
        self.title = str(self._reference)
        self.names: tuple[str, ...] = (str(self._reference._replace(digest="")),) if self._reference.tag else ()
        self._root: tuple[Descriptor, bytes] | None = None

    def root(self) -> tuple[Descriptor, bytes]:
        if self._root is None:
            self._root = self._registry.resolve(self._reference)
        return self._root

    def holds(self, descriptor: Descriptor) -> bool:
        return True

    def manifest(self, descriptor: Descriptor) -> bytes:
        return self._registry.manifest(self._reference, descriptor)

    def chunks(self, descriptor: Descriptor, step: str = "") -> Iterator[bytes]:
        return self._registry.open_blob(self._reference, descriptor, step=step, told=bool(step))

    def interrupt(self) -> None:
        self._registry.interrupt()

    def home_of(self, descriptor: Descriptor) -> Reference | None:
        return self._reference

    def referrers(self, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        return self._registry.referrers(self._reference, digest, artifact_type)


class RegistryTarget:
    """A ``Target``: a registry, under the reference ``text``. Blobs of another repository there are mounted, not moved."""

    partial = False
    one_platform = False
    attaches = True

    def __init__(self, registry: Registry, text: str) -> None:
        self._registry = registry
        self._reference = parse_reference(text)
        self.title = str(self._reference)

    def write(self, transfer: Transfer, source: Source, step: str) -> None:
        if self._reference.digest not in ("", transfer.root.digest):
            raise ImageError(
                f"{self.title} names another digest than that of the image, {transfer.root.digest}",
                code="digest-mismatch",
            )
        # First, so that whoever asks for signatures finds them as soon as the tag names the image: a subject may come later
        # (distribution specification 1.1, "Pushing Manifests with Subject").
        for each in transfer.attached:
            self._push(self._reference._replace(tag="", digest=each.root.digest), each, source, step)
        self._push(self._reference, transfer, source, step)

    def _push(self, reference: Reference, transfer: Transfer, source: Source, step: str) -> None:
        *children, (root, raw) = transfer.manifests
        blobs = {
            blob.digest: OutgoingBlob(blob, opener_of(source, blob), source.home_of(blob)) for blob in transfer.blobs
        }
        parsed = parse_manifest(raw, root.media_type, root.digest)
        if isinstance(parsed, Manifest):
            push_image(self._registry, reference, raw, root.media_type, list(blobs.values()), step=step)
            return
        outgoing = [OutgoingManifest(each, descriptor.media_type) for descriptor, each in children]
        if outgoing:
            outgoing[0] = OutgoingManifest(outgoing[0].raw, outgoing[0].media_type, tuple(blobs.values()))
        push_index(self._registry, reference, raw, root.media_type, outgoing, step=step)


def opener_of(source: Source, blob: Descriptor) -> Opener:
    """Opens a blob of ``source`` for an upload."""

    def open_at(offset: int) -> BinaryIO:
        return cast(BinaryIO, ChunkReader(source.chunks(blob), offset))

    return open_at
