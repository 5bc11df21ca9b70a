"""What ``imagetools inspect`` shows: the text, and the data a template is filled with, in Go's names and buildx's shape."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from shiplap.errors import ImageError
from shiplap.images.gotemplate import Moment, Record, render
from shiplap.images.place import MOST_MANIFESTS, Source, read_small
from shiplap.oci import media_types
from shiplap.oci.choose import DEEPEST_INDEX
from shiplap.oci.config import CONFIG_LIMIT
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Index, Manifest, PlatformFields, decode_json, parse_manifest
from shiplap.oci.platform import normalize

STATEMENT_LIMIT = 64 << 20
"""Largest attestation that is read, in bytes; a bill of materials of a large image has 20 million."""
_ABOUT = ("com.docker.reference.digest", "vnd.docker.reference.digest")
_SPDX, _SLSA = "https://spdx.dev/Document", "https://slsa.dev/provenance/"
_PREDICATE = "in-toto.io/predicate-type"
_DSSE = re.compile(r"application/vnd\.in-toto\..*\+dsse")


def describe(source: Source, name: str, full: str, template: str) -> str:
    """The answer to ``imagetools inspect``. ``name`` is as it was asked for, ``full`` normalised with its tag."""
    root, raw = source.root()
    if not template or re.fullmatch(r"\s*\{\{\s*\.Manifest\s*\}\}\s*", template):
        return _text(root, raw, full)
    found = _Found(source)
    found.add(root, raw, 0)
    images = {platform: _image(config) for platform, config in sorted(found.configs().items())}
    stubs: dict[str, Any] = {"Provenance": found.provenance, "SBOM": found.sbom}
    several = len(images) > 1
    image: Any = images if several else next(iter(images.values()), None)
    if not several:
        stubs = {
            key: lambda ask=ask: next(iter(ask().values()), Record({"SLSA": None, "SPDX": None}, {}))
            for key, ask in stubs.items()
        }
    written = {"name": name, "manifest": _manifest(root, raw), "image": image}
    fields = {"Name": name, "Manifest": written["manifest"], "Image": image, **stubs}
    return render(template, Record(fields, {key: value for key, value in written.items() if value}))


def _text(root: Descriptor, raw: bytes, full: str) -> str:
    lines = _columns([("Name:", full), ("MediaType:", root.media_type), ("Digest:", root.digest)])
    parsed = parse_manifest(raw, root.media_type, root.digest)
    if not isinstance(parsed, Index):
        return "".join(lines)
    lines += _columns([("", ""), ("Manifests:", "")])
    rows: list[tuple[str, str]] = []
    for position, entry in enumerate(parsed.manifests):
        if position:
            rows.append(("", ""))
        rows += [("  Name:", f"{full.partition('@')[0]}@{entry.digest}"), ("  MediaType:", entry.media_type)]
        platform = entry.platform
        if platform is None:
            continue
        rows.append(("  Platform:", _platform_text(platform)))
        if platform.os_version:
            rows.append(("  OSVersion:", platform.os_version))
        if platform.os_features:
            rows.append(("  OSFeatures:", ", ".join(platform.os_features)))
        if entry.urls:
            rows.append(("  URLs:", ", ".join(entry.urls)))
        if entry.annotations:
            rows.append(("  Annotations:", ""))
            lines += _columns(rows)
            lines += _columns([(f"    {key}:", value) for key, value in sorted(entry.annotations.items())])
            rows = []
    return "".join(lines + _columns(rows))


def _platform_text(platform: PlatformFields) -> str:
    # containerd's platforms.Format: what is not stated is unknown.
    if not platform.os:
        return "unknown"
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Two columns with a space between, as Go's tabwriter sets them."""
    width = max((len(left) for left, _ in rows), default=0) + 1
    return [f"{left:<{width}}{right}\n" for left, right in rows]


class _Found:
    """All manifests of an image: those for a platform, and what is said of them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._manifests: dict[Digest, Manifest] = {}
        self._images: dict[str, Digest] = {}
        self._about: dict[Digest, list[Digest]] = {}

    def add(self, descriptor: Descriptor, raw: bytes, depth: int) -> None:
        if depth > DEEPEST_INDEX or len(self._manifests) >= MOST_MANIFESTS:
            raise ImageError(f"more than {MOST_MANIFESTS} manifests, or {DEEPEST_INDEX} deep", code="index-too-deep")
        parsed = parse_manifest(raw, descriptor.media_type, descriptor.digest)
        if isinstance(parsed, Index):
            for entry in parsed.manifests:
                if entry.media_type in media_types.INDEXES | media_types.MANIFESTS and self._source.holds(entry):
                    self.add(entry, self._source.manifest(entry), depth + 1)
            return
        self._manifests[descriptor.digest] = parsed
        subject = next((descriptor.annotations[key] for key in _ABOUT if key in descriptor.annotations), "")
        if subject:
            self._about.setdefault(subject, []).append(descriptor.digest)
            return
        said = descriptor.platform
        if said is None:
            config = self._config(parsed)
            os, architecture, variant = (str(config.get(key) or "") for key in ("os", "architecture", "variant"))
            said = PlatformFields(architecture, os, variant=variant)
        self._images[str(normalize(said.os, said.architecture, said.variant))] = descriptor.digest

    def configs(self) -> dict[str, dict[str, Any]]:
        """The config of each platform's image."""
        return {platform: self._config(self._manifests[digest]) for platform, digest in self._images.items()}

    def provenance(self) -> dict[str, Record]:
        found = {}
        for platform, digest in self._images.items():
            said = list(self._predicates(digest, lambda kind: kind.startswith(_SLSA)))
            if said:
                found[platform] = Record({"SLSA": said[-1]}, {"SLSA": said[-1]})
        return found

    def sbom(self) -> dict[str, Record]:
        found = {}
        for platform, digest in self._images.items():
            said = list(self._predicates(digest, lambda kind: kind == _SPDX))
            if said:
                fields = {"SPDX": said[0], "AdditionalSPDXs": said[1:]}
                found[platform] = Record(fields, {key: value for key, value in fields.items() if value})
        return found

    def _predicates(self, digest: Digest, wanted: Any) -> Any:
        for each in self._about.get(digest, ()):
            for layer in self._manifests[each].layers:
                generic = layer.media_type == "application/vnd.in-toto+json"
                if (generic or _DSSE.match(layer.media_type)) and wanted(layer.annotations.get(_PREDICATE, "")):
                    raw = read_small(self._source, layer, STATEMENT_LIMIT)
                    if not generic:
                        raw = base64.b64decode(decode_json(raw, dict[str, Any], "envelope").get("payload", ""))
                    yield decode_json(raw, dict[str, Any], "attestation").get("predicate")

    def _config(self, manifest: Manifest) -> dict[str, Any]:
        return decode_json(read_small(self._source, manifest.config, CONFIG_LIMIT), dict[str, Any], "image config")


