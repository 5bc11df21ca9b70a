"""What can be asked of a build, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shiplap.errors import UsageError

OUTPUT_TYPES = ("image", "oci", "docker", "local", "tar", "registry", "cacheonly")
_NEED_DEST = ("oci", "local", "tar")


class Output(msgspec.Struct, frozen=True):
    """Where a result goes. ``type``: image (shiplap's own store), oci, docker, local, tar, registry, cacheonly.

    ``dest``: a path, ``-`` for standard output (oci, docker, tar); docker without one is
    the running Docker or Podman. ``attributes``: ``name``, ``push``, ``tar``,
    ``compression``, ``compression-level``, ``force-compression``, ``oci-mediatypes``, ``platform-split``,
    ``annotation[-LEVEL][[PLATFORM]].KEY``, ``oci-artifact``, ``attestation-prefix``, ``rewrite-timestamp``, ``referrers``.
    """

    type: str = "image"
    dest: str = ""
    attributes: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        if self.type not in OUTPUT_TYPES:
            raise UsageError(
                f"unknown output type {self.type!r}",
                code="invalid-output",
                hint="use one of " + ", ".join(OUTPUT_TYPES),
            )
        if self.type in _NEED_DEST and not self.dest:
            raise UsageError(
                f"output type {self.type} needs a dest", code="invalid-output", hint=f"type={self.type},dest=PATH"
            )
        if self.type == "local" and self.dest == "-":
            raise UsageError("output type local needs a directory", code="invalid-output")

    @classmethod
    def parse(cls, text: str) -> Output:
        """Read ``--output``: ``type=oci,dest=x.tar``, a directory, or ``-`` (a tar on standard output)."""
        if text == "-":
            return cls("tar", "-")
        fields = parse_fields(text)
        if list(fields) == [text] or "type" not in fields:
            if "=" in text and "type" not in fields:
                raise UsageError(
                    f"output needs a type: {text!r}", code="invalid-output", hint="type=oci,dest=image.tar"
                )
            return cls("local", text)
        kind = fields.pop("type")
        return cls(kind, fields.pop("dest", ""), fields)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean attribute."""
        return boolean(self.attributes.get(name, ""), default, name)


def parse_fields(text: str) -> dict[str, str]:
    """``a=b,"c=d,e"`` -> its fields (CSV, as docker's flags); a field without ``=`` has the value ``true``."""
    import csv

    try:
        row = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise UsageError(f"cannot read {text!r}: {error}", code="invalid-flag") from None
    fields: dict[str, str] = {}
    for field in row:
        key, equals, value = field.partition("=")
        fields[key.strip().lower() if equals else key] = value if equals else "true"
    return fields


def boolean(text: str, default: bool, what: str) -> bool:
    """``true``, ``1``, ``false``, ``0`` (Go's ParseBool); empty is ``default``."""
    if text == "":
        return default
    from shiplap.settings.boolean import parse_bool

    truth = parse_bool(text)
    if truth is not None:
        return truth
    raise UsageError(f"{what} must be true or false, not {text!r}", code="invalid-flag")


class Secret(msgspec.Struct, frozen=True):
    """A secret for ``RUN --mount=type=secret,id=…``: from a file, from the environment, or given as bytes."""

    id: str
    source: str = ""
    """Path of a file."""
    env: str = ""
    value: bytes | None = None

    def __repr__(self) -> str:
        return f"Secret(id={self.id!r})"

    @classmethod
    def parse(cls, text: str) -> Secret:
        """Read ``--secret``: ``id=x[,src=FILE|,env=NAME]``; without either, the variable or the file called ``x``."""
        fields = parse_fields(text)
        kind = fields.pop("type", "")
        id = fields.pop("id", "")
        source = fields.pop("src", "") or fields.pop("source", "")
        env = fields.pop("env", "")
        if kind == "env" and not env:
            env, source = source or id, ""
        if fields or kind not in ("", "file", "env") or not (id or source):
            raise UsageError(
                f"cannot read the secret {text!r}", code="invalid-secret", hint="id=NAME,src=FILE or id=NAME,env=NAME"
            )
        return cls(id or Path(source).name, source, env)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One build. Only ``context`` is needed; every field has the default of ``docker build``."""

    context: str | Path
    """A directory, the address of a git repository or of a file; ``-`` when ``context_data`` holds a tar or a Dockerfile."""
    context_data: bytes | None = None
    dockerfile: str | Path | None = None
    """Path; default ``Dockerfile`` in the context."""
    dockerfile_data: bytes | None = None
    """The Dockerfile itself, instead of a path."""
    target: str = ""
    tags: tuple[str, ...] = ()
    build_args: Mapping[str, str | None] = {}
    """A value of None takes that of the environment, if it has one."""
    labels: Mapping[str, str] = {}
    annotations: tuple[str, ...] = ()
    """``[LEVEL[[PLATFORM]],…:]KEY=VALUE``; LEVEL: manifest (the default), index, manifest-descriptor, index-descriptor."""
    attests: tuple[str, ...] = ()
    """``type=provenance[,mode=min|max][,version=v1|v0.2]…`` or ``type=sbom``; none: images without attestations."""
    reproducible: bool = False
    """The same digest whenever, wherever and by whomever it is built, if its steps do the same: all times of what is made are
    SOURCE_DATE_EPOCH, which is 1980-01-01 if nothing says it."""
    describe: str = ""
    """``min`` or ``max``: ``Result.provenance`` is wanted."""
    platform: str | tuple[str, ...] = ""
    """``os/architecture[/variant]``; several, with commas or as a tuple, make one image for each, under an index."""
    secrets: tuple[Secret, ...] = ()
    ssh: Mapping[str, str] = {}
    outputs: tuple[Output, ...] = ()
    """Text in the form of ``--output`` is read as :meth:`Output.parse` does."""
    push: bool = False
    load: bool = False
    """The running Docker or Podman gets the image, too, if there is one."""
    pull: bool = False
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    network: str = "default"
    isolation: str = "auto"
    build_contexts: Mapping[str, str | Request] = {}
    """Further contexts by name: a directory, ``docker-image://``, ``oci-layout://``, a git or http address,
    ``target:STAGE`` (that stage of this same build), or a Request, whose result it then is."""
    add_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    every_stage: bool | None = None
    """Build every stage up to the target, one after the other, as before BuildKit; None asks DOCKER_BUILDKIT."""
    root: str | Path | None = None
    """The store's directory; None: SHIPLAP_ROOT, else the user's data directory."""
    max_used_space: int = 0
    """Bytes that the store may take: what nobody uses goes before more is taken; 0: SHIPLAP_MAX_USED_SPACE, else no limit."""
    parallel: int = 0
    """Steps at the same time; 0 = four times the processors, at least 16: most wait for a network or for each other."""

    def __post_init__(self) -> None:
        if any(isinstance(output, str) for output in self.outputs):
            parsed = tuple(Output.parse(output) if isinstance(output, str) else output for output in self.outputs)
            msgspec.structs.force_setattr(self, "outputs", parsed)

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms asked for, in order; none: this machine's."""
        given = (self.platform,) if isinstance(self.platform, str) else self.platform
        return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


class StageResult(msgspec.Struct, frozen=True):
    """A stage of the Dockerfile; ``needed``: the target reaches it, so it was built or found in the cache."""

    index: int
    name: str
    needed: bool


class ImageResult(msgspec.Struct, frozen=True):
    """The image for one platform. ``digest`` is its manifest's; ``size``: bytes of config and layers as they are packed."""

    platform: str
    digest: str
    config_digest: str
    size: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a build gave. ``digest`` is that of the manifest or index, empty if no image was asked for; times in seconds."""

    digest: str = ""
    config_digest: str = ""
    """Of the one image; empty if there are several."""
    size: int = 0
    """Bytes of the manifest or index."""
    image_size: int = 0
    """Bytes of the configs and the layers, as they are packed."""
    media_type: str = ""
    annotations: Mapping[str, str] = {}
    """Those of the descriptor that points to the manifest or index."""
    platform: str = ""
    """Several with commas between."""
    images: tuple[ImageResult, ...] = ()
    """One for each platform, in the order asked for."""
    names: tuple[str, ...] = ()
    stages: tuple[StageResult, ...] = ()
    steps_run: tuple[str, ...] = ()
    steps_reused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    id: str = ""
    """Of the build's record (``shiplap logs``)."""
    provenance: Mapping[str, Any] = {}
    """SLSA 0.2 predicates by platform, if ``Request.describe`` asked for them."""
    seconds: float = 0.0
    timings: Mapping[str, float] = {}
    """Seconds by phase: ``plan``, ``solve``, ``export``."""
    outputs: tuple[str, ...] = ()
    """Files and directories written."""
