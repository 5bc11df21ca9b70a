"""A stage while it is lowered: its graph so far, its variables, its config."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from shiplap.dockerfile.draft import Budget, Draft
from shiplap.dockerfile.fault import Source
from shiplap.dockerfile.instructions import ArgItem, Instruction
from shiplap.dockerfile.suggest import nearest
from shiplap.dockerfile.words import Lexer
from shiplap.errors import UsageError
from shiplap.graph.node import About, Node
from shiplap.graph.operations import Operation
from shiplap.oci.platform import Platform, normalize, parse_platform

if TYPE_CHECKING:
    from shiplap.dockerfile.checks import Checks
    from shiplap.dockerfile.options import LowerOptions, ResolvedImage
    from shiplap.dockerfile.stages import Entry

HIDDEN_ARGS = frozenset(("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"))
"""Never put into an environment."""


class Ground(msgspec.Struct):
    """What a stage begins with, or takes files from: the root file system (None: empty) and who it is."""

    node: Node | None
    draft: Draft
    platform: Platform
    base: ResolvedImage | None = None
    layers: int = 0
    """Layers that this build makes below or in it."""
    local: bool = False
    """A directory of the building machine: owners become root."""


class Scene(msgspec.Struct):
    """What all stages share."""

    options: LowerOptions
    source: Source
    lexer: Lexer
    global_args: dict[str, str]
    checks: Checks
    budget: Budget
    context: Node
    ignores: Callable[[str], bool]
    """Whether the ignore file surely hides a path of the main context."""


class StageState:
    """A stage that is being lowered. Instructions change it in order."""

    def __init__(self, entry: Entry, scene: Scene, ground: Ground, inherited: StageState | None) -> None:
        self.entry = entry
        self.scene = scene
        self.node = ground.node
        self.draft = ground.draft
        self.platform = ground.platform
        self.base = ground.base
        self.layers = ground.layers
        self.local = ground.local
        self.env: dict[str, str] = dict(inherited.env) if inherited else {}
        """For RUN and for expansion: in the order of last assignment, unlike the config's."""
        self.args: list[ArgItem] = list(inherited.args) if inherited else []
        """ARGs declared, with their values, those of the base stage first."""
        self.cwd: str = inherited.cwd if inherited else "/"
        self.user: str = inherited.user if inherited else ""
        self.workdir_set: bool = inherited.workdir_set if inherited else False
        self.used: dict[str, Instruction] = {}
        """CMD, ENTRYPOINT, HEALTHCHECK seen in this stage."""
        self.step = 0
        self.steps = 0
        self.trigger = False
        """The instruction being lowered came by ONBUILD."""

    @property
    def ground(self) -> Ground:
        """The stage as it is now, to copy from or to build on."""
        return Ground(self.node, self.draft, self.platform, self.base, self.layers, self.local)

    def set_env(self, name: str, value: str) -> None:
        """Assign a variable: it moves to the end, as in BuildKit."""
        self.env.pop(name, None)
        self.env[name] = value
        self.scene.budget.spend(len(name) + len(value))

    def expander(self, instruction: Instruction) -> Callable[[str], str]:
        """Expansion of words in this stage; names that are not known are remarked upon."""

        def expand(word: str) -> str:
            unmatched: set[str] = set()
            result = self.scene.lexer.expand(word, self.env, None, unmatched)
            if unmatched:
                self.remark_unknown(instruction, unmatched)
            return result

        return expand

    def remark_unknown(self, instruction: Instruction, names: set[str]) -> None:
        declared = {item.name for item in self.args} | HIDDEN_ARGS
        for name in sorted(names - declared):
            match = nearest(name, self.env)
            hint = f" (did you mean ${match}?)" if match else ""
            self.remark("UndefinedVar", f"Usage of undefined variable '${name}'{hint}", instruction, at=f"${name}")

    def remark(self, rule: str, message: str, instruction: Instruction, at: str = "") -> None:
        self.scene.checks.add(rule, message, instruction.line, instruction.end_line, instruction.comments, at)

    def title(self, text: str) -> str:
        """The name of the next step: ``[build 2/5] RUN make``."""
        if not self.steps:
            return text
        self.step += 1
        return self.numbered(text)

    def numbered(self, text: str) -> str:
        """``text`` with the number of the present step."""
        if not self.steps:
            return text
        where = f"{self.entry.label} " if self.entry.label else ""
        if self.scene.options.multi_platform:
            where = f"{self.platform}{self._crossing()} {where}"
        width = 1 + int(math.log10(self.steps))
        again = "ONBUILD " if self.trigger else ""
        return f"[{where}{self.step:>{width}}/{self.steps}] {again}{text}"

    def _crossing(self) -> str:
        # ``->arm64`` where a stage on one platform was told to make things for another.
        parts = {"TARGETOS": self.platform.os, "TARGETARCH": self.platform.architecture, "TARGETVARIANT": ""}
        seen = False
        for name, value in self.env.items():
            if name == "TARGETPLATFORM":
                try:
                    target = parse_platform(value, self.scene.options.build_platform)
                except UsageError:
                    continue
                return self._arrow(target)
            if name in parts:
                parts[name] = value or parts[name]
                seen = True
        return self._arrow(normalize(*parts.values())) if seen else ""

    def _arrow(self, target: Platform) -> str:
        if target.os != self.platform.os:
            return f"->{target}"
        if target.architecture != self.platform.architecture:
            return "->" + str(target).partition("/")[2]
        return ""

    def make(self, operation: Operation, inputs: tuple[Node, ...], name: str, instruction: Instruction) -> Node:
        """A node of this stage."""
        return Node(operation, inputs, self.about(name, instruction))

    def about(self, name: str, instruction: Instruction) -> About:
        options, stage = self.scene.options, self.entry.stage.name
        skip = options.no_cache or (bool(stage) and any(stage == one.lower() for one in options.no_cache_filter))
        return About(
            name,
            stage=stage or self.entry.label,
            instruction=instruction.keyword.upper(),
            place=self.scene.source.place(instruction.line, instruction.end_line),
            no_cache=skip,
            platform=f"{self.platform}{self._crossing()}" if options.multi_platform else "",
        )
