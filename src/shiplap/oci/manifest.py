"""Descriptors, manifests and indexes (OCI image specification 1.1): read with limits, written as BuildKit does."""

# Annotations are values here: msgspec would evaluate each one's text (1.5 ms of every start).
import re
from typing import Any, TypeVar

import msgspec

from shiplap.errors import ImageError, Place
from shiplap.oci import media_types
from shiplap.oci.digest import Digest, parse_digest
from shiplap.oci.platform import Platform, fitting_platforms, normalize

MANIFEST_LIMIT = 4 << 20
"""Largest manifest or index that is read, in bytes (the distribution specification suggests 4 MiB)."""

LARGEST_SIZE = (1 << 63) - 1
"""Largest size of a blob, in bytes (int64 in the specification)."""

DEPTH_LIMIT = 64
"""Deepest nesting of JSON from outside."""

T = TypeVar("T")


class PlatformFields(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ``platform`` object of a descriptor, as written."""

    architecture: str
    os: str
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""

    def parsed(self) -> Platform:
        return normalize(self.os, self.architecture, self.variant, self.os_version)


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What a blob is, how it is named and how long it is (bytes)."""

    media_type: str = ""
    digest: Digest = ""
    size: int = msgspec.field(default=-1)
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    data: str = ""
    platform: PlatformFields | None = None
    artifact_type: str = ""


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image manifest: one config, its layers from the base up."""

    schema_version: int = msgspec.field(default=0)
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor = msgspec.field(default_factory=Descriptor)
    layers: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image index (Docker: manifest list): manifests for several platforms."""

    schema_version: int = msgspec.field(default=0)
    media_type: str = ""
    artifact_type: str = ""
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


def parse_manifest(raw: bytes, media_type: str = "", digest: Digest = "") -> Manifest | Index:
    """Read a manifest or an index; ``media_type`` is what the transport said it is, if it said.

    Raises ImageError: too large, not JSON, ambiguous (CVE-2021-41190), malformed digests.
    """
    where = Place(blob=digest) if digest else None
    if len(raw) > MANIFEST_LIMIT:
        raise ImageError(
            f"manifest of {len(raw)} bytes is over the limit of {MANIFEST_LIMIT}",
            code="manifest-too-large",
            where=where,
        )
    fields = without_nulls(decode_json(raw, dict[str, Any], "manifest", where), "manifest", where)
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise ImageError("manifest has both manifests and layers", code="ambiguous-manifest", where=where)
    said = fields.get("mediaType") or ""
    media_type = media_type.partition(";")[0].strip()
    known = media_types.INDEXES | media_types.MANIFESTS
    if said and media_type in known and said != media_type:
        raise ImageError(
            f"manifest says it is {said}, the registry says {media_type}", code="ambiguous-manifest", where=where
        )
    kind = said or (media_type if media_type in known else "")
    if fields.get("schemaVersion") != 2:
        raise ImageError(
            "manifest is not of schema version 2",
            code="unsupported-manifest",
            where=where,
            hint="images of schema version 1 have to be pushed again with a current tool",
        )
    is_index = kind in media_types.INDEXES if kind in known else "manifests" in fields
    if ("layers" in fields or "config" in fields) if is_index else "manifests" in fields:
        raise ImageError(f"manifest is called {kind}, but holds something else", code="ambiguous-manifest", where=where)
    if is_index:
        index = _convert(fields, Index, "index", where)
        for descriptor in index.manifests:
            parse_digest(descriptor.digest)
        return index
    manifest = _convert(fields, Manifest, "manifest", where)
    for descriptor in (manifest.config, *manifest.layers):
        parse_digest(descriptor.digest)
        if not 0 <= descriptor.size <= LARGEST_SIZE:
            raise ImageError(
                f"descriptor of {descriptor.digest} has no possible size", code="invalid-manifest", where=where
            )
    return manifest


def encode_manifest(manifest: Manifest | Index) -> bytes:
    """The bytes of a manifest or index as BuildKit writes them: Go's field order, indented by two spaces."""
    return msgspec.json.format(encode_json(_go_order(manifest)), indent=2)


def _go_order(manifest: Manifest | Index) -> dict[str, Any]:
    # Fields in the order of Go's struct; ``layers`` and ``manifests`` are written even when empty (null, for nil).
    fields: dict[str, Any] = {"schemaVersion": 2}
    if manifest.media_type:
        fields["mediaType"] = manifest.media_type
    if manifest.artifact_type:
        fields["artifactType"] = manifest.artifact_type
    if isinstance(manifest, Index):
        fields["manifests"] = [_go_descriptor(entry) for entry in manifest.manifests] or None
    else:
        fields["config"] = _go_descriptor(manifest.config)
        fields["layers"] = [_go_descriptor(layer) for layer in manifest.layers] or None
    if manifest.subject is not None:
        fields["subject"] = _go_descriptor(manifest.subject)
    if manifest.annotations:
        fields["annotations"] = dict(sorted(manifest.annotations.items()))
    return fields


def _go_descriptor(descriptor: Descriptor) -> Descriptor:
    # Go writes the keys of a map in order.
    return msgspec.structs.replace(descriptor, annotations=dict(sorted(descriptor.annotations.items())))


def select_manifest(index: Index, wanted: Platform) -> Descriptor | None:
    """The entry that fits ``wanted`` best, the first of equals (as containerd chooses for BuildKit).

    Attestations (platform unknown) never fit, nor entries that ask for features of the operating system.
    """
    order = fitting_platforms(wanted._replace(os_version=""))
    best: tuple[int, Descriptor] | None = None
    for entry in index.manifests:
        if entry.platform is None or set(entry.platform.os_features) - {"win32k"}:
            continue
        platform = entry.platform.parsed()._replace(os_version="")
        if platform in order and (best is None or order.index(platform) < best[0]):
            best = (order.index(platform), entry)
    return best[1] if best else None


def offered_platforms(index: Index) -> list[str]:
    """The platforms of an index, as written in messages; attestation entries are left out."""
    parsed = [entry.platform.parsed() for entry in index.manifests if entry.platform is not None]
    return [str(platform) for platform in parsed if platform.os != "unknown"]


def decode_json(raw: bytes, kind: type[T], what: str, where: Place | None = None) -> T:
    """Decode JSON from outside into ``kind``; every fault becomes an ImageError. Depth is bounded by msgspec itself."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ImageError(f"{what} cannot be read: {error}", code="invalid-json", where=where) from None


def without_nulls(value: Any, what: str, where: Place | None = None, depth: int = 0) -> Any:
    """``value`` without its nulls, which Go writes for what is empty; raises ImageError if it is nested too deeply."""
    if depth > DEPTH_LIMIT:
        raise ImageError(f"{what} is nested more than {DEPTH_LIMIT} deep", code="invalid-json", where=where)
    if isinstance(value, dict):
        return {key: without_nulls(item, what, where, depth + 1) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item, what, where, depth + 1) for item in value if item is not None]
    return value


def prepare(*kinds: Any) -> None:
    """Let msgspec learn these types now. Call it at import, where only one thread can be.

    msgspec 0.22 learns a type when it is first decoded, and two threads that do so at once crash the interpreter
    (seen: SIGSEGV in ``convert`` while two base images were resolved side by side).
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)


