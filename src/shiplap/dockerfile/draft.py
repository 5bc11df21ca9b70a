"""The config of an image in the making."""

from __future__ import annotations

import copy
from typing import Any

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import valid
from shiplap.oci.config import ContainerConfig, Healthcheck, History, ImageConfig, RootFS
from shiplap.oci.platform import Platform, normalize

HISTORY_COMMENT = "buildkit.dockerfile.v0"
FILLER_COMMENT = "buildkit.exporter.image.v0"
TEXT_LIMIT = 64 << 20
"""Most text, in characters, that one lowering makes for environments and history together."""


class Budget:
    """Counts text made, for a small Dockerfile can ask for much: every RUN repeats every ARG."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = TEXT_LIMIT

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise Fault(
                f"variables and history take more than {TEXT_LIMIT} characters",
                code="expansion-too-large",
                hint="a long value is repeated for every instruction that sees it",
            )


class Draft:
    """An image config that instructions change. ``copy`` gives a stage that builds on this one its own."""

    __slots__ = (
        "_beneath",
        "_entries",
        "_from_image",
        "architecture",
        "args_escaped",
        "author",
        "budget",
        "cmd",
        "entrypoint",
        "env",
        "healthcheck",
        "labels",
        "on_build",
        "os",
        "os_features",
        "os_version",
        "ports",
        "rootfs",
        "shell",
        "stop_signal",
        "user",
        "variant",
        "volumes",
        "working_dir",
    )

    def __init__(self, config: ImageConfig, budget: Budget) -> None:
        inner = config.config
        self.budget = budget
        self.architecture = config.architecture
        self.os = config.os
        self.os_version = config.os_version
        self.os_features = config.os_features
        self.variant = config.variant
        self.author = config.author
        self._beneath: Draft | None = None
        self._from_image = config.history or ()
        self._entries: list[History] = []
        self.rootfs = config.rootfs
        self.user = inner.user
        self.ports: dict[str, dict[str, Any]] = dict(inner.exposed_ports or {})
        self.env: list[str] = list(inner.env or ())
        self.entrypoint = inner.entrypoint
        self.cmd = inner.cmd
        self.volumes: dict[str, dict[str, Any]] = dict(inner.volumes or {})
        self.working_dir = inner.working_dir
        self.labels: dict[str, str] = dict(inner.labels or {})
        self.stop_signal = inner.stop_signal
        self.args_escaped = inner.args_escaped
        self.healthcheck: Healthcheck | None = inner.healthcheck
        self.on_build: list[str] = list(inner.on_build or ())
        self.shell = inner.shell

    def copy(self) -> Draft:
        """One to build on: the triggers of ONBUILD are not inherited."""
        other = copy.copy(self)
        # A chain of ten thousand stages must not hold ten thousand copies of its history.
        other._beneath = self
        other._entries = []
        other.env = list(self.env)
        other.ports = dict(self.ports)
        other.volumes = dict(self.volumes)
        other.labels = dict(self.labels)
        other.on_build = []
        return other

    def set_env(self, name: str, value: str) -> None:
        """Replace a variable where it stands, or add it."""
        start = name + "="
        for number, item in enumerate(self.env):
            if item.startswith(start) or item == name:
                self.env[number] = start + value
                return
        self.env.append(start + value)

    def record(self, created_by: str, *, layer: bool = False) -> None:
        """Add an entry to the history."""
        self.budget.spend(len(created_by))
        self._entries.append(History(created_by=valid(created_by), comment=HISTORY_COMMENT, empty_layer=not layer))

    def _own_history(self) -> list[History]:
        parts: list[list[History]] = []
        draft: Draft | None = self
        while draft is not None:
            parts.append(draft._entries)
            draft = draft._beneath
        return [entry for part in reversed(parts) for entry in part]

    def fill(self, layers: int, created_by: str) -> None:
        """Add entries for layers of this build that no instruction made (a named context beneath), as BuildKit does."""
        made = sum(not entry.empty_layer for entry in self._own_history())
        for _ in range(layers - made):
            self._entries.append(History(created_by=created_by, comment=FILLER_COMMENT))

    def take_platform(self, platform: Platform) -> None:
        """Say what was asked for, whatever the base image said."""
        same = (self.os, self.architecture) == (platform.os, platform.architecture)
        self.os, self.architecture = platform.os, platform.architecture
        if platform.variant or not same:
            self.variant = platform.variant
        if platform.os_version or not same:
            self.os_version = platform.os_version

    def freeze(self) -> ImageConfig:
        """The config, its text made valid UTF-8 as Go's JSON does."""
        normal = normalize(self.os, self.architecture, self.variant, self.os_version) if self.os else None
        return ImageConfig(
            architecture=normal.architecture if normal else self.architecture,
            author=valid(self.author),
            config=ContainerConfig(
                user=valid(self.user),
                exposed_ports=self.ports or None,
                env=_texts(self.env),
                entrypoint=_texts(self.entrypoint),
                cmd=_texts(self.cmd),
                volumes={valid(path): value for path, value in self.volumes.items()} or None,
                working_dir=valid(self.working_dir),
                labels={valid(key): valid(value) for key, value in self.labels.items()} or None,
                stop_signal=self.stop_signal,
                args_escaped=self.args_escaped,
                healthcheck=self.healthcheck,
                on_build=_texts(self.on_build),
                shell=_texts(self.shell),
            ),
            history=(*self._from_image, *self._own_history()) or None,
            os=normal.os if normal else self.os,
            os_version=self.os_version,
            os_features=self.os_features,
            rootfs=RootFS(diff_ids=self.rootfs.diff_ids),
            variant=normal.variant if normal else self.variant,
        )


def _texts(items: list[str] | tuple[str, ...] | None) -> tuple[str, ...] | None:
    return tuple(map(valid, items)) if items else None
