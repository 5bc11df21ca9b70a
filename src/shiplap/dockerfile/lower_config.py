"""Instructions that change the config and the environment alone, and WORKDIR (reference 2.2, 2.3, 2.8 to 2.14)."""

from __future__ import annotations

from shiplap.dockerfile import checks, instructions
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import format_duration, quote, quote_list
from shiplap.dockerfile.instructions import ArgItem, Instruction
from shiplap.dockerfile.paths import normalize
from shiplap.dockerfile.state import HIDDEN_ARGS, StageState
from shiplap.graph.node import Node
from shiplap.graph.operations import NO_INPUT, FileChange, MakeDirectory
from shiplap.oci.config import Healthcheck
from shiplap.trees.patterns import clean

DEFAULT_SHELL = ("/bin/sh", "-c")
WINDOWS_SHELL = ("cmd", "/S", "/C")


def with_shell(state: StageState, args: tuple[str, ...]) -> tuple[str, ...]:
    """The argv of a shell form."""
    shell = state.draft.shell or (WINDOWS_SHELL if state.draft.os == "windows" else DEFAULT_SHELL)
    return (*shell, " ".join(args))


def lower_env(state: StageState, env: instructions.Env) -> None:
    expand = state.expander(env)
    # Every value sees the variables as they were before the instruction.
    pairs = [(expand(pair.name), expand(pair.value), pair.legacy) for pair in env.pairs]
    words = ["ENV"]
    for name, value, legacy in pairs:
        if legacy:
            _remark_legacy(state, env)
        _remark_secret(state, env, "ENV", name)
        words.append(f"{name}={value}")
        state.set_env(name, value)
        state.draft.set_env(name, value)
    state.draft.record(" ".join(words))


def lower_label(state: StageState, label: instructions.Label) -> None:
    expand = state.expander(label)
    words = ["LABEL"]
    for pair in label.pairs:
        name, value = expand(pair.name), expand(pair.value)
        if pair.legacy:
            _remark_legacy(state, label)
        state.draft.labels[name] = value
        words.append(f"{name}={value}")
    state.draft.record(" ".join(words))


def lower_arg(state: StageState, arg: instructions.Arg) -> None:
    scene = state.scene
    words = []
    for item in arg.items:
        _remark_secret(state, arg, "ARG", item.name)
        value = scene.options.build_args.get(item.name)
        if value is None and item.default is None:
            value = scene.global_args.get(item.name)
        elif value is None:
            value = state.expander(arg)(item.default or "")
        if value is not None and item.name not in HIDDEN_ARGS:
            state.set_env(item.name, value)
        state.args.append(ArgItem(item.name, value))
        words.append(item.name if value is None else f"{item.name}={value}")
    state.draft.record("ARG " + " ".join(words))


def lower_maintainer(state: StageState, maintainer: instructions.Maintainer) -> None:
    state.draft.author = maintainer.author
    state.draft.record(f"MAINTAINER {maintainer.author}")


def lower_cmd(state: StageState, cmd: instructions.Cmd) -> None:
    _remark_repeated(state, cmd)
    args = _command(state, cmd)
    state.draft.cmd = args
    state.draft.args_escaped = True
    state.draft.record(f"CMD {quote_list(args)}")


def lower_entrypoint(state: StageState, entrypoint: instructions.Entrypoint) -> None:
    _remark_repeated(state, entrypoint)
    args = _command(state, entrypoint)
    state.draft.entrypoint = args or None
    if "CMD" not in state.used:
        state.draft.cmd = None
    state.draft.record(f"ENTRYPOINT {quote_list(args)}")


def _command(state: StageState, instruction: instructions.Cmd | instructions.Entrypoint) -> tuple[str, ...]:
    if not instruction.shell:
        return instruction.args
    if not state.draft.shell:
        name = instruction.keyword
        text = f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
        state.remark("JSONArgsRecommended", text, instruction)
    return with_shell(state, instruction.args)


def lower_healthcheck(state: StageState, check: instructions.Healthcheck) -> None:
    _remark_repeated(state, check)
    state.draft.healthcheck = Healthcheck(
        test=check.test,
        interval=check.interval,
        timeout=check.timeout,
        start_period=check.start_period,
        start_interval=check.start_interval,
        retries=check.retries,
    )
    state.draft.record(
        f"HEALTHCHECK {{Test:[{' '.join(check.test)}] Interval:{format_duration(check.interval)}"
        f" Timeout:{format_duration(check.timeout)} StartPeriod:{format_duration(check.start_period)}"
        f" StartInterval:{format_duration(check.start_interval)} Retries:{check.retries}}}"
    )


