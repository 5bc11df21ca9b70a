"""A whole image out of a registry: the platform is chosen, then blobs come in parallel, each once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import msgspec

from shiplap.errors import ImageError, Place, RegistryError
from shiplap.oci.config import CONFIG_LIMIT, ImageConfig, parse_config
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Index, Manifest, offered_platforms, parse_manifest, select_manifest
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference
from shiplap.registry.client import Registry
from shiplap.registry.side_by_side import side_by_side

DEEPEST_INDEX = 4
"""How many indexes may stand one within another."""

MOST_CONFIGS = 16
"""How many manifests of unstated platform are looked into."""

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
    its config names, as BuildKit does. Raises RegistryError and ImageError(code="no-platform").
    """
    top, raw = registry.resolve(ref, known)
    descriptor, manifest_raw = _choose(registry, ref, platform, top, raw, known)
    manifest = parse_manifest(manifest_raw, descriptor.media_type, descriptor.digest)
    assert isinstance(manifest, Manifest)
    config_raw = _config_bytes(registry, ref, manifest, known)
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


def _choose(
    registry: Registry,
    ref: Reference,
    platform: Platform,
    descriptor: Descriptor,
    raw: bytes,
    known: Known | None,
) -> tuple[Descriptor, bytes]:
    for _ in range(DEEPEST_INDEX + 1):
        parsed = parse_manifest(raw, descriptor.media_type, descriptor.digest)
        if isinstance(parsed, Manifest):
            return descriptor, raw
        chosen = select_manifest(parsed, platform) or _by_config(registry, ref, platform, parsed, known)
        if chosen is None:
            offered = ", ".join(dict.fromkeys(offered_platforms(parsed))) or "none that is named"
            raise ImageError(
                f"{ref.familiar()} has no image for {platform}; it offers: {offered[:1000]}",
                code="no-platform",
                where=Place(blob=descriptor.digest),
                hint="choose one of those with --platform, or another tag",
            )
        descriptor, raw = chosen, _manifest_bytes(registry, ref, chosen, known)
    raise ImageError(f"{ref.familiar()} has indexes more than {DEEPEST_INDEX} deep", code="index-too-deep")


def _by_config(
    registry: Registry,
    ref: Reference,
    platform: Platform,
    index: Index,
    known: Known | None,
) -> Descriptor | None:
    # Entries may leave their platform out (some tools write such indexes of one); then the config says it.
    for entry in [entry for entry in index.manifests if entry.platform is None][:MOST_CONFIGS]:
        parsed = parse_manifest(_manifest_bytes(registry, ref, entry, known), entry.media_type, entry.digest)
        if isinstance(parsed, Index):
            if select_manifest(parsed, platform) is not None:
                return entry
        elif not parsed.artifact_type and parsed.config.size <= CONFIG_LIMIT:
            try:
                config = parse_config(_config_bytes(registry, ref, parsed, known))
            except ImageError:
                continue
            if config.platform.satisfies(platform):
                return entry
    return None


def _manifest_bytes(registry: Registry, ref: Reference, descriptor: Descriptor, known: Known | None) -> bytes:
    raw = known(descriptor.digest) if known is not None else None
    return raw if raw is not None else registry.manifest(ref, descriptor)


def _config_bytes(registry: Registry, ref: Reference, manifest: Manifest, known: Known | None) -> bytes:
    raw = known(manifest.config.digest) if known is not None else None
    return raw if raw is not None else registry.read_blob(ref, manifest.config, CONFIG_LIMIT)
