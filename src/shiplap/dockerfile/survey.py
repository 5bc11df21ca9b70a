"""The part of lowering that needs no image: variables of FROM, the stage table, the target, what depends on what."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from shiplap.dockerfile import instructions as kinds
from shiplap.dockerfile.checks import CheckConfig, Checks, check_text, parse_check
from shiplap.dockerfile.draft import Budget
from shiplap.dockerfile.fault import Fault, Source
from shiplap.dockerfile.from_checks import check_from_args, check_platform
from shiplap.dockerfile.globals import global_args, platform_args
from shiplap.dockerfile.gotext import quote
from shiplap.dockerfile.grounds import SCRATCH, find_context, stage_reference
from shiplap.dockerfile.instructions import Dockerfile, Instruction, Stage
from shiplap.dockerfile.options import LowerOptions
from shiplap.dockerfile.stages import Entry, StageTable, reachable
from shiplap.dockerfile.state import Scene
from shiplap.dockerfile.suggest import did_you_mean
from shiplap.dockerfile.words import Lexer
from shiplap.errors import DockerfileError, Place, TreeError, UsageError
from shiplap.graph.node import About, Node
from shiplap.graph.operations import LocalSource
from shiplap.oci.platform import Platform, parse_platform
from shiplap.oci.reference import Reference
from shiplap.trees.patterns import PatternSet


def _why_no_platform(value: str) -> str:
    """In the words of containerd's platforms.Parse."""
    parts = value.split("/")
    if len(parts) > 3:
        return f"{quote(value)}: cannot parse platform specifier"
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", part):
            return (
                f"{quote(part)} is an invalid component of {quote(value)}: platform specifier component must match"
                ' "^[A-Za-z0-9_.-]+$"'
            )
    return f"{quote(value)}: unknown operating system or architecture"


class Located:
    """Gives a Fault the place of an instruction."""

    __slots__ = ("_instruction", "_source")

    def __init__(self, source: Source, instruction: Instruction) -> None:
        self._source = source
        self._instruction = instruction

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Fault):
            raise self._source.error(error, self._instruction.line, self._instruction.end_line) from None


