"""``shiplap imagetools``: images made of others without a build, and looked into where they are, as buildx does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from shiplap.errors import ImageError, ShiplapError, UsageError, quote
from shiplap.events.facts import Sink
from shiplap.export.aside import writing
from shiplap.images.annotation import parse_annotations
from shiplap.images.compose import Composed, ComposedSource, Part, WrittenDescriptor, carry_referrers, compose
from shiplap.images.copying import copy
from shiplap.images.location import LAYOUT, REGISTRY, Location, parse_location
from shiplap.images.session import Session
from shiplap.oci.digest import is_digest
from shiplap.oci.manifest import Descriptor, decode_json
from shiplap.oci.platform import parse_platform
from shiplap.oci.reference import parse_reference
from shiplap.settings import Settings


class Creation(msgspec.Struct, frozen=True):
    """What ``imagetools create`` is asked for. ``sources`` are locations (of registries, unless they say otherwise),
    digests, or descriptors as JSON; ``files`` hold such."""

    sources: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    append: bool = False
    prefer_index: bool = True
    dry_run: bool = False
    metadata_file: str = ""


class _Origin(msgspec.Struct, frozen=True):
    text: str
    location: Location | None = None
    said: WrittenDescriptor | None = None


def create(creation: Creation, settings: Settings, sink: Sink) -> bytes:
    """The bytes of the image that was made, or with ``dry_run`` would be. Raises UsageError, ImageError, RegistryError."""
    if not creation.sources and not creation.files:
        raise UsageError("no sources specified", code="no-source", hint="name images, digests or descriptors")
    if not creation.dry_run and not creation.tags:
        raise UsageError(
            "can't push with no tags specified, please set --tag or --dry-run",
            code="no-target",
            hint="-t HOST/NAME:TAG",
        )
    tags = [parse_location(tag, REGISTRY) for tag in creation.tags]
    for tag in tags:
        if tag.transport not in (REGISTRY, LAYOUT):
            raise UsageError(
                f"an image cannot be created at {tag}",
                code="bad-location",
                hint="create it in a registry or at oci-layout://DIRECTORY:TAG; shiplap copy brings it anywhere",
            )
    texts = [_read(file) for file in creation.files]
    texts += creation.tags[:1] if creation.append else ()
    origins = [_origin(text) for text in (*texts, *creation.sources)]
    annotations = parse_annotations(creation.annotations)
    platforms = [parse_platform(each) for text in creation.platforms for each in text.split(",")]
    with Session(settings, sink) as session:
        parts = [_part(origin, session) for origin in _placed(origins, tags)]
        composed = compose(parts, annotations, creation.prefer_index, platforms)
        if not creation.dry_run:
            _publish(composed, tags, session, sink)
            if creation.metadata_file:
                _write_metadata(creation.metadata_file, composed.descriptor, tags)
    return composed.raw


def inspect(text: str, settings: Settings, *, raw: bool = False, template: str = "") -> bytes:
    """What ``imagetools inspect`` answers for the image at ``text`` (of a registry, unless it says otherwise).

    Raises UsageError (bad-template, bad-location), ImageError, RegistryError.
    """
    if raw and template:
        raise UsageError("format and raw cannot be used together", code="bad-command-line")
    location = parse_location(text, REGISTRY)
    with Session(settings) as session:
        source = session.source(location)
        if raw:
            return source.root()[1]
        from shiplap.images.description import describe

        if location.transport == REGISTRY:
            full = source.title
        else:
            full = f"oci-layout://{location.path}:{location.name}" if location.transport == LAYOUT else str(location)
        return describe(source, text, full, template).encode("utf-8", "surrogateescape")


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"cannot read {file}: {why}", code="cannot-read") from None


def _origin(text: str) -> _Origin:
    try:
        if is_digest(text):
            return _Origin(text, None, WrittenDescriptor(text))
        if text.lstrip().startswith("{"):
            said = decode_json(text.encode(), WrittenDescriptor, "descriptor")
            return _Origin(text, None, said.checked())
        return _Origin(text, parse_location(text, REGISTRY))
    except ShiplapError as error:
        why = str(error).rpartition('": ')[2] if error.code == "invalid-reference" else str(error)
        raise UsageError(
            f"failed to parse source {quote(text[:300])}, valid sources are digests, references and descriptors: {why}",
            code="invalid-source",
            hint=error.hint,
        ) from None


def _placed(origins: Sequence[_Origin], tags: Sequence[Location]) -> list[_Origin]:
    """Digests and descriptors alone are in the one repository that is spoken of."""
    named = [origin.location for origin in origins if origin.location is not None]
    repositories = {_repository(location) for location in (*tags, *named)}
    if not repositories:
        raise UsageError(
            "no repositories specified, please set a reference in tag or source", code="no-repository", hint="-t NAME"
        )
    default = (*named, *tags)[0] if len(repositories) == 1 else None
    placed = []
    for origin in origins:
        if origin.location is None:
            if default is None:
                raise UsageError(
                    f"multiple repositories specified, cannot infer repository for {quote(origin.text[:300])}",
                    code="no-repository",
                    hint="write HOST/NAME@DIGEST",
                )
            assert origin.said is not None
            origin = msgspec.structs.replace(origin, location=_at_digest(default, origin.said.digest))
        placed.append(origin)
    return placed


def _repository(location: Location) -> str:
    return parse_reference(location.name).name if location.transport == REGISTRY else location.path or location.name


def _at_digest(location: Location, digest: str) -> Location:
    if location.transport == REGISTRY:
        return location._replace(name=f"{parse_reference(location.name).name}@{digest}")
    return location._replace(name="", digest=digest)


def _part(origin: _Origin, session: Session) -> Part:
    assert origin.location is not None
    source = session.source(origin.location)
    descriptor, _ = source.root()
    return Part(origin.said.over(descriptor) if origin.said is not None else descriptor, source)


def _publish(composed: Composed, tags: Sequence[Location], session: Session, sink: Sink) -> None:
    source = ComposedSource(composed)
    carried: set[str] = set()
    for tag in tags:
        # Of a further tag in one repository only the root is sent: all else is found to be there.
        copy(source, session.target(tag), sink)
        if tag.transport == REGISTRY and _repository(tag) not in carried:
            carried.add(_repository(tag))
            carry_referrers(composed, session.registry, parse_reference(tag.name))


def _write_metadata(path: str, descriptor: Descriptor, tags: Sequence[Location]) -> None:
    facts: dict[str, Any] = {
        "containerimage.descriptor": msgspec.to_builtins(descriptor),
        "image.name": ",".join(sorted({_repository(tag) for tag in tags})),
    }
    try:
        with writing(Path(path)) as out:
            out.write(json.dumps(facts, indent=2).encode())
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror}", code="cannot-write") from None
