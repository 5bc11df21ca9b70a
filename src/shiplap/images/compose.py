"""A new image out of others: an index over their manifests, as ``buildx imagetools create`` makes it, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from shiplap.errors import ImageError, UsageError, quote
from shiplap.images.annotation import DESCRIPTOR, INDEX, AnnotationKey
from shiplap.images.place import Source, read_small
from shiplap.images.remote import opener_of
from shiplap.oci import media_types
from shiplap.oci.config import CONFIG_LIMIT, parse_config
from shiplap.oci.digest import Digest, digest_of, is_digest
from shiplap.oci.manifest import (
    Descriptor,
    Index,
    Manifest,
    PlatformFields,
    encode_manifest,
    parse_manifest,
)
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference
from shiplap.registry.client import Registry
from shiplap.registry.push import OutgoingBlob, push_referrer

REFERENCE_TYPE, REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
ATTESTATION_TYPE = "application/vnd.docker.attestation.manifest.v1+json"

CARRIED = frozenset(
    {
        ATTESTATION_TYPE,
        "application/vnd.dev.cosign.artifact.sig.v1+json",
        "application/vnd.dev.sigstore.bundle.v0.3+json",
    }
)
"""What goes along with the manifest that it refers to: attestations and signatures."""


class Part(msgspec.Struct, frozen=True):
    """A manifest or index to compose of, where it is, and what is to be said of it."""

    descriptor: Descriptor
    source: Source


class Composed(msgspec.Struct, frozen=True):
    """What came of it: ``raw`` is the root, ``parts`` the manifests that it needs, each with where it is."""

    descriptor: Descriptor
    raw: bytes
    parts: tuple[Part, ...]


class ComposedSource:
    """A ``Source``: a composed image, whose manifests and blobs are wherever its parts are."""

    attaches = False

    def __init__(self, composed: Composed) -> None:
        self.title = composed.descriptor.digest
        self.names: tuple[str, ...] = ()
        self._composed = composed
        self._sources = {part.descriptor.digest: part.source for part in composed.parts}
        if composed.descriptor.digest in self._sources:  # a single manifest, as it is
            self.manifest(composed.descriptor)

    def root(self) -> tuple[Descriptor, bytes]:
        return self._composed.descriptor, self._composed.raw

    def holds(self, descriptor: Descriptor) -> bool:
        return self._sources[descriptor.digest].holds(descriptor)

    def manifest(self, descriptor: Descriptor) -> bytes:
        source = self._sources[descriptor.digest]
        raw = source.manifest(descriptor)
        parsed = parse_manifest(raw, descriptor.media_type, descriptor.digest)
        below = parsed.manifests if isinstance(parsed, Index) else (parsed.config, *parsed.layers)
        for each in below:
            self._sources.setdefault(each.digest, source)
        return raw

    def chunks(self, descriptor: Descriptor, step: str = "") -> Iterator[bytes]:
        return self._sources[descriptor.digest].chunks(descriptor, step)

    def interrupt(self) -> None:
        for part in self._composed.parts:
            part.source.interrupt()

    def home_of(self, descriptor: Descriptor) -> Reference | None:
        return self._sources[descriptor.digest].home_of(descriptor)

    def referrers(self, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        source = self._sources.get(digest)
        return source.referrers(digest, artifact_type) if source is not None else ()


def compose(
    parts: Sequence[Part],
    annotations: Mapping[AnnotationKey, str],
    prefer_index: bool,
    platforms: Sequence[Platform],
) -> Composed:
    """Join ``parts``; of them only ``platforms``, unless there are none.

    A single index stays what it is, as does, without ``prefer_index``, a single manifest. Raises ImageError, UsageError.
    """
    stated = [_stated(part) for part in parts]
    if len(stated) == 1 and not annotations:
        part = stated[0]
        is_index = part.descriptor.media_type in media_types.INDEXES
        if is_index or not prefer_index:
            raw = part.source.manifest(part.descriptor)
            if not is_index:
                return _alone(part, raw, platforms)
            entries = [Part(entry, part.source) for entry in _entries(part)]
            return _filtered(Composed(part.descriptor, raw, tuple(entries)), platforms)
    joined = _joined(stated)
    docker = all(part.descriptor.media_type.startswith("application/vnd.docker.") for part in joined)
    kind = media_types.DOCKER_INDEX if docker else media_types.OCI_INDEX
    noted: dict[str, str] = {}
    if not docker:  # a manifest list of Docker's has no room for annotations
        joined, noted = _annotated(joined, annotations)
    index = Index(
        media_type=kind, manifests=tuple(part.descriptor for part in joined), annotations=dict(sorted(noted.items()))
    )
    raw = encode_manifest(index)
    return _filtered(Composed(Descriptor(kind, digest_of(raw), len(raw)), raw, tuple(joined)), platforms)


def _stated(part: Part) -> Part:
    """With media type and, of a manifest, its platform: that of its config, where nothing else was said."""
    descriptor = part.descriptor
    if descriptor.media_type in media_types.INDEXES:
        return part
    raw = part.source.manifest(descriptor)
    parsed = parse_manifest(raw, descriptor.media_type, descriptor.digest)
    if not descriptor.media_type:
        kind = parsed.media_type or (media_types.OCI_INDEX if isinstance(parsed, Index) else media_types.OCI_MANIFEST)
        descriptor = msgspec.structs.replace(descriptor, media_type=kind)
    if descriptor.size < 0:
        descriptor = msgspec.structs.replace(descriptor, size=len(raw))
    said = descriptor.platform or PlatformFields("", "")
    if isinstance(parsed, Manifest) and not (said.os and said.architecture):
        config = parse_config(read_small(part.source, parsed.config, CONFIG_LIMIT))
        platform = config.platform
        if not said.architecture:
            said = msgspec.structs.replace(
                said, architecture=platform.architecture, variant=said.variant or platform.variant
            )
        descriptor = msgspec.structs.replace(
            descriptor, platform=msgspec.structs.replace(said, os=said.os or platform.os)
        )
    return Part(descriptor, part.source)


def _entries(part: Part) -> tuple[Descriptor, ...]:
    raw = part.source.manifest(part.descriptor)
    parsed = parse_manifest(raw, part.descriptor.media_type, part.descriptor.digest)
    assert isinstance(parsed, Index)
    return parsed.manifests


def _joined(parts: Sequence[Part]) -> list[Part]:
    """The manifests of all ``parts``, each once: the first's place, the last's platform, everyone's annotations."""
    found: dict[Digest, Part] = {}
    for part in parts:
        is_index = part.descriptor.media_type in media_types.INDEXES
        for entry in _entries(part) if is_index else (part.descriptor,):
            old = found[entry.digest].descriptor if entry.digest in found else entry
            merged = msgspec.structs.replace(
                old,
                media_type=old.media_type or entry.media_type,
                platform=entry.platform or old.platform,
                annotations={**old.annotations, **entry.annotations},
            )
            found[entry.digest] = Part(merged, part.source)
    return list(found.values())