class Survey:
    """A Dockerfile with the request applied: stages, their bases and sources, the target. Raises DockerfileError."""

    def __init__(
        self, dockerfile: Dockerfile, options: LowerOptions, *, all_stages: bool = False, checks: Checks | None = None
    ) -> None:
        self._all_stages = all_stages
        self.dockerfile = dockerfile
        self.options = options
        self.source = dockerfile.source
        self.lexer = Lexer(dockerfile.escape)
        self.given = options.build_args
        self.checks = checks or Checks(self.source, CheckConfig())
        self.checks.config = self._check_config(quiet=checks is not None)
        check_text(self.checks, dockerfile)
        last = dockerfile.stages[-1].name
        automatic = platform_args(options.build_platform, options.target_platform, options.target or last, self.given)
        check_from_args(self.checks, dockerfile, automatic, self.lexer)
        self.args = global_args(automatic, dockerfile.args, self.given, self.lexer, self.source)
        self.scene = self._make_scene()
        self.epoch = options.epoch
        if self.epoch is None:
            self._read_epoch()
        self.table = self._make_table()
        self.target = self.table.target(options.target)
        self._connect()
        if len(self.table.entries) == 1 and not self._names_images():
            self.table.entries[0].label = ""

    def _check_config(self, quiet: bool) -> CheckConfig:
        text = self.given.get("BUILDKIT_DOCKERFILE_CHECK", self.dockerfile.check or "")
        try:
            config = parse_check(text)
        except Fault as fault:
            fault.message = f"failed to parse check options: {fault.message}"
            raise self.source.error(fault, 1) from None
        return msgspec.structs.replace(config, error=False) if quiet else config

    def _make_scene(self) -> Scene:
        options = self.options
        local = Node(LocalSource("context", options.ignore), (), About("[internal] load build context"))
        ignores: Callable[[str], bool] = lambda path: False  # noqa: E731
        if options.ignore:
            try:
                rules = PatternSet(options.ignore)
            except TreeError as error:
                raise DockerfileError(
                    error.message, code=error.code, hint="mend the ignore file", where=Place(".dockerignore")
                ) from None
            everything = any(line in ("*", "**", "**/*") for line in options.ignore)
            if not rules.negated:
                ignores = lambda path: (path not in (".", "/") or everything) and rules.matches(path)  # noqa: E731
        return Scene(
            options,
            self.source,
            self.lexer,
            self.args,
            self.checks,
            Budget(),
            options.context or local,
            ignores,
        )

    def _read_epoch(self) -> None:
        """Find out the time that SOURCE_DATE_EPOCH means; from then on it is that number, or not given."""
        text = self.given.get("SOURCE_DATE_EPOCH", self.args.get("SOURCE_DATE_EPOCH", ""))
        if not text:
            return
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
            self.epoch = int(text)
            return
        from shiplap.dockerfile.epoch import NAME, resolve

        if (found := resolve(text, self)) is not None:
            self.epoch = found
        given = dict(self.given)
        for values in (given, self.args):
            if values.pop(NAME, None) is not None and self.epoch is not None:
                values[NAME] = str(self.epoch)
        self.given = given
        self.options = self.scene.options = msgspec.structs.replace(self.options, build_args=given)

    def _make_table(self) -> StageTable:
        table = StageTable()
        for stage in self.dockerfile.stages:
            with self.located(stage.origin):
                table.add(self._entry(stage))
        return table

    def _entry(self, stage: Stage) -> Entry:
        origin = stage.origin
        unmatched: set[str] = set()
        name = self.lexer.expand(origin.base, self.args, None, unmatched)
        check_platform(self.checks, self.dockerfile, origin, unmatched, self.args)
        if not name:
            raise Fault(
                f"base name ({origin.base}) should not be blank",
                code="blank-base",
                hint="give its ARG a value before the first FROM, or with --build-arg",
                at=origin.base,
            )
        entry = Entry(stage, name)
        if origin.platform:
            entry.platform = self._platform(origin.platform, origin)
        if stage.name:
            platform = entry.platform or self.options.target_platform
            found = find_context(self.scene, stage.name, platform)
            if found is not None:
                entry.context_name, entry.context = found
        return entry

    def _platform(self, text: str, origin: kinds.From) -> Platform:
        unmatched: set[str] = set()
        matched: set[str] = set()
        try:
            value = self.lexer.expand(text, self.args, matched, unmatched)
        except Fault as fault:
            fault.message = f"failed to process arguments for platform : {fault.message}"
            raise
        check_platform(self.checks, self.dockerfile, origin, unmatched, self.args, value, matched)
        meant = next((hint for name in sorted(unmatched) if (hint := did_you_mean(name, self.args))), "")
        if not value:
            raise Fault(
                f"empty platform value from expression {text}{meant}",
                code="invalid-platform",
                hint="give its ARG a value before the first FROM, or with --build-arg",
                at=text,
            )
        try:
            return parse_platform(value, self.options.build_platform)
        except UsageError as error:
            raise Fault(
                f"failed to parse platform {text}: {_why_no_platform(value)}: invalid argument{meant}",
                code=error.code,
                hint=error.hint,
                at=text,
            ) from None

    def _connect(self) -> None:
        for entry in self.table.entries:
            if entry.context is not None:
                continue
            for instruction in entry.stage.commands:
                with self.located(instruction):
                    entry.commands.append(self.table.command(instruction))
        cycle = self.table.check_cycles()
        if cycle is not None:
            entry, instruction = cycle
            fault = Fault(
                f"circular dependency detected on stage: {entry.label}",
                code="circular-dependency",
                hint="a stage can use earlier stages only",
            )
            raise self.source.error(fault, instruction.line, instruction.end_line)
        for entry in self.table.entries:
            if entry.base is None and entry.context is None and entry.base_name != SCRATCH:
                with self.located(entry.stage.origin):
                    stage_reference(entry.base_name)
            for command in entry.commands:
                for source in command.sources:
                    if isinstance(source, str) and source != SCRATCH:
                        with self.located(command.instruction):
                            stage_reference(source)

    def _names_images(self) -> bool:
        # BuildKit counts each image that COPY or a mount names, and each mount without ``from``, as a stage.
        return any(
            not isinstance(source, Entry)
            for entry in self.table.entries
            for command in entry.commands
            for source in command.sources
        )

    def wanted(self) -> list[Entry]:
        """The stages that have to be lowered, whatever they need aside."""
        if self._all_stages:
            return self.table.entries
        if not self.options.every_stage:
            return [self.target]
        return self.table.entries[: self.target.index + 1]

    def base_images(self) -> list[tuple[Reference, Platform]]:
        found: dict[tuple[Reference, Platform], None] = {}

        def add(name: str, platform: Platform) -> None:
            if name != SCRATCH:
                reference = stage_reference(name)
                if find_context(self.scene, str(reference), platform) is None:
                    found[reference, platform] = None

        for entry in self.reached():
            platform = entry.platform or self.options.target_platform
            with self.located(entry.stage.origin):
                if entry.context is not None:
                    if entry.context.kind == "image":
                        value = entry.context.value.removeprefix("docker-image:").removeprefix("//")
                        if value != SCRATCH:
                            found[stage_reference(value), platform] = None
                    continue
                if entry.base is None:
                    add(entry.base_name, platform)
                for command in entry.commands:
                    for source in command.sources:
                        if isinstance(source, str):
                            add(source, self.options.target_platform)
        return list(found)

    def reached(self) -> list[Entry]:
        """The stages wanted and what they need, in order."""
        indexes = reachable(self.wanted())
        return [entry for entry in self.table.entries if entry.index in indexes]

    def located(self, instruction: Instruction) -> Located:
        """Within: a Fault becomes a DockerfileError at ``instruction``."""
        return Located(self.source, instruction)
