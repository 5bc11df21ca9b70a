"""``lower``: a parsed Dockerfile to a graph and an image config. The same text gives the same graph on any machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shiplap.dockerfile import instructions as kinds
from shiplap.dockerfile import lower_config, lower_copy, lower_run
from shiplap.dockerfile.checks import CheckConfig, Checks, Remark
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.grounds import SCRATCH, Grounds, as_root
from shiplap.dockerfile.instructions import Add, Copy, Dockerfile, Instruction, Onbuild, Run, Workdir
from shiplap.dockerfile.mounts import MountFlag
from shiplap.dockerfile.options import ImageResolver, LowerOptions, Plan, StagePlan
from shiplap.dockerfile.parse import parse_trigger
from shiplap.dockerfile.stages import Command, Entry, StageTable
from shiplap.dockerfile.state import Ground, StageState
from shiplap.dockerfile.survey import Survey
from shiplap.errors import DockerfileError, ShiplapError
from shiplap.graph.node import About, Node
from shiplap.graph.operations import LocalSource
from shiplap.oci.config import DEFAULT_PATH
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference

_LOWER: dict[type[Instruction], Callable[[StageState, Any], None]] = {
    kinds.Arg: lower_config.lower_arg,
    kinds.Cmd: lower_config.lower_cmd,
    kinds.Entrypoint: lower_config.lower_entrypoint,
    kinds.Env: lower_config.lower_env,
    kinds.Expose: lower_config.lower_expose,
    kinds.Healthcheck: lower_config.lower_healthcheck,
    kinds.Label: lower_config.lower_label,
    kinds.Maintainer: lower_config.lower_maintainer,
    kinds.Onbuild: lower_config.lower_onbuild,
    kinds.Shell: lower_config.lower_shell,
    kinds.StopSignal: lower_config.lower_stopsignal,
    kinds.User: lower_config.lower_user,
    kinds.Volume: lower_config.lower_volume,
    kinds.Workdir: lower_config.lower_workdir,
}


def lower(dockerfile: Dockerfile, options: LowerOptions, images: ImageResolver) -> Plan:
    """The graph and config of ``options.target``; ``images`` is asked only for what the target reaches.

    Raises DockerfileError with BuildKit's message and the place, and what ``images`` raises, with the place added.
    """
    return Lowering(dockerfile, options).lower(images)


class Lowering:
    """``lower`` in two parts, so that images can be fetched side by side before the second."""

    def __init__(self, dockerfile: Dockerfile, options: LowerOptions) -> None:
        """Look over the stages. Raises what ``lower`` would raise before it asks for the first image."""
        self._survey = Survey(dockerfile, options)

    def base_images(self) -> list[tuple[Reference, Platform]]:
        """The images that ``lower`` is going to ask for, each once, as far as the text tells (ONBUILD may add more)."""
        return self._survey.base_images()

    def lower(self, images: ImageResolver) -> Plan:
        """The plan; once. Raises as the function of this name."""
        return _Lowering(self._survey, images).run()


def check(
    dockerfile: Dockerfile, options: LowerOptions, images: ImageResolver
) -> tuple[tuple[Remark, ...], ShiplapError | None]:
    """The remarks on all stages (or on those that ``options.target`` needs), in the order in which BuildKit tells them, and
    the error that ended the search, if one did. ``error=true`` of a check directive is no error here.
    """
    checks = Checks(dockerfile.source, CheckConfig())
    try:
        survey = Survey(dockerfile, options, all_stages=not options.target, checks=checks)
        _Lowering(survey, images).run()
    except ShiplapError as error:
        return tuple(checks.remarks), error
    return tuple(checks.remarks), None


class _Lowering:
    def __init__(self, survey: Survey, images: ImageResolver) -> None:
        self.survey = survey
        self._grounds = Grounds(survey.scene, images, survey.table.names())
        self._states: dict[int, StageState] = {}
        self._roots: dict[int, Ground] = {}

    def run(self) -> Plan:
        while fresh := [entry for entry in self.survey.reached() if not entry.triggered]:
            for entry in fresh:
                self._trigger(entry)
        reached = self.survey.reached()
        # What a named context replaces is there from the beginning, wherever it stands.
        for entry in sorted(reached, key=lambda entry: entry.context is None):
            self._lower_stage(entry)
        target = self._states[self.survey.target.index]
        return self._plan(target, {entry.index for entry in reached})

    def _trigger(self, entry: Entry) -> None:
        """Find the file system a stage begins with, and put the triggers of ONBUILD before its instructions."""
        entry.triggered = True
        origin = entry.stage.origin
        place = self.survey.source.place(origin.line, origin.end_line)
        with self.survey.located(origin):
            if entry.context is not None:
                platform = entry.platform or self.survey.options.target_platform
                self._roots[entry.index] = self._grounds.context(entry.context_name, entry.context, platform, place)
                return
            if entry.base is not None:
                triggers = [
                    command.instruction.trigger
                    for command in entry.base.commands
                    if isinstance(command.instruction, Onbuild)
                ]
            else:
                if entry.base_name == SCRATCH:
                    ground = self._grounds.empty(self.survey.options.target_platform)
                else:
                    ground = self._grounds.image(entry.base_name, entry.platform, place)
                if ground.node is not None and ground.base is not None:
                    self._check_base(entry, ground)
                self._roots[entry.index] = as_root(ground, place)
                triggers = list(ground.draft.on_build)
                ground.draft.on_build = []
            commands = [self._triggered(text, origin) for text in triggers]
            entry.commands[:0] = commands

    def _triggered(self, text: str, origin: kinds.From) -> Command:
        try:
            instruction = parse_trigger(text)
        except DockerfileError as error:
            raise Fault(error.message, code=error.code, hint=error.hint) from None
        if isinstance(instruction, kinds.From):
            raise Fault(
                "FROM isn't allowed as an ONBUILD trigger",
                code="invalid-trigger",
                hint="a trigger cannot begin a stage",
            )
        # The text is not in this Dockerfile: the FROM that brought it is the place.
        moved = _moved(instruction, origin)
        return self.survey.table.command(moved, trigger=True)

    def _check_base(self, entry: Entry, ground: Ground) -> None:
        assert ground.base is not None
        config, wanted = ground.base.config, ground.platform
        if (config.os, config.architecture) != (wanted.os, wanted.architecture):
            origin = entry.stage.origin
            text = (
                f'Base image {entry.base_name} was pulled with platform "{config.platform}", expected "{wanted}" for'
                " current build"
            )
            self.survey.checks.add("InvalidBaseImagePlatform", text, origin.line, origin.end_line, origin.comments)

    def _lower_stage(self, entry: Entry) -> None:
        base = self._states[entry.base.index] if entry.base is not None and entry.context is None else None
        origin = entry.stage.origin
        place = self.survey.source.place(origin.line, origin.end_line)
        if base is None:
            ground = self._roots[entry.index]
        else:
            ground = as_root(base.ground, place)
            ground.draft = base.draft.copy()
        state = StageState(entry, self.survey.scene, ground, base)
        self._states[entry.index] = state
        if entry.context is not None:
            return
        named = entry.base_name != SCRATCH and entry.base is None
        state.steps = named + sum(
            # BuildKit counts every trigger, also those that make no step.
            command.trigger or isinstance(command.instruction, Add | Copy | Run | Workdir)
            for command in entry.commands
        )
        self._begin(state)
        if named and state.node is not None and state.node.about.name.startswith("FROM "):
            about = About(state.title(state.node.about.name), stage=entry.label, instruction="FROM", place=place)
            state.node = Node(state.node.operation, (), about)
        for command in entry.commands:
            state.trigger = command.trigger
            with self.survey.located(command.instruction):
                self._lower_command(state, command)

    def _begin(self, state: StageState) -> None:
        draft = state.draft
        if state.platform.os != "windows" and not any(item.partition("=")[0] == "PATH" for item in draft.env):
            draft.env.append(f"PATH={DEFAULT_PATH}")
        for item in draft.env:
            name, _, value = item.partition("=")
            state.env.pop(name, None)
            state.env[name] = value
        if draft.working_dir:
            lower_config.enter_directory(state, draft.working_dir)
        if draft.user:
            state.user = draft.user

    def _lower_command(self, state: StageState, command: Command) -> None:
        instruction = command.instruction
        if isinstance(instruction, Run):

            def source_of(number: int, flag: MountFlag) -> Ground | None:
                return self._mount_ground(state, command, number, flag)

            lower_run.lower_run(state, instruction, source_of)
        elif isinstance(instruction, Copy | Add):
            lower_copy.lower_copy(state, instruction, self._copy_ground(state, command))
        else:
            _LOWER[type(instruction)](state, instruction)

    def _copy_ground(self, state: StageState, command: Command) -> Ground:
        if not command.sources:
            return self._context_ground(state)
        source = command.sources[0]
        ground = self._source_ground(source, command.instruction)
        if ground is None:
            assert isinstance(command.instruction, Copy)
            raise Fault(
                f'cannot copy from stage "{command.instruction.from_}", it needs to be defined before current stage'
                f' "{state.entry.label}"',
                code="stage-order",
                hint="of several stages with one name the last is meant"
                if _twice(self.survey.table, source)
                else "a stage can use earlier stages only",
                at=command.instruction.from_,
            )
        return ground

    def _mount_ground(self, state: StageState, command: Command, number: int, flag: MountFlag) -> Ground | None:
        if flag.kind == "tmpfs":
            return None
        source = command.sources[number]
        if not flag.source_stage and (flag.kind != "cache" or source is None):
            return None if flag.kind == "cache" else self._context_ground(state)
        ground = self._source_ground(source, command.instruction)
        if ground is None:
            raise Fault(
                f'cannot mount from stage "{flag.source_stage or SCRATCH}" to "{flag.target}", stage needs to be'
                " defined before current command",
                code="stage-order",
                hint="a step can use earlier stages only",
                at=flag.source_stage,
            )
        return ground

    def _context_ground(self, state: StageState) -> Ground:
        local = isinstance(self.survey.scene.context.operation, LocalSource)
        return Ground(self.survey.scene.context, state.draft, state.platform, local=local)

    def _source_ground(self, source: Entry | str | None, instruction: Instruction) -> Ground | None:
        """What another stage or an image holds; None for a stage that was not lowered yet."""
        if isinstance(source, Entry):
            state = self._states.get(source.index)
            if state is None:
                return None
            return state.ground
        place = self.survey.source.place(instruction.line, instruction.end_line)
        return self._grounds.image(source or SCRATCH, None, place)

    def _plan(self, target: StageState, needed: set[int]) -> Plan:
        origin = target.entry.stage.origin
        options = self.survey.options
        ground = as_root(target.ground, self.survey.source.place(origin.line, origin.end_line))
        draft = target.draft.copy()
        draft.on_build = list(target.draft.on_build)
        draft.labels.update(options.labels)
        if options.explicit_platform or not draft.os:
            draft.take_platform(options.target_platform)
        draft.fill(ground.layers, _filler(target))
        with self.survey.located(origin):
            warnings = self.survey.checks.result()
        plans = []
        for entry in self.survey.table.entries:
            state = self._states.get(entry.index)
            platform = state.platform if state else entry.platform or options.target_platform
            node = state.node if state else None
            name = entry.stage.name
            plans.append(StagePlan(entry.index, name, entry.base_name, node, entry.index in needed, platform))
        also = []
        if options.every_stage:
            also = [
                state.node
                for entry in self.survey.wanted()
                if (state := self._states[entry.index]).node is not None and entry is not target.entry
            ]
        return Plan(
            ground.node,
            draft.freeze(),
            target.base,
            tuple(plans),
            tuple(node for node in also if node is not None),
            warnings,
            self.survey.epoch,
        )


def _moved(instruction: Instruction, origin: kinds.From) -> Instruction:
    return msgspec.structs.replace(instruction, line=origin.line, end_line=origin.end_line, comments=origin.comments)


def _twice(table: StageTable, source: Entry | str | None) -> bool:
    return isinstance(source, Entry) and sum(entry.stage.name == source.stage.name for entry in table.entries) > 1


def _filler(target: StageState) -> str:
    return target.node.about.name if target.node is not None else ""