# -- Go's structs: (Go's name, JSON's name, whether it is left out when empty)

_PLATFORM = (
    ("Architecture", "architecture", False),
    ("OS", "os", False),
    ("OSVersion", "os.version", True),
    ("OSFeatures", "os.features", True),
    ("Variant", "variant", True),
)
_CONFIG = (
    *(("User", "User", True), ("ExposedPorts", "ExposedPorts", True), ("Env", "Env", True)),
    *(("Entrypoint", "Entrypoint", True), ("Cmd", "Cmd", True), ("Volumes", "Volumes", True)),
    *(("WorkingDir", "WorkingDir", True), ("Labels", "Labels", True), ("StopSignal", "StopSignal", True)),
    ("ArgsEscaped", "ArgsEscaped", True),
)
_HISTORY = (
    *(("Created", "created", True), ("CreatedBy", "created_by", True), ("Author", "author", True)),
    *(("Comment", "comment", True), ("EmptyLayer", "empty_layer", True)),
)
_DESCRIPTOR = (
    *(("MediaType", "mediaType", False), ("Digest", "digest", False), ("Size", "size", False), ("URLs", "urls", True)),
    *(("Annotations", "annotations", True), ("Data", "data", True), ("Platform", "platform", True)),
    ("ArtifactType", "artifactType", True),
)


def _record(shape: Sequence[tuple[str, str, bool]], values: dict[str, Any], zero: Any = "") -> Record:
    fields = {go: values.get(name) for go, name, _ in shape}
    written = {name: values.get(name, zero) for _, name, omit in shape if values.get(name) or not omit}
    return Record({go: "" if value is None else value for go, value in fields.items()}, written)


def _descriptor(descriptor: Descriptor) -> Record:
    values = msgspec.to_builtins(descriptor)
    values = {"mediaType": "", "digest": "", "size": 0, **values}
    if descriptor.platform is not None:
        values["platform"] = _record(_PLATFORM, values["platform"])
    return _record(_DESCRIPTOR, values)


def _manifest(root: Descriptor, raw: bytes) -> Record:
    parsed = parse_manifest(raw, root.media_type, root.digest)
    if not isinstance(parsed, Index):
        return _descriptor(root)
    values = {
        "schemaVersion": parsed.schema_version,
        "mediaType": parsed.media_type,
        "digest": root.digest,
        "size": root.size,
        "manifests": [_descriptor(entry) for entry in parsed.manifests] or None,
        "annotations": parsed.annotations,
    }
    shape = (
        *(("SchemaVersion", "schemaVersion", False), ("MediaType", "mediaType", True), ("Digest", "digest", False)),
        *(("Size", "size", False), ("Manifests", "manifests", False), ("Annotations", "annotations", True)),
    )
    return _record(shape, values, None)


def _image(config: dict[str, Any]) -> Record:
    inner = config.get("config")
    rootfs = config.get("rootfs")
    rootfs = rootfs if isinstance(rootfs, dict) else {}
    history = [each for each in config.get("history") or () if isinstance(each, dict)]
    diff_ids = {"type": rootfs.get("type", ""), "diff_ids": rootfs.get("diff_ids")}
    values = {
        **config,
        "created": _go_time(config.get("created")),
        "config": _record(_CONFIG, inner if isinstance(inner, dict) else {}),
        "rootfs": Record({"Type": diff_ids["type"], "DiffIDs": diff_ids["diff_ids"] or []}, diff_ids),
        "history": [_record(_HISTORY, {**each, "created": _go_time(each.get("created"))}) for each in history],
    }
    shape = (
        *(("Created", "created", True), ("Author", "author", True)),
        *_PLATFORM,
        *(("Config", "config", True), ("RootFS", "rootfs", False), ("History", "history", True)),
    )
    return _record(shape, values)


def _go_time(text: Any) -> Any:
    """A time as Go writes it again: no zeros at the end of the fraction."""
    if not isinstance(text, str):
        return None
    match = re.fullmatch(r"(.*:\d\d)\.(\d+?)0*(Z|[+-].*)", text)
    if match is None:
        return Moment(text)
    return Moment(match[1] + ("" if set(match[2]) == {"0"} else f".{match[2]}") + match[3])
