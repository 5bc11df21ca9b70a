"""Remarks that need the stage graph: what no line is wrong about alone. shiplap's own, made by ``shiplap check`` only."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

from shiplap.dockerfile.checks import CheckConfig, Checks, Remark
from shiplap.dockerfile.instructions import Add, Copy, Dockerfile, Instruction, Run, Stage, Workdir

GRAPH_RULES: Mapping[str, str] = {
    "StageNeverReached": "A stage that the last one does not need is built by nobody who names no target",
    "CopyOfMissingPath": "COPY --from of a path that the stage cannot contain",
    "CacheHostileOrder": "The whole context is copied before dependencies are installed: any change installs them again",
    "SecretInLayer": "A secret that is written to a layer can be read by everybody who has the image",
    "CompilerInFinalStage": "The final stage carries its build tools; build in an earlier stage and copy the result",
}

_INSTALLS = re.compile(
    r"\b(?:pip3?|uv|poetry|pipenv|pdm) (?:install|sync|pip install)|\bnpm (?:ci|i|install)\b|\byarn(?: install| --|$)"
    r"|\bpnpm (?:i|install)\b|\bgo mod download|\bbundle install|\bcomposer install|\bcargo (?:fetch|build)"
    r"|\bmvn [^&;]*dependency:|\b(?:apt|apt-get) (?:-\S+ )*install|\bapk (?:-\S+ )*add|\b(?:dnf|yum|microdnf) (?:-\S+ )*install"
)
_COMPILERS = re.compile(
    r"\b(?:apt|apt-get|apk|dnf|yum|microdnf|zypper) .*\b(?:install|add)\b.*"
    r"\b(build-essential|build-base|gcc|g\+\+|clang|make|cmake|golang(?:-go)?|rustc|cargo|openjdk-\S+-jdk|maven)(?![\w.-])"
)
_COMPILER_IMAGES = frozenset(("golang", "rust", "gcc", "maven", "gradle", "clang"))
_SECRET_FILE = re.compile(
    r"(?:^|/)(?:\.env(?:\.\w+)?|id_(?:rsa|dsa|ecdsa|ed25519)|\.netrc|\.pypirc|\.git-credentials|\.aws/credentials|[^/]+\.(?:pem|p12|pfx|key)"
    r"|kubeconfig|service-account[^/]*\.json)$"
)
_SECRET_COPIED = re.compile(r"\b(?:cp|mv|install|cat|tee|dd)\b[^&;|\n]*/run/secrets/[^&;|\n]*")


def check_graph(dockerfile: Dockerfile, config: CheckConfig | None = None) -> tuple[Remark, ...]:
    """The remarks, by line. Nothing is expanded: a variable in a name is taken for one that could be anything."""
    checks = Checks(dockerfile.source, config or CheckConfig())
    graph = _Graph(dockerfile)
    for stage in dockerfile.stages:
        if stage.index not in graph.reached:
            name = f"stage {stage.name!r}" if stage.name else f"stage {stage.index}"
            text = f"{name} is not needed by the last stage: only --target builds it"
            checks.add("StageNeverReached", text, stage.origin.line, stage.origin.end_line, stage.origin.comments)
        _check_copies(checks, graph, stage)
        _check_order(checks, stage)
    for stage in graph.chain(dockerfile.stages[-1]):
        _check_secrets(checks, stage)
        _check_compilers(checks, stage)
    last = graph.chain(dockerfile.stages[-1])[-1].origin
    image = last.base.rpartition("/")[2].partition("@")[0].partition(":")[0]
    if image in _COMPILER_IMAGES:
        text = f"the result is made from {last.base}, with its compiler; copy what you built into a smaller base"
        checks.add("CompilerInFinalStage", text, last.line, last.end_line, last.comments, at=last.base)
    return checks.result()


class _Graph:
    """Which stage needs which."""

    def __init__(self, dockerfile: Dockerfile) -> None:
        self.stages = dockerfile.stages
        self._names: dict[str, Stage] = {}
        needs: dict[int, set[int]] = {}
        for stage in self.stages:
            found = [self.stage(stage.origin.base, stage.index, by_number=False)]
            for command in stage.commands:
                found += [self.stage(name, stage.index) for name in _sources(command)]
            needs[stage.index] = {other.index for other in found if other is not None}
            if stage.name:
                self._names[stage.name] = stage
        self.reached: set[int] = set()
        pending = [self.stages[-1].index]
        # A name with a variable in it may mean any stage.
        if any("$" in name for stage in self.stages for command in stage.commands for name in _sources(command)) or any(
            "$" in stage.origin.base for stage in self.stages
        ):
            pending = [stage.index for stage in self.stages]
        while pending:
            index = pending.pop()
            if index not in self.reached:
                self.reached.add(index)
                pending += needs[index]

    def stage(self, name: str, before: int, *, by_number: bool = True) -> Stage | None:
        """The stage that ``name`` means in stage number ``before``; None for an image, a context, or what is not known."""
        known = self._names.get(name.lower())
        if known is not None:
            return known
        return self.stages[int(name)] if by_number and name.isdecimal() and int(name) < before else None

    def chain(self, stage: Stage) -> list[Stage]:
        """The stage, the one it goes on from, and so on."""
        found = [stage]
        while (base := self._before(found[-1])) is not None:
            found.append(base)
        return found

    def _before(self, stage: Stage) -> Stage | None:
        named = [
            other for other in self.stages[: stage.index] if other.name and other.name == stage.origin.base.lower()
        ]
        return named[-1] if named else None


def _sources(command: Instruction) -> Iterator[str]:
    if isinstance(command, Copy) and command.from_:
        yield command.from_
    elif isinstance(command, Run):
        yield from (name for name in command.mount_from if name)


def _check_copies(checks: Checks, graph: _Graph, stage: Stage) -> None:
    for command in stage.commands:
        if not isinstance(command, Copy) or not command.from_:
            continue
        source = graph.stage(command.from_, stage.index)
        contents = _contents(graph, source) if source is not None else None
        if contents is None or source is None:
            continue
        for path in command.sources:
            wanted = posixpath.normpath("/" + path.lstrip("/"))
            if wanted == "/" or any(char in path for char in "*?[$"):
                continue
            if not any(_overlap(wanted, known) for known in contents):
                name = source.name or str(source.index)
                text = f"stage {name} holds no {wanted}: it begins from scratch, and nothing there writes it"
                checks.add("CopyOfMissingPath", text, command.line, command.end_line, command.comments, at=path)


def _contents(graph: _Graph, stage: Stage) -> list[str] | None:
    """What a stage that begins from scratch can hold at most; None if that cannot be known."""
    chain = graph.chain(stage)
    if chain[-1].origin.base != "scratch":
        return None
    found: list[str] = []
    workdir = "/"
    for link in reversed(chain):
        for command in link.commands:
            if isinstance(command, Run) or (isinstance(command, Add) and command.unpack is not False):
                return None
            if isinstance(command, Workdir):
                workdir = posixpath.normpath(posixpath.join(workdir, command.path))
                found.append(workdir)
            elif isinstance(command, Copy | Add):
                if "$" in command.dest or "$" in workdir:
                    return None
                found.append(posixpath.normpath(posixpath.join(workdir, command.dest)))
    return found


def _overlap(wanted: str, known: str) -> bool:
    # What is copied to a directory lies below it, under names that are not looked at here.
    return wanted == known or known == "/" or wanted.startswith(known + "/") or known.startswith(wanted + "/")


def _check_order(checks: Checks, stage: Stage) -> None:
    copied: Copy | Add | None = None
    for command in stage.commands:
        if isinstance(command, Copy | Add) and any(posixpath.normpath(path) in (".", "/") for path in command.sources):
            if not (isinstance(command, Copy) and command.from_) and copied is None:
                copied = command
        elif isinstance(command, Run) and copied is not None and (found := _INSTALLS.search(_script(command))):
            text = (
                f"line {command.line} installs ({found[0]}) after all of the context was copied: copy its lists first"
            )
            checks.add("CacheHostileOrder", text, copied.line, copied.end_line, copied.comments)
            return


def _check_secrets(checks: Checks, stage: Stage) -> None:
    for command in stage.commands:
        if isinstance(command, Copy | Add):
            for path in command.sources:
                if _SECRET_FILE.search(path) and not path.endswith((".pub", ".env.example")):
                    text = f"{path} looks like a secret, and COPY writes it to a layer: use RUN --mount=type=secret"
                    checks.add("SecretInLayer", text, command.line, command.end_line, command.comments, at=path)
        elif isinstance(command, Run) and (found := _SECRET_COPIED.search(_script(command))):
            words = found[0].strip()
            if words.startswith(("cp", "mv", "install", "tee", "dd")) or ">" in words:
                text = f"the step writes a mounted secret to its layer ({words[:60]}): read it where it is used"
                checks.add("SecretInLayer", text, command.line, command.end_line, command.comments)


def _check_compilers(checks: Checks, stage: Stage) -> None:
    for command in stage.commands:
        if isinstance(command, Run) and (found := _COMPILERS.search(_script(command))):
            if re.search(r"\b(?:purge|autoremove|del)\b", _script(command)):
                continue  # taken away again in the same step
            text = f"{found[1]} stays in the image: build in an earlier stage and copy the result"
            checks.add("CompilerInFinalStage", text, command.line, command.end_line, command.comments, at=found[1])


def _script(command: Run) -> str:
    return "\n".join((*_joined(command.args), *(file.content for file in command.files)))


def _joined(args: Sequence[str]) -> list[str]:
    return [" ".join(args)]
