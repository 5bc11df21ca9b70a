"""What lowering takes and gives: options, images, plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from shiplap.dockerfile.checks import Remark
from shiplap.graph.node import Node
from shiplap.graph.operations import GitSource, HttpSource, LocalSource
from shiplap.oci.config import ImageConfig
from shiplap.oci.digest import Digest
from shiplap.oci.platform import Platform, native_platform
from shiplap.oci.reference import Reference


class NamedContext(msgspec.Struct, frozen=True):
    """What ``--build-context name=value`` puts in the place of a stage or an image.

    kind: ``local`` (a directory; ``value`` is what its source is called, ``ignore`` the lines of its own ignore file),
    ``image`` (``value`` is a reference, or ``scratch``), ``git`` and ``http`` (``value`` is the URL).
    """

    kind: str
    value: str
    ignore: tuple[str, ...] = ()


class LowerOptions(msgspec.Struct, frozen=True):
    """A build request, as far as it bears on the graph. Values are resolved: nothing here is looked up anywhere."""

    target: str = ""
    build_args: Mapping[str, str] = msgspec.field(default_factory=dict)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    target_platform: Platform = msgspec.field(default_factory=native_platform)
    build_platform: Platform = msgspec.field(default_factory=native_platform)
    explicit_platform: bool = False
    """The platform was asked for: the result's config says so even if the base image says something else."""
    multi_platform: bool = False
    """Several platforms are built: step names begin with theirs."""
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    network: str = "default"
    """``default``, ``host`` or ``none``: for every RUN that does not say."""
    extra_hosts: tuple[str, ...] = ()
    """``name=address``."""
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    """``name=soft:hard``."""
    hostname: str = ""
    contexts: Mapping[str, NamedContext] = msgspec.field(default_factory=dict)
    """By name as given, or ``name::os/arch`` for one platform."""
    context: Node | None = None
    """The main build context, if it comes from elsewhere; None is the local one, with ``ignore``."""
    ignore: tuple[str, ...] = ()
    every_stage: bool = False
    """``DOCKER_BUILDKIT=0``: all stages up to the target are built, in order."""
    cache_namespace: str = ""
    epoch: int | None = None
    """``SOURCE_DATE_EPOCH``, in seconds, whatever the build arguments say."""
    moments: Callable[[GitSource | HttpSource | LocalSource], int | None] | None = None
    """Asked for the time of a source, in seconds, if ``SOURCE_DATE_EPOCH`` names one; None: sources have no time."""
    allow: frozenset[str] = frozenset()
    """Entitlements: ``network.host``, ``security.insecure``."""


class ResolvedImage(msgspec.Struct, frozen=True):
    """An image by the digest of its manifest for one platform."""

    reference: Reference
    digest: Digest
    config: ImageConfig


class ImageResolver(Protocol):
    """Knows images. Asked only for those that the target reaches."""

    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        """The manifest of ``reference`` for ``platform``. Raises RegistryError or ImageError."""
        ...


class StagePlan(msgspec.Struct, frozen=True):
    """What became of a stage. ``node`` is None if the stage is empty, or was not ``needed``."""

    index: int
    name: str
    base: str
    node: Node | None
    needed: bool
    platform: Platform


class Plan(msgspec.Struct, frozen=True):
    """A Dockerfile as a graph, and the config of the image to come.

    ``config.history`` ends with this build's entries, whose times are to be filled in; those that make a layer stand
    in the order of the layer-making nodes. ``config.rootfs`` holds the diff ids of ``base`` alone.
    """

    target: Node | None
    """None: scratch without layers (or an image without any)."""
    config: ImageConfig
    base: ResolvedImage | None
    """The image whose layers lie beneath."""
    stages: tuple[StagePlan, ...]
    also: tuple[Node, ...] = ()
    """Nodes to build although the target does not need them (``every_stage``)."""
    warnings: tuple[Remark, ...] = ()
    epoch: int | None = None
    """``SOURCE_DATE_EPOCH`` as the options or a global ARG give it."""