def lower_user(state: StageState, user: instructions.User) -> None:
    state.user = state.draft.user = state.expander(user)(user.user)
    state.draft.record(f"USER {state.user}")


def lower_volume(state: StageState, volume: instructions.Volume) -> None:
    paths = [state.expander(volume)(path) for path in volume.paths]
    if not all(paths):
        raise Fault(
            "VOLUME specified can not be an empty string", code="empty-volume", hint="name a directory of the image"
        )
    state.draft.volumes.update((path, {}) for path in paths)
    state.draft.record(f"VOLUME [{' '.join(paths)}]")


def lower_stopsignal(state: StageState, stop: instructions.StopSignal) -> None:
    from shiplap.dockerfile.signals import is_signal

    signal = state.expander(stop)(stop.signal)
    if not is_signal(signal):
        raise Fault(f"invalid signal: {signal}", code="invalid-signal", hint="write SIGTERM or a number", at=signal)
    state.draft.stop_signal = signal
    state.draft.record(f"STOPSIGNAL {signal}")


def lower_shell(state: StageState, shell: instructions.Shell) -> None:
    state.draft.shell = shell.args
    state.draft.record(f"SHELL [{' '.join(shell.args)}]")


def lower_onbuild(state: StageState, onbuild: instructions.Onbuild) -> None:
    state.draft.on_build.append(onbuild.trigger)


def lower_expose(state: StageState, expose: instructions.Expose) -> None:
    from shiplap.dockerfile.ports import PORTS_LIMIT, parse_port

    words = [word for port in expose.ports for word in state.scene.lexer.split(port, state.env)]
    ports: list[str] = []
    for word in words:
        spec = parse_port(word)
        if spec.odd_case:
            text = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
            state.remark("ExposeProtoCasing", text, expose, at=word)
        if spec.mapped:
            text = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
            state.remark("ExposeInvalidFormat", text, expose, at=word)
        ports += spec.ports
        if len(ports) > PORTS_LIMIT:
            raise Fault(
                f"EXPOSE of more than {PORTS_LIMIT} ports",
                code="too-many-ports",
                hint="the image runs without EXPOSE, which is for those who read it: leave out what nobody needs to know",
            )
    state.draft.ports.update((port, {}) for port in ports)
    state.draft.record(f"EXPOSE [{' '.join(ports)}]")


def enter_directory(state: StageState, path: str) -> str:
    """Make ``path`` the working directory: absolute as it stands, relative joined to the present one."""
    directory = normalize(state.draft.working_dir, path, keep_slash=False)
    state.draft.working_dir = state.cwd = directory
    return directory


def lower_workdir(state: StageState, workdir: instructions.Workdir) -> None:
    path = state.expander(workdir)(workdir.path)
    if not state.workdir_set and not path.startswith("/"):
        text = f"Relative workdir {quote(path)} can have unexpected results if the base image changes"
        state.remark("WorkdirRelativePath", text, workdir, at=workdir.path)
    state.workdir_set = True
    directory = enter_directory(state, path)
    if directory != "/":
        name = state.title(step_text(state, workdir))
        operation = FileChange(
            (MakeDirectory(clean(directory), owner=state.draft.user),), base=0 if state.node else NO_INPUT
        )
        inputs: tuple[Node, ...] = (state.node,) if state.node else ()
        state.node = state.make(operation, inputs, name, workdir)
        state.layers += 1
    state.draft.record(f"WORKDIR {directory}", layer=directory != "/")


def step_text(state: StageState, instruction: Instruction) -> str:
    """An instruction as step names show it: expanded, its keyword in upper case; as it stands if that fails."""
    try:
        text = state.scene.lexer.expand(instruction.code, state.env)
    except Fault:
        text = instruction.code
    return upper_keyword(text)


def upper_keyword(text: str) -> str:
    keyword, space, rest = text.partition(" ")
    return keyword.upper() + space + rest


def _remark_legacy(state: StageState, instruction: Instruction) -> None:
    name = instruction.keyword
    text = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
    state.remark("LegacyKeyValueFormat", text, instruction)


def _remark_secret(state: StageState, instruction: Instruction, kind: str, name: str) -> None:
    if checks.is_secret_name(name):
        text = f"Do not use ARG or ENV instructions for sensitive data ({kind} {quote(name)})"
        state.remark("SecretsUsedInArgOrEnv", text, instruction, at=name)


def _remark_repeated(state: StageState, instruction: Instruction) -> None:
    kind = instruction.keyword.upper()
    earlier = state.used.get(kind)
    if earlier is not None:
        text = (
            f"Multiple {instruction.keyword} instructions should not be used in the same stage because only the last"
            " one will be used"
        )
        state.remark("MultipleInstructionsDisallowed", text, earlier)
    state.used[kind] = instruction
