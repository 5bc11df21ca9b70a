"""Images in shiplap's own store, as source and target."""

from __future__ import annotations

from collections.abc import Iterator

from shiplap.errors import ImageError, Place
from shiplap.images.fetching import fetch_blobs
from shiplap.images.place import CHUNK, Source, Transfer
from shiplap.oci.digest import Digest, is_digest
from shiplap.oci.manifest import Descriptor
from shiplap.oci.reference import Reference, parse_reference
from shiplap.store.store import Store


class StoreSource:
    """A ``Source``: what the store knows as ``text``. Raises ImageError: no-such-image, ambiguous-image."""

    attaches = False

    def __init__(self, store: Store, text: str) -> None:
        self._store = store
        self.title = text
        try:
            image = store.images.find(text)
        except ImageError as error:
            if error.code == "no-such-image":
                error.hint = f"shiplap images lists what the store has; docker://{text} asks the registry"
            raise
        self.names: tuple[str, ...] = () if is_digest(image.name) else (image.name,)
        self._root = Descriptor(image.media_type, image.digest, image.size)

    def root(self) -> tuple[Descriptor, bytes]:
        return self._root, self._store.blobs.read(self._root.digest)

    def holds(self, descriptor: Descriptor) -> bool:
        return self._store.blobs.has(descriptor.digest)

    def manifest(self, descriptor: Descriptor) -> bytes:
        if descriptor.platform is not None and not self.holds(descriptor):
            platform = descriptor.platform.parsed()
            raise ImageError(
                f"{self.title} is here without {platform}",
                code="incomplete-image",
                where=Place(blob=descriptor.digest),
                hint=f"shiplap pull --platform {platform} brings it",
            )
        return self._store.blobs.read(descriptor.digest)

    def chunks(self, descriptor: Descriptor, step: str = "") -> Iterator[bytes]:
        with self._store.blobs.verified(descriptor.digest) as blob:
            held = b""
            while chunk := blob.read(CHUNK):
                if held:
                    yield held
                held = chunk
            blob.finish()
            if held:
                yield held

    def interrupt(self) -> None:
        pass  # files answer at once

    def home_of(self, descriptor: Descriptor) -> Reference | None:
        return None

    def referrers(self, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        return ()


class StoreTarget:
    """A ``Target``: the store, under ``name`` (empty: under the names the image has, or its digest)."""

    partial = True
    one_platform = False
    attaches = False

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self.title = name or "the store"

    def write(self, transfer: Transfer, source: Source, step: str) -> None:
        blobs = self._store.blobs
        # What stands there is read again before it is believed: a damaged blob is fetched anew.
        wanted = [blob for blob in transfer.blobs if not blobs.sound(blob.digest)]
        fetch_blobs(source, wanted, lambda blob, chunks: blobs.save(blob.digest, blob.size, chunks), step)
        for descriptor, raw in transfer.manifests:
            blobs.save(descriptor.digest, len(raw), [raw])
        for name in self._names(transfer):
            self._store.images.put(name, transfer.root.digest, transfer.root.media_type, transfer.root.size)

    def _names(self, transfer: Transfer) -> tuple[str, ...]:
        if self._name:
            return (str(parse_reference(self._name)),)
        return transfer.names or (transfer.root.digest,)
