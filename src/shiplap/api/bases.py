"""Base images: found in the store by name, else asked of their registry; layers come only when a step needs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from shiplap.dockerfile.options import ResolvedImage
from shiplap.errors import ImageError, ShiplapError, StoreError
from shiplap.events.facts import Sink
from shiplap.graph.operations import ImageSource
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference, parse_reference
from shiplap.ops.workbench import telling
from shiplap.settings import Settings
from shiplap.store.store import Store

if TYPE_CHECKING:
    from shiplap.registry.client import Registry


class BaseImages:
    """Resolves and fetches the images of one build. A context manager: it holds the connections to registries.

    An image that the store has under the asked name is taken without asking anybody, unless ``pull`` is set: so a
    build needs no network once its bases are here, by pull, import or load.
    """

    def __init__(self, store: Store, settings: Settings, sink: Sink, *, pull: bool, cancel: threading.Event) -> None:
        self._store = store
        self._settings = settings
        self._sink = sink
        self._pull = pull
        self._cancel = cancel
        self._registry: Registry | None = None
        self._held = ExitStack()
        self._lock = threading.Lock()
        self._resolved: dict[tuple[str, str], ResolvedImage | ShiplapError] = {}
        self.layouts: Mapping[str, Path] = {}
        """OCI layouts on this machine, by the name (host and path) that stands for each."""

    def __enter__(self) -> BaseImages:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def prefetch(self, wanted: list[tuple[Reference, Platform]]) -> None:
        """Resolve several at once, so that the planner, which asks one by one, need not wait for each."""
        distant = [pair for pair in dict.fromkeys(wanted) if self._pull or self._at_home(*pair) is None]
        if len(distant) < 2:
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(8, len(distant)), thread_name_prefix="shiplap-resolve") as pool:
            list(pool.map(lambda pair: self._remembered(*pair), distant))

    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        """The manifest's digest and the config of ``reference`` for ``platform``."""
        found = self._remembered(reference, platform)
        if isinstance(found, ShiplapError):
            raise found
        return found

    def resolve_at_home(self, reference: Reference, platform: Platform) -> ResolvedImage | None:
        """The same from what is here alone; None if it is not here."""
        return self._at_home(reference, platform)

    def fetch(self, operation: ImageSource, step: str) -> None:
        """Have every blob of the image in the store."""
        resolved = self._store.images.resolve(operation.digest, None)
        missing = [layer for layer in resolved.manifest.layers if not self._store.blobs.has(layer.digest, layer.size)]
        if not missing:
            return
        layout = self._layout(parse_reference(operation.reference))
        if layout is not None:
            from shiplap.api.layout import copy_blob

            for layer in missing:
                copy_blob(layout, layer, self._save)
            return
        from shiplap.registry.pull import FetchedImage, fetch_layers

        image = FetchedImage(
            manifest_descriptor=Descriptor(resolved.media_type, operation.digest, len(resolved.raw)),
            manifest_raw=resolved.raw,
            config_descriptor=resolved.manifest.config,
            config_raw=resolved.config_raw,
            layers=resolved.manifest.layers,
        )
        wanted = {layer.digest for layer in missing}
        fetch_layers(
            self._client(),
            parse_reference(operation.reference),
            image,
            lambda digest: digest not in wanted,
            self._save,
            step=step,
        )

    def names(self) -> dict[str, Digest]:
        """The digests that the store knows the names under, of all images that were resolved by a name."""
        found = {}
        for name, _ in list(self._resolved):
            image = self._store.images.get(name)
            if image is not None:
                found[name] = image.digest
        return found

    # -- inside

    def _remembered(self, reference: Reference, platform: Platform) -> ResolvedImage | ShiplapError:
        key = (str(reference), str(platform))
        found = self._resolved.get(key)
        if found is None:
            try:
                found = self._find(reference, platform)
            except ShiplapError as error:
                found = error
            self._resolved[key] = found
        return found

    def _layout(self, reference: Reference) -> Path | None:
        """The layout that ``reference`` stands for, whatever image of it is meant (an index holds several)."""
        return self.layouts.get(reference.name) if self.layouts else None

    def _find(self, reference: Reference, platform: Platform) -> ResolvedImage:
        layout = self._layout(reference)
        if layout is not None:
            from shiplap.api.layout import resolve_in_layout

            return resolve_in_layout(layout, reference, platform, self._store)
        at_home = None if self._pull else self._at_home(reference, platform)
        if at_home is not None:
            return at_home
        name = f"[internal] load metadata for {reference}"
        with telling(self._sink, f"resolve {reference} {platform}", name):
            return self._ask(reference, platform)

    def _at_home(self, reference: Reference, platform: Platform) -> ResolvedImage | None:
        # A digest says what is meant, under whatever name it came here: by load, by build, or by pull of its tag.
        image = None if reference.digest else self._store.images.get(str(reference))
        digest = reference.digest or (image.digest if image is not None else None)
        if not digest:
            return None
        try:
            resolved = self._store.images.resolve(digest, platform)
        except (StoreError, ImageError):
            return None  # not whole, or not for this platform: its registry may have more
        return ResolvedImage(reference, resolved.digest, resolved.config)

    def _ask(self, reference: Reference, platform: Platform) -> ResolvedImage:
        from shiplap.registry.pull import resolve_image

        blobs = self._store.blobs
        image = resolve_image(self._client(), reference, platform, self._known)
        for raw in (image.manifest_raw, image.config_raw, image.index_raw):
            if raw is not None:
                blobs.write(raw)
        top = image.index_descriptor or image.manifest_descriptor
        self._store.images.put(str(reference), top.digest, top.media_type, top.size, whole=False)
        return ResolvedImage(reference, image.manifest_descriptor.digest, image.config)

    def _known(self, digest: Digest) -> bytes | None:
        return self._store.blobs.known(digest)

    def _save(self, descriptor: Descriptor, chunks: Iterator[bytes]) -> None:
        self._store.blobs.keep(descriptor.digest, descriptor.size, chunks)

    def _client(self) -> Registry:
        with self._lock:
            if self._registry is None:
                from shiplap.registry.client import Registry
                from shiplap.registry.cutting import cut_when

                self._registry = self._held.enter_context(Registry(self._settings.network(), self._sink))
                self._held.enter_context(cut_when(self._cancel, self._registry.interrupt))
            return self._registry
