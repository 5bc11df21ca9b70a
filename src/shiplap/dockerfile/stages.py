"""The stage table: which word means which stage, and what depends on what (reference 3.1 to 3.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.instructions import Copy, Instruction, Run, Stage
from shiplap.dockerfile.options import NamedContext
from shiplap.dockerfile.suggest import did_you_mean, nearest
from shiplap.dockerfile.words import Lexer
from shiplap.errors import UsageError
from shiplap.oci.platform import Platform

_INDEX = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


class Command:
    """An instruction of a stage, with the stages and images it takes files from."""

    __slots__ = ("instruction", "sources", "trigger")

    def __init__(
        self, instruction: Instruction, sources: tuple[Entry | str | None, ...], *, trigger: bool = False
    ) -> None:
        self.instruction = instruction
        self.sources = sources
        """COPY: one; RUN: one a mount. An entry, the name of an image, or None (the build context, or nothing)."""
        self.trigger = trigger
        """It came by ONBUILD."""


class Entry:
    """A stage with what its FROM came to."""

    def __init__(self, stage: Stage, base_name: str) -> None:
        self.stage = stage
        self.base_name = base_name
        """After expansion."""
        self.base: Entry | None = None
        self.platform: Platform | None = None
        """``--platform``, if given."""
        self.label = stage.name or f"stage-{stage.index}"
        """As step names show it; "" if it is the only one."""
        self.context: NamedContext | None = None
        """What replaces the stage."""
        self.context_name = ""
        self.commands: list[Command] = []
        self.triggered = False

    @property
    def index(self) -> int:
        return self.stage.index

    def needs(self) -> Iterator[Entry]:
        """The stages this one is made of; none if a named context replaces it."""
        if self.context is not None:
            return
        if self.base is not None:
            yield self.base
        yield from self.copied_from()

    def copied_from(self) -> Iterator[Entry]:
        for command in self.commands:
            for source in command.sources:
                if isinstance(source, Entry):
                    yield source


class StageTable:
    """All stages in order. Names are in lower case; of several with one name the latest counts."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._by_name: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Append; the base is looked up among the stages before it, and case counts."""
        self.entries.append(entry)
        if entry.context is None:
            entry.base = self._by_name.get(entry.base_name)
        if entry.stage.name:
            self._by_name[entry.stage.name] = entry

    def find(self, name: str) -> Entry | None:
        return self._by_name.get(name.lower())

    def names(self) -> list[str]:
        return [entry.label for entry in self.entries if entry.label]

    def target(self, name: str) -> Entry:
        """The stage to build: the last one if ``name`` is empty. Raises UsageError: no line of the Dockerfile is wrong."""
        if not name:
            return self.entries[-1]
        entry = self.find(name)
        if entry is None:
            match = nearest(name, self.names())
            known = ", ".join(stage_name for stage_name in self._by_name if stage_name)
            raise UsageError(
                f'target stage "{name}" could not be found{did_you_mean(name, self.names())}',
                code="unknown-target",
                hint=match or (f"the stages are {known[:200]}" if known else "name a stage with FROM image AS name"),
            )
        return entry

    def command(self, instruction: Instruction, *, trigger: bool = False) -> Command:
        """An instruction with its sources looked up. Raises Fault."""
        if isinstance(instruction, Copy) and instruction.from_:
            return Command(instruction, (self._copy_source(instruction.from_),), trigger=trigger)
        if isinstance(instruction, Run):
            sources: list[Entry | str | None] = []
            for name in instruction.mount_from:
                # A mount without ``from`` looks for a stage called "scratch": a cache would be seeded from it.
                sources.append(self.find(name or "scratch") or (name or None))
            return Command(instruction, tuple(sources), trigger=trigger)
        return Command(instruction, (), trigger=trigger)

    def _copy_source(self, name: str) -> Entry | str:
        if Lexer().expand(name, {}) != name:
            raise Fault(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global"
                " scope as a workaround",
                code="from-variable",
                hint="FROM $IMAGE AS alias, with a global ARG, then COPY --from=alias",
                at=name,
            )
        if _INDEX.fullmatch(name):
            index = int(name)
            if not 0 <= index < len(self.entries):
                raise Fault(
                    f"invalid stage index {index}",
                    code="unknown-stage",
                    hint=f"stages are counted from 0 to {len(self.entries) - 1}",
                    at=name,
                )
            return self.entries[index]
        return self.find(name) or name

    def check_cycles(self) -> tuple[Entry, Instruction] | None:
        """A stage that copies from itself in the end, and an instruction on the way; None if there is none."""
        done: set[int] = set()
        for start in self.entries:
            if start.index in done:
                continue
            path: dict[int, Entry] = {start.index: start}
            stack = [(start, _edges(start))]
            done.add(start.index)
            while stack:
                entry, edges = stack[-1]
                for command, source in edges:
                    if source.index in path:
                        return start, command.instruction
                    if source.index not in done:
                        done.add(source.index)
                        path[source.index] = source
                        stack.append((source, _edges(source)))
                        break
                else:
                    stack.pop()
                    del path[entry.index]
        return None


def _edges(entry: Entry) -> Iterator[tuple[Command, Entry]]:
    for command in entry.commands:
        for source in command.sources:
            if isinstance(source, Entry):
                yield command, source


def reachable(targets: Iterable[Entry]) -> set[int]:
    """The indexes of the stages that ``targets`` are made of, themselves included."""
    found: set[int] = set()
    stack = list(targets)
    while stack:
        entry = stack.pop()
        if entry.index not in found:
            found.add(entry.index)
            stack.extend(entry.needs())
    return found