def _annotated(parts: list[Part], annotations: Mapping[AnnotationKey, str]) -> tuple[list[Part], dict[str, str]]:
    index: dict[str, str] = {}
    for key, value in annotations.items():
        if key.type == INDEX:
            index[key.key] = value
        elif key.type == DESCRIPTOR:
            parts = [_noted(part, key, value) for part in parts]
        elif key.type in ("", "manifest"):
            raise UsageError(
                f"{quote(key.type)} annotations are not supported yet",
                code="invalid-annotation",
                hint=f"a manifest stays as it is: annotate {INDEX}: or {DESCRIPTOR}: instead",
            )
        else:
            raise UsageError(
                f"{quote(key.type)} annotations are invalid while creating an image",
                code="invalid-annotation",
                hint=f"annotate {INDEX}: or {DESCRIPTOR}: instead",
            )
    return parts, index


def _noted(part: Part, key: AnnotationKey, value: str) -> Part:
    platform = part.descriptor.platform
    if key.platform and (platform is None or _text(platform) != key.platform):
        return part
    annotations = {**part.descriptor.annotations, key.key: value}
    return Part(msgspec.structs.replace(part.descriptor, annotations=annotations), part.source)


def _text(platform: PlatformFields) -> str:
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))


def _alone(part: Part, raw: bytes, platforms: Sequence[Platform]) -> Composed:
    platform = part.descriptor.platform
    if platform is not None and platforms and not _fits(platform, platforms):
        raise ImageError(
            f"input platform {_text(platform)} does not match any of the provided platforms", code="no-such-platform"
        )
    return Composed(part.descriptor, raw, (part,))


def _fits(platform: PlatformFields, platforms: Sequence[Platform]) -> bool:
    parsed = platform.parsed()
    return any(parsed._replace(os_version="") == wanted._replace(os_version="") for wanted in platforms)


