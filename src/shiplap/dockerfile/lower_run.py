"""RUN: command, heredocs, mounts, environment (reference 2.4)."""

from __future__ import annotations

from collections.abc import Callable

from shiplap.dockerfile import instructions
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import quote
from shiplap.dockerfile.heredoc import file_name, is_heredoc
from shiplap.dockerfile.lower_config import upper_keyword, with_shell
from shiplap.dockerfile.mounts import MountFlag, parse_mount
from shiplap.dockerfile.paths import join, without_nul
from shiplap.dockerfile.state import Ground, StageState
from shiplap.dockerfile.words import Lexer
from shiplap.graph.node import Node
from shiplap.graph.operations import NO_INPUT, Inline, Mount, Run
from shiplap.trees.patterns import clean

PIPES = "/dev/pipes"
HOSTNAME = "buildkitsandbox"

MountSource = Callable[[int, MountFlag], Ground | None]
"""The ground that the mount of a number takes files from; None for nothing. Raises Fault."""


def lower_run(state: StageState, run: instructions.Run, source_of: MountSource) -> None:
    """Add a RUN step to the stage."""
    expand = state.expander(run)
    flags = [parse_mount(text, expand) for text in run.mounts]
    args, files, summary = _command(state, run)
    inputs: list[Node] = [state.node] if state.node else []
    mounts = _Mounts(state, inputs, source_of).all(flags)
    env = dict(state.env)
    agents = [mount.target for mount in mounts if mount.kind == "ssh"]
    if agents:
        env.setdefault("SSH_AUTH_SOCK", agents[0])
    options = state.scene.options
    network = options.network if run.network == "default" else run.network
    _check_allowed(state, network, run.security)
    if run.devices:
        raise Fault(
            "device feature is only supported in Dockerfile frontend 1.14.0-labs or later",
            code="unsupported-device",
            hint="steps get no devices of this machine: leave --device away",
            at="--device",
        )
    pairs = tuple(without_nul(f"{name}={value}", f"variable {name}") for name, value in env.items())
    for argument in args:
        without_nul(argument, "RUN")
    state.scene.budget.spend(sum(map(len, pairs)))
    operation = Run(
        args=args,
        env=pairs,
        cwd=state.cwd,
        platform=str(state.platform),
        user=state.user,
        rootfs=0 if state.node else NO_INPUT,
        mounts=tuple(sorted(mounts, key=lambda mount: mount.target)),
        files=files,
        network=network,
        security=run.security,
        hostname=options.hostname or options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME") or HOSTNAME,
        extra_hosts=options.extra_hosts,
        shm_size=options.shm_size,
        ulimits=options.ulimits,
    )
    name = state.title(_step_text(state, run, summary, flags))
    history = _history(state, args)
    state.node = state.make(operation, tuple(inputs), name, run)
    state.layers += 1
    state.draft.record(f"RUN {history} # buildkit", layer=True)


def _command(state: StageState, run: instructions.Run) -> tuple[tuple[str, ...], tuple[Inline, ...], str]:
    """The argv, files for /dev/pipes, and what the step's name says of a heredoc."""
    args = run.args
    files: tuple[Inline, ...] = ()
    summary = ""
    if run.files:
        first = run.files[0]
        if is_heredoc(args[0]) is not None:
            if state.draft.os != "windows" and first.body.startswith("#!"):
                files = (Inline(file_name(first.name), first.body.encode("utf-8", "surrogateescape"), 0o755),)
                args = (join(PIPES, first.name),)
            else:
                args = (first.body,)
            lines = first.content.strip().replace("\r\n", "\n").split("\n")
            summary = f" ({lines[0]}{'...' if len(lines) > 1 else ''})"
        else:
            args = (args[0] + "".join(f"\n{file.content}{file.name}" for file in run.files),)
    if run.shell:
        args = with_shell(state, args)
    if not args:
        raise Fault("arguments are required", code="missing-argument", hint='write RUN ["program", "argument"]')
    return args, files, summary


def _history(state: StageState, args: tuple[str, ...]) -> str:
    """``|N A=1 B=2`` for the ARGs declared, in that order, then the argv."""
    values: dict[str, str] = {}
    for item in state.args:
        value = state.env.get(item.name)
        values[item.name] = f"{item.name}={(item.default or '') if value is None else value}"
    words = [f"|{len(values)}", *values.values(), *args] if values else list(args)
    return " ".join(words)


