"""The images of a store: listed, named, removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from shiplap.errors import ShiplapError
from shiplap.oci.digest import Digest, is_digest
from shiplap.oci.reference import parse_reference
from shiplap.settings import Settings
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
        return [row_of(store, image.name, image.digest, image.created) for image in shown]


def row_of(store: Store, name: str, digest: Digest, created: float) -> ImageRow:
    """The line that shows the image ``digest`` of the store under ``name``."""
    shown = "" if is_digest(name) else parse_reference(name).familiar()
    try:
        resolved = store.images.resolve(digest, None)
    except ShiplapError:
        return ImageRow(shown, digest, "", created, 0, "")
    size = sum(layer.size for layer in resolved.manifest.layers) + resolved.manifest.config.size
    return ImageRow(shown, digest, resolved.manifest.config.digest, created, size, str(resolved.config.platform))


def tag(source: str, target: str, settings: Settings) -> str:
    """Give the image ``source`` the further name ``target``; the normalised name."""
    name = str(parse_reference(target))
    with opened(settings) as store, store.in_use():
        image = store.images.find(source)
        store.images.resolve(image.digest, None)  # which holds it, should its other name be forgotten now
        store.images.put(name, image.digest, image.media_type, image.size)
    return name


def remove(texts: Sequence[str] | None, settings: Settings) -> list[str]:
    """Forget names (None: all); the names forgotten. Blobs that nothing needs any more go with the next prune."""
    removed = []
    with Store(Path(settings.root), freeing=True) as store:
        for text in texts if texts is not None else [image.name for image in store.images.all()]:
            image = store.images.find(text)
            store.images.remove(image.name)
            removed.append(image.name)
    return removed