def _filtered(whole: Composed, platforms: Sequence[Platform]) -> Composed:
    """Only ``platforms``, with the attestations of what stays; attestations that only refer to it come into the index."""
    known = {part.descriptor.digest: part.descriptor for part in whole.parts}

    def wanted(entry: Descriptor) -> bool:
        return entry.platform is None or not platforms or _fits(entry.platform, platforms)

    about: dict[Digest, Digest] = {}
    for entry in known.values():
        subject = known.get(entry.annotations.get(REFERENCE_DIGEST, ""))
        if entry.annotations.get(REFERENCE_TYPE) == ATTESTATION and subject is not None and wanted(subject):
            about[entry.digest] = subject.digest
    parts = [part for part in whole.parts if part.descriptor.digest in about or wanted(part.descriptor)]
    if not parts:
        raise ImageError("none of the manifests match the provided platforms", code="no-such-platform")
    bare = [
        part
        for part in parts
        if wanted(part.descriptor)
        and part.descriptor.digest not in about
        and part.descriptor.digest not in about.values()
    ]
    parts += [referred for part in bare if (referred := _referring(part)) is not None]
    if [part.descriptor.digest for part in parts] == [part.descriptor.digest for part in whole.parts]:
        return whole
    index = parse_manifest(whole.raw, whole.descriptor.media_type, whole.descriptor.digest)
    assert isinstance(index, Index)
    raw = encode_manifest(msgspec.structs.replace(index, manifests=tuple(part.descriptor for part in parts)))
    descriptor = Descriptor(
        whole.descriptor.media_type, digest_of(raw), len(raw), annotations=whole.descriptor.annotations
    )
    return Composed(descriptor, raw, tuple(parts))


def _referring(part: Part) -> Part | None:
    """The attestation that refers to a manifest without being in its index, as an entry for it."""
    found = part.source.referrers(part.descriptor.digest, ATTESTATION_TYPE)
    if not found:
        return None
    annotations = {
        **found[0].annotations,
        REFERENCE_TYPE: ATTESTATION,
        REFERENCE_DIGEST: part.descriptor.digest,
    }
    entry = msgspec.structs.replace(
        found[0],
        annotations=annotations,
        artifact_type="",
        platform=PlatformFields("unknown", "unknown"),
    )
    return Part(entry, part.source)


def carry_referrers(composed: Composed, registry: Registry, target: Reference) -> None:
    """Bring along what refers to the manifests of ``composed``, where it is of a type that buildx brings along."""
    for part in composed.parts:
        home = part.source.home_of(part.descriptor)
        if home is None or home.name == target.name:
            continue
        for entry in part.source.referrers(part.descriptor.digest):
            if entry.artifact_type not in CARRIED:
                continue
            raw = registry.manifest(home, entry)
            manifest = parse_manifest(raw, entry.media_type, entry.digest)
            if isinstance(manifest, Manifest):
                blobs = [
                    OutgoingBlob(blob, opener_of(part.source, blob), home)
                    for blob in (manifest.config, *manifest.layers)
                ]
                push_referrer(registry, target, raw, entry.media_type, blobs)


class WrittenDescriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A descriptor as a file gives it; ``schema_version`` shows a manifest that was taken for one."""

    digest: str = ""
    media_type: str = ""
    size: int = 0
    annotations: dict[str, str] | None = None
    platform: PlatformFields | None = None
    schema_version: int = 0

    def checked(self) -> WrittenDescriptor:
        """Itself; raises UsageError (invalid-source)."""
        if self.schema_version:
            raise _invalid(
                f"expected an OCI content descriptor, got a manifest or index (schemaVersion {self.schema_version})"
            )
        if not self.digest:
            raise _invalid("invalid descriptor: digest is required")
        if not is_digest(self.digest):
            raise _invalid("invalid descriptor digest")
        return self

    def over(self, found: Descriptor) -> Descriptor:
        """``found`` with what is said here instead. Raises UsageError (invalid-source)."""
        if self.size not in (0, found.size):
            raise _invalid(f"invalid size mismatch for {found.digest}, {self.size} != {found.size}")
        return msgspec.structs.replace(
            found,
            media_type=self.media_type or found.media_type,
            annotations=self.annotations or found.annotations,
            platform=self.platform or found.platform,
        )


def _invalid(why: str) -> UsageError:
    return UsageError(
        why, code="invalid-source", hint='write a reference, a digest, or a descriptor: {"digest": "sha256:…"}'
    )