def _step_text(state: StageState, run: instructions.Run, summary: str, flags: list[MountFlag]) -> str:
    env = dict(state.env)
    env.update((flag.env, "****") for flag in flags if flag.kind == "secret" and flag.env)
    text = run.code + summary
    try:
        text = Lexer(state.scene.lexer.escape, raw_quotes=True, skip_unset=True).expand(text, env)
    except Fault:
        pass  # BuildKit, too, then shows the text as it stands.
    return upper_keyword(text)


def _check_allowed(state: StageState, network: str, security: str) -> None:
    for wanted, name in ((network == "host", "network.host"), (security == "insecure", "security.insecure")):
        if wanted and name not in state.scene.options.allow:
            raise Fault(f"{name} is not allowed", code="not-allowed", hint=f"build with --allow {name}")


class _Mounts:
    """Turns ``--mount`` flags into mounts; their inputs are added to those of the step, each once."""

    def __init__(self, state: StageState, inputs: list[Node], source_of: MountSource) -> None:
        self._state = state
        self._inputs = inputs
        self._numbers = {node.digest: number for number, node in enumerate(inputs)}
        self._source_of = source_of
        self._agents = 0

    def all(self, flags: list[MountFlag]) -> list[Mount]:
        return [getattr(self, f"_{flag.kind}")(number, flag) for number, flag in enumerate(flags)]

    def _input(self, number: int, flag: MountFlag) -> int:
        ground = self._source_of(number, flag)
        if ground is None or ground.node is None:
            return NO_INPUT
        node = ground.node
        if node.digest not in self._numbers:
            self._numbers[node.digest] = len(self._inputs)
            self._inputs.append(node)
        return self._numbers[node.digest]

    def _target(self, path: str) -> str:
        without_nul(path, "mount target")
        target = clean(path) if path.startswith("/") else join("/", self._state.cwd, path)
        if target == "/":
            raise Fault(f"invalid mount target {quote(target)}", code="invalid-mount", hint="add target=/path")
        return target

    def _bind(self, number: int, flag: MountFlag) -> Mount:
        return Mount(
            "bind",
            self._target(flag.target),
            source=join("/", without_nul(flag.source, "mount source")),
            input=self._input(number, flag),
            readonly=flag.readonly is not False,
        )

    def _cache(self, number: int, flag: MountFlag) -> Mount:
        source = join("/", without_nul(flag.source, "mount source"))
        given = flag.mode is not None or flag.uid is not None or flag.gid is not None
        seed = self._input(number, flag)
        own = given and source == "/"
        options = self._state.scene.options
        namespace = options.cache_namespace or options.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
        return Mount(
            "cache",
            self._target(flag.target),
            source=source,
            # With an owner or mode of its own the directory begins empty; a source has its own owner and mode.
            input=NO_INPUT if own else seed,
            readonly=flag.readonly is True,
            id=f"{namespace}/{flag.id or clean(flag.target)}",
            sharing=flag.sharing or "shared",
            mode=(0o755 if flag.mode is None else flag.mode) if own else None,
            uid=(flag.uid or 0) if own else 0,
            gid=(flag.gid or 0) if own else 0,
        )

    def _tmpfs(self, number: int, flag: MountFlag) -> Mount:
        return Mount("tmpfs", self._target(flag.target), readonly=flag.readonly is True, size=flag.size)

    def _secret(self, number: int, flag: MountFlag) -> Mount:
        secret = flag.source or flag.id or clean(flag.target).rpartition("/")[2]
        as_file = flag.env is None or bool(flag.target)
        target = flag.target or f"/run/secrets/{clean(secret).rpartition('/')[2]}"
        return Mount(
            "secret",
            self._target(target),
            id=secret,
            required=flag.required,
            mode=0o400 if flag.mode is None else flag.mode,
            uid=flag.uid or 0,
            gid=flag.gid or 0,
            env=flag.env or "",
            as_file=as_file,
        )

    def _ssh(self, number: int, flag: MountFlag) -> Mount:
        if flag.source:
            raise Fault(
                "ssh does not support source", code="invalid-mount", hint="choose an agent with id=", at="source"
            )
        target = flag.target or f"/run/buildkit/ssh_agent.{self._agents}"
        self._agents += 1
        return Mount(
            "ssh",
            self._target(target),
            readonly=False,
            id=flag.id or "default",
            required=flag.required,
            mode=0o600 if flag.mode is None else flag.mode,
            uid=flag.uid or 0,
            gid=flag.gid or 0,
        )
