"""The eighteen instructions as frozen structs. Words are as written: nothing is expanded here."""

from __future__ import annotations

import msgspec

from shiplap.dockerfile.fault import Source


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """What every instruction has. ``keyword`` is as typed, ``code`` the joined line without heredoc bodies."""

    keyword: str
    code: str
    line: int
    end_line: int
    comments: tuple[str, ...] = ()
    """Comments right above: descriptions, and ``check=`` settings for this instruction alone."""


class ArgItem(msgspec.Struct, frozen=True):
    name: str
    default: str | None = None


class Arg(Instruction, frozen=True):
    items: tuple[ArgItem, ...]


class Pair(msgspec.Struct, frozen=True):
    name: str
    value: str
    legacy: bool = False
    """Written ``name value``, without ``=``."""


class Env(Instruction, frozen=True):
    pairs: tuple[Pair, ...]


class Label(Instruction, frozen=True):
    pairs: tuple[Pair, ...]


class Maintainer(Instruction, frozen=True):
    author: str


class InlineSource(msgspec.Struct, frozen=True):
    """A heredoc as a source of COPY or ADD: ``expand`` unless its delimiter was quoted."""

    name: str
    content: str
    expand: bool


class Add(Instruction, frozen=True):
    sources: tuple[str, ...]
    dest: str
    inline: tuple[InlineSource, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


class Copy(Instruction, frozen=True):
    sources: tuple[str, ...]
    dest: str
    inline: tuple[InlineSource, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


class ScriptFile(msgspec.Struct, frozen=True):
    """A heredoc of RUN: ``content`` is raw, ``body`` has its leading tabs taken away if it was ``<<-``."""

    name: str
    content: str
    body: str


class Run(Instruction, frozen=True):
    args: tuple[str, ...]
    """The argv, or the one text for the shell."""
    shell: bool
    files: tuple[ScriptFile, ...] = ()
    mounts: tuple[str, ...] = ()
    """Values of ``--mount``; their other keys than ``from`` are read when the stage is built, as in BuildKit."""
    mount_from: tuple[str, ...] = ()
    """``from=`` of each mount, "" if it has none."""
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    """Names of ``--device``."""


class Cmd(Instruction, frozen=True):
    args: tuple[str, ...]
    shell: bool


class Entrypoint(Instruction, frozen=True):
    args: tuple[str, ...]
    shell: bool


class Shell(Instruction, frozen=True):
    args: tuple[str, ...]


class Expose(Instruction, frozen=True):
    ports: tuple[str, ...]
    """Sorted as text, before expansion."""


class User(Instruction, frozen=True):
    user: str


class Volume(Instruction, frozen=True):
    paths: tuple[str, ...]


class Workdir(Instruction, frozen=True):
    path: str


class StopSignal(Instruction, frozen=True):
    signal: str


class Healthcheck(Instruction, frozen=True):
    """Times are nanoseconds, 0 means "inherit"."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Onbuild(Instruction, frozen=True):
    trigger: str
    """The text behind ONBUILD, with heredoc bodies."""


class From(Instruction, frozen=True):
    """``base`` and ``platform`` are as written; ``name`` is in lower case, "" if there is none."""

    base: str
    name: str = ""
    name_typed: str = ""
    as_typed: str = ""
    """The word ``AS`` as typed."""
    platform: str = ""


class Stage(msgspec.Struct, frozen=True):
    """FROM and what follows it."""

    index: int
    origin: From
    commands: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.origin.name


class Dockerfile(msgspec.Struct, frozen=True):
    """A parsed Dockerfile: global ARGs, stages, and what its directives said."""

    source: Source
    escape: str
    args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    syntax: str | None = None
    """``# syntax=``: told, never run."""
    check: str | None = None
    empty_continuations: tuple[int, ...] = ()
    """Last lines of instructions with a blank line inside."""

    @property
    def name(self) -> str:
        return self.source.name
