"""The image config and its history, field for field as BuildKit writes them (OCI image specification 1.1)."""

# Annotations are values here: msgspec would evaluate each one's text (1.5 ms of every start).
from typing import Any

import msgspec

from shiplap.errors import ImageError
from shiplap.oci.digest import Digest, parse_digest
from shiplap.oci.manifest import decode_json, encode_json, prepare, without_nulls
from shiplap.oci.platform import Platform, normalize

CONFIG_LIMIT = 4 << 20
"""Largest config blob that is read, in bytes."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Times are nanoseconds; 0 means "inherit"."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """The ``config`` object: how a container of the image starts. Fields stand in the order in which Go writes them."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    args_escaped: bool = False
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] | None = None
    shell: tuple[str, ...] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of an image's making. ``created`` is RFC 3339 text, kept as it was read."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: tuple[Digest, ...] | None = None


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image config. What is not named here is not carried on, as in BuildKit."""

    architecture: str = ""
    author: str = ""
    config: ContainerConfig = msgspec.field(default_factory=ContainerConfig)
    created: str | None = None
    history: tuple[History, ...] | None = None
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")
    rootfs: RootFS = msgspec.field(default_factory=RootFS)
    variant: str = ""

    @property
    def platform(self) -> Platform:
        return normalize(self.os, self.architecture, self.variant, self.os_version)

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return self.rootfs.diff_ids or ()


prepare(ImageConfig)


def parse_config(raw: bytes) -> ImageConfig:
    """Read a config blob; nulls are taken for absent, and malformed fields raise ImageError."""
    if len(raw) > CONFIG_LIMIT:
        raise ImageError(f"image config of {len(raw)} bytes is over the limit", code="config-too-large")
    fields = without_nulls(decode_json(raw, dict[str, Any], "image config"), "image config")
    try:
        config = msgspec.convert(fields, ImageConfig)
    except msgspec.MsgspecError as error:
        raise ImageError(f"image config cannot be read: {error}", code="invalid-config") from None
    for diff_id in config.diff_ids:
        parse_digest(diff_id)
    return config


def empty_config(platform: Platform) -> ImageConfig:
    """The config of ``FROM scratch`` on ``platform``."""
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        os_version=platform.os_version,
        variant=platform.variant,
        config=ContainerConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir="/"),
    )


def encode_config(config: ImageConfig) -> bytes:
    """The config's bytes: top-level keys sorted (BuildKit patches a map), the rest in Go's struct order."""
    inner: dict[str, Any] = {}
    for field in msgspec.structs.fields(ContainerConfig):
        value = getattr(config.config, field.name)
        if value:
            inner[field.encode_name] = dict(sorted(value.items())) if isinstance(value, dict) else value
    if config.config.healthcheck is not None:
        inner["Healthcheck"] = config.config.healthcheck
    fields: dict[str, Any] = {
        "architecture": config.architecture,
        "config": inner,
        "created": config.created,
        "history": config.history or None,
        "os": config.os,
        "rootfs": config.rootfs,
    }
    for name, value in (
        ("author", config.author),
        ("os.version", config.os_version),
        ("os.features", config.os_features),
        ("variant", config.variant),
    ):
        if value:
            fields[name] = value
    return encode_json(dict(sorted(fields.items())))
