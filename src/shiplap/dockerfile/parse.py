"""``parse``: the bytes of a Dockerfile to its stages of typed instructions."""

from __future__ import annotations

import msgspec

from shiplap.dockerfile.directives import detect_syntax
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.instructions import Arg, Dockerfile, From, Instruction, Stage
from shiplap.dockerfile.lines import Lines
from shiplap.dockerfile.reader import read_instruction
from shiplap.dockerfile.statement import Statement, parse_statement, takes_heredocs


def parse(data: bytes, name: str = "Dockerfile") -> Dockerfile:
    """Read a Dockerfile; ``name`` is its path as the user wrote it.

    Every instruction of every stage is checked, reachable or not. Raises DockerfileError with BuildKit's message, the
    lines and, where there is one, a hint. Bounds: 16 MiB, 500,000 lines, 20,000 instructions, 65535 bytes a line.
    """
    lines = Lines(data, name)
    if not data:
        raise lines.source.error(
            Fault("the Dockerfile cannot be empty", code="empty-dockerfile", hint="begin with FROM image"), 1
        )
    statements, blanks = _statements(lines)
    if not statements:
        raise lines.source.error(
            Fault("file with no instructions", code="empty-dockerfile", hint="begin with FROM image"),
            max(len(lines), 1),
        )
    late = lines.end()
    if late is not None:
        raise late
    args: list[Arg] = []
    stages: list[Stage] = []
    origin: From | None = None
    commands: list[Instruction] = []
    for statement in statements:
        try:
            instruction = read_instruction(statement)
        except Fault as fault:
            prefix = f"dockerfile parse error on line {statement.line}: "
            raise lines.source.error(fault, statement.line, statement.end_line, prefix=prefix) from None
        if isinstance(instruction, From):
            if origin is not None:
                stages.append(Stage(len(stages), origin, tuple(commands)))
            origin, commands = instruction, []
        elif origin is not None:
            commands.append(instruction)
        elif isinstance(instruction, Arg):
            args.append(instruction)
        else:
            missing = Fault(
                "no build stage in current context",
                code="no-stage",
                hint="put FROM before it; only ARG may come first",
                at=statement.keyword,
            )
            raise lines.source.error(missing, statement.line, statement.end_line)
    if origin is None:
        raise lines.source.error(
            Fault("dockerfile contains no stages to build", code="no-stage", hint="add FROM image"), len(lines)
        )
    stages.append(Stage(len(stages), origin, tuple(commands)))
    return Dockerfile(
        lines.source,
        lines.directives.escape,
        tuple(args),
        tuple(stages),
        detect_syntax(data),
        lines.directives.found.get("check"),
        blanks,
    )


def parse_trigger(text: str) -> Instruction:
    """The instruction of an ONBUILD trigger. Raises Fault; places are those of the trigger's own text."""
    lines = Lines(text.encode("utf-8", "surrogateescape"), "ONBUILD")
    statements, _ = _statements(lines)
    if len(statements) != 1:
        raise Fault(
            "onbuild trigger should be a single expression",
            code="invalid-trigger",
            hint="one instruction in one ONBUILD",
        )
    return read_instruction(statements[0])


def _statements(lines: Lines) -> tuple[list[Statement], tuple[int, ...]]:
    statements: list[Statement] = []
    blanks: list[int] = []

    def takes(text: str) -> bool:
        return takes_heredocs(text, lines.directives.escape)

    for logical in lines.read(takes):
        if logical.empty_continuation:
            blanks.append(logical.joined_at)
        try:
            statement = parse_statement(logical.text, lines.directives.escape)
        except Fault as fault:
            raise lines.source.error(fault, logical.line, logical.joined_at) from None
        statements.append(
            msgspec.structs.replace(
                statement,
                heredocs=logical.heredocs,
                line=logical.line,
                end_line=logical.end_line,
                comments=logical.comments,
            )
        )
    return statements, tuple(blanks)