prepare(Manifest, Index)


def _convert(fields: Any, kind: type[T], what: str, where: Place | None) -> T:
    # From the very fields that were looked at above: no second reading that could see something else.
    try:
        return msgspec.convert(fields, kind)
    except msgspec.MsgspecError as error:
        raise ImageError(f"{what} cannot be read: {error}", code="invalid-json", where=where) from None


def encode_json(value: Any) -> bytes:
    """Encode as Go's ``encoding/json`` does: compact, and with ``< > &`` and the line separators escaped."""
    try:
        raw = msgspec.json.encode(value)
    except UnicodeEncodeError:
        # Text that was no UTF-8 (read with surrogateescape): Go writes the escape of U+FFFD for each such byte.
        raw = msgspec.json.encode(_marked(msgspec.to_builtins(value))).replace(_MARK.encode(), b"\\ufffd")
    for plain, escaped in _GO_ESCAPES:
        if plain in raw:
            raw = raw.replace(plain, escaped)
    return raw


_MARK = "\U0010fffe"  # a noncharacter, which no text holds


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", _MARK, value)
    if isinstance(value, dict):
        return {_marked(key): _marked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_marked(item) for item in value]
    return value


# Inside JSON these bytes occur in strings only, so that a plain replacement is safe (Go: json.HTMLEscape).
_GO_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
