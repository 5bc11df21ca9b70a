"""A whole image out of a registry: the platform is chosen, then blobs come in parallel, each once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import msgspec

from shiplap.errors import RegistryError
from shiplap.oci.choose import choose_manifest
from shiplap.oci.config import CONFIG_LIMIT, ImageConfig, parse_config
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference
from shiplap.registry.client import Registry
from shiplap.registry.side_by_side import side_by_side

Known = Callable[[Digest], bytes | None]
Have = Callable[[Digest], bool]
Save = Callable[[Descriptor, Iterator[bytes]], None]


class FetchedImage(msgspec.Struct, frozen=True):
    """An image for one platform: raw bytes as they were read, views derived from them.

    ``index_raw`` and ``index_descriptor`` are those of the outermost index, None if the reference named a manifest.
    """

    manifest_descriptor: Descriptor
    manifest_raw: bytes
    config_descriptor: Descriptor
    config_raw: bytes
    layers: tuple[Descriptor, ...]
    index_raw: bytes | None = None
    index_descriptor: Descriptor | None = None

    @property
    def config(self) -> ImageConfig:
        return parse_config(self.config_raw)


def resolve_image(
    registry: Registry,
    ref: Reference,
    platform: Platform,
    known: Known | None = None,
) -> FetchedImage:
    """Manifest and config for ``platform``, no layers: what a stage needs of its base before any layer is read.

    ``known`` looks up manifests and configs at home by digest. A single manifest is taken as it is, whatever platform
    its config names, as BuildKit does. Raises RegistryError and ImageError(code="no-such-platform").
    """
    top, raw = registry.resolve(ref, known)
    repository = _Repository(registry, ref, known)
    descriptor, manifest_raw, manifest = choose_manifest(repository, platform, top, raw)
    config_raw = repository.config(manifest.config)
    parse_config(config_raw)
    indexed = top.digest != descriptor.digest
    return FetchedImage(
        manifest_descriptor=descriptor,
        manifest_raw=manifest_raw,
        config_descriptor=manifest.config,
        config_raw=config_raw,
        layers=manifest.layers,
        index_raw=raw if indexed else None,
        index_descriptor=top if indexed else None,
    )


def fetch_layers(
    registry: Registry,
    ref: Reference,
    image: FetchedImage,
    have: Have,
    save: Save,
    *,
    parallel: int = 4,
    step: str = "",
) -> None:
    """Bring the layers home that ``have`` does not know, ``parallel`` at a time, each digest once.

    ``save`` takes a descriptor and its chunks, from several threads; if the chunks raise, it has to forget what it
    wrote. It may be called again for the same layer. The first failure stops the others. ``step`` names the transfer in
    Progress facts.
    """
    wanted = {layer.digest: layer for layer in image.layers if not have(layer.digest)}
    if not wanted:
        return
    stop = threading.Event()

    def fetch(layer: Descriptor) -> None:
        try:
            save(layer, _until(stop, registry.open_blob(ref, layer, step=step)))
        except RegistryError as error:
            if error.code != "digest-mismatch":
                raise
            # Damage on the way, or a bad mirror: once more, from the registry itself.
            save(layer, _until(stop, registry.open_blob(ref, layer, step=step, mirrors=False)))

    failures = side_by_side(
        fetch,
        wanted.values(),
        parallel=min(parallel, len(wanted)),
        name="shiplap-pull",
        stop=stop,
        interrupt=registry.interrupt,
    )
    # Those that were only stopped say nothing about why.
    for failure in sorted(failures, key=lambda f: isinstance(f, _Stopped)):
        raise failure


def fetch_image(
    registry: Registry,
    ref: Reference,
    platform: Platform,
    have: Have,
    save: Save,
    *,
    parallel: int = 4,
    known: Known | None = None,
    step: str = "",
) -> FetchedImage:
    """``resolve_image`` and ``fetch_layers`` in one. ``save`` gets the layers; the result has manifest and config."""
    image = resolve_image(registry, ref, platform, known)
    fetch_layers(registry, ref, image, have, save, parallel=parallel, step=step)
    return image


class _Stopped(RegistryError):
    default_code = "stopped"


def _until(stop: threading.Event, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if stop.is_set():
            raise _Stopped("stopped because another layer failed")
        yield chunk


class _Repository:
    """The image where it is, behind what is at home already: an Origin to choose from."""

    def __init__(self, registry: Registry, ref: Reference, known: Known | None) -> None:
        self.title = ref.familiar()
        self._registry = registry
        self._ref = ref
        self._known: Known = known or (lambda digest: None)

    def holds(self, descriptor: Descriptor) -> bool:
        return True

    def manifest(self, descriptor: Descriptor) -> bytes:
        raw = self._known(descriptor.digest)
        return raw if raw is not None else self._registry.manifest(self._ref, descriptor)

    def config(self, descriptor: Descriptor) -> bytes:
        raw = self._known(descriptor.digest)
        return raw if raw is not None else self._registry.read_blob(self._ref, descriptor, CONFIG_LIMIT)
