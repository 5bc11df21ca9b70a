"""Statements to typed instructions, one function a kind, with BuildKit's messages (reference 1.5 to 1.8, 2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypedDict

from shiplap.dockerfile import instructions as kinds
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.flags import BOOLEAN, LIST, TEXT, Flags
from shiplap.dockerfile.gotext import SPACE, parse_duration, quote
from shiplap.dockerfile.heredoc import is_heredoc
from shiplap.dockerfile.instructions import Instruction
from shiplap.dockerfile.mounts import device_name, mount_from
from shiplap.dockerfile.statement import KEYWORDS, Statement
from shiplap.dockerfile.suggest import did_you_mean, nearest

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")
_ONBUILD = re.compile(r"^[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE)


class Frame(TypedDict):
    keyword: str
    code: str
    line: int
    end_line: int
    comments: tuple[str, ...]


def read_instruction(statement: Statement) -> Instruction:
    """The instruction that ``statement`` is. Raises Fault."""
    read = _READERS.get(statement.kind)
    if read is None:
        options = [keyword.upper() for keyword in sorted(KEYWORDS)]
        suggestion = did_you_mean(statement.keyword, options, case_sensitive=False)
        match = nearest(statement.keyword, options, case_sensitive=False)
        raise Fault(
            f"unknown instruction: {statement.keyword}{suggestion}",
            code="unknown-instruction",
            hint=match or "one of " + ", ".join(options),
            at=statement.keyword,
        )
    return read(statement)


def _frame(statement: Statement) -> Frame:
    return Frame(
        keyword=statement.keyword,
        code=statement.original.strip(SPACE),
        line=statement.line,
        end_line=statement.end_line,
        comments=statement.comments,
    )


_FORMS = {
    "ARG": "write ARG name[=default]",
    "ENV": "write ENV name=value",
    "EXPOSE": "write EXPOSE port[/protocol]",
    "HEALTHCHECK": "HEALTHCHECK CMD … or HEALTHCHECK NONE",
    "LABEL": "write LABEL name=value",
    "MAINTAINER": "write LABEL org.opencontainers.image.authors=…",
    "ONBUILD": "write ONBUILD and an instruction",
    "SHELL": 'write ["/bin/bash", "-c"]',
    "STOPSIGNAL": "write STOPSIGNAL SIGTERM",
    "USER": "write USER name[:group]",
    "VOLUME": "write VOLUME /path",
    "WORKDIR": "write WORKDIR /path",
}


def _no_flags(statement: Statement) -> None:
    Flags(statement.flags, {})


def _at_least_one(name: str) -> Fault:
    return Fault(f"{name} requires at least one argument", code="missing-argument", hint=_FORMS[name])


def _only(statement: Statement) -> str:
    if len(statement.args) != 1:
        raise Fault(
            f"{statement.kind.upper()} requires exactly one argument",
            code="missing-argument",
            hint=_FORMS[statement.kind.upper()],
        )
    return statement.args[0]


def _read_from(statement: Statement) -> Instruction:
    args = statement.args
    typed = name = as_word = ""
    if len(args) == 3 and args[1].lower() == "as":
        as_word, typed = args[1:]
        name = typed.lower()
        if not _STAGE_NAME.fullmatch(name):
            raise Fault(
                f"invalid name for build stage: {quote(typed)}, name can't start with a number or contain symbols",
                code="invalid-stage-name",
                hint="use letters, digits and - _ . after a letter",
                at=typed,
            )
    elif len(args) != 1:
        raise Fault(
            "FROM requires either one or three arguments", code="invalid-from", hint="write FROM image [AS name]"
        )
    flags = Flags(statement.flags, {"platform": TEXT})
    return kinds.From(
        base=args[0],
        name=name,
        name_typed=typed,
        as_typed=as_word,
        platform=flags.text("platform"),
        **_frame(statement),
    )


def _read_arg(statement: Statement) -> Instruction:
    if not statement.args:
        raise _at_least_one("ARG")
    items = []
    for word in statement.args:
        name, equals, default = word.partition("=")
        if equals and not name:
            raise Fault("ARG names can not be blank", code="blank-name", hint=_FORMS["ARG"], at=word)
        items.append(kinds.ArgItem(name, default if equals else None))
    return kinds.Arg(items=tuple(items), **_frame(statement))


def _pairs(statement: Statement) -> tuple[kinds.Pair, ...]:
    _no_flags(statement)
    name, args = statement.kind.upper(), statement.args
    if not args:
        raise _at_least_one(name)
    if not all(args[::3]):
        raise Fault(f"{name} names can not be blank", code="blank-name", hint=_FORMS[name])
    return tuple(kinds.Pair(key, value, not mark) for key, value, mark in zip(args[::3], args[1::3], args[2::3]))


def _read_env(statement: Statement) -> Instruction:
    return kinds.Env(pairs=_pairs(statement), **_frame(statement))


def _read_label(statement: Statement) -> Instruction:
    return kinds.Label(pairs=_pairs(statement), **_frame(statement))


def _read_maintainer(statement: Statement) -> Instruction:
    author = _only(statement)
    _no_flags(statement)
    return kinds.Maintainer(author=author, **_frame(statement))


def _sources(statement: Statement) -> tuple[tuple[str, ...], tuple[kinds.InlineSource, ...], str]:
    name, dest = statement.kind.upper(), statement.args[-1]
    if is_heredoc(dest):
        raise Fault(
            f"{name} cannot accept a heredoc as a destination",
            code="heredoc-destination",
            hint="the destination comes last, after the heredocs",
            at=dest,
        )
    bodies = {heredoc.name: heredoc for heredoc in statement.heredocs}
    paths, inline = [], []
    for word in statement.args[:-1]:
        heredoc = is_heredoc(word)
        if heredoc is None:
            paths.append(word)
            continue
        body = bodies.get(heredoc.name, heredoc)
        content = heredoc.__class__(heredoc.name, chomp=heredoc.chomp, content=body.content).body()
        inline.append(kinds.InlineSource(heredoc.name, content, heredoc.expand))
    return tuple(paths), tuple(inline), dest


def _two_or_more(statement: Statement) -> None:
    if len(statement.args) < 2:
        raise Fault(
            f"{statement.kind.upper()} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            code="missing-argument",
            hint=f"write {statement.kind.upper()} source destination",
        )


_ADD_FLAGS = {
    "chown": TEXT,
    "chmod": TEXT,
    "link": BOOLEAN,
    "keep-git-dir": BOOLEAN,
    "checksum": TEXT,
    "unpack": BOOLEAN,
    "exclude": LIST,
}
_COPY_FLAGS = {"chown": TEXT, "from": TEXT, "chmod": TEXT, "link": BOOLEAN, "exclude": LIST, "parents": BOOLEAN}


def _read_add(statement: Statement) -> Instruction:
    _two_or_more(statement)
    flags = Flags(statement.flags, _ADD_FLAGS)
    sources, inline, dest = _sources(statement)
    return kinds.Add(
        sources=sources,
        dest=dest,
        inline=inline,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.truth("link") or False,
        exclude=flags.list("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.truth("keep-git-dir"),
        unpack=flags.truth("unpack"),
        **_frame(statement),
    )


def _read_copy(statement: Statement) -> Instruction:
    _two_or_more(statement)
    flags = Flags(statement.flags, _COPY_FLAGS)
    sources, inline, dest = _sources(statement)
    return kinds.Copy(
        sources=sources,
        dest=dest,
        inline=inline,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.truth("link") or False,
        parents=flags.truth("parents") or False,
        exclude=flags.list("exclude"),
        **_frame(statement),
    )


_RUN_FLAGS = {"device": LIST, "mount": LIST, "network": TEXT, "security": TEXT}


def _read_run(statement: Statement) -> Instruction:
    flags = Flags(statement.flags, _RUN_FLAGS)
    mounts = flags.list("mount")
    froms = tuple(map(mount_from, mounts))
    network = flags.text("network", "default")
    if network not in ("default", "none", "host"):
        raise Fault(
            f"invalid network mode {quote(network)}",
            code="invalid-network",
            hint="one of default, none, host",
            at=network,
        )
    security = flags.text("security", "sandbox")
    if security not in ("sandbox", "insecure"):
        raise Fault(
            f"security {quote(security)} is not valid",
            code="invalid-security",
            hint="sandbox or insecure",
            at=security,
        )
    return kinds.Run(
        args=statement.args,
        shell=not statement.json,
        files=tuple(kinds.ScriptFile(doc.name, doc.content, doc.body()) for doc in statement.heredocs),
        mounts=mounts,
        mount_from=froms,
        network=network,
        security=security,
        devices=tuple(map(device_name, flags.list("device"))),
        **_frame(statement),
    )


def _read_cmd(statement: Statement) -> Instruction:
    _no_flags(statement)
    return kinds.Cmd(args=statement.args, shell=not statement.json, **_frame(statement))


def _read_entrypoint(statement: Statement) -> Instruction:
    _no_flags(statement)
    return kinds.Entrypoint(args=statement.args, shell=not statement.json, **_frame(statement))


def _read_shell(statement: Statement) -> Instruction:
    _no_flags(statement)
    if not statement.args:
        raise _at_least_one("SHELL")
    if not statement.json:
        raise Fault(
            "SHELL requires the arguments to be in JSON form", code="json-required", hint='write ["/bin/bash", "-c"]'
        )
    return kinds.Shell(args=statement.args, **_frame(statement))


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    value = parse_duration(text) if text else 0
    if value and value < 10**6:
        raise Fault(
            f"Interval {quote(name)} cannot be less than 1ms",
            code="invalid-duration",
            hint="write 30s, 1m30s or 500ms; 0 is the default",
            at=text,
        )
    return value


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        raise Fault(
            f"strconv.ParseInt: parsing {quote(text)}: invalid syntax",
            code="invalid-retries",
            hint="write a whole number",
            at=text,
        )
    value = int(text[:64])
    if not -(2**31) <= value < 2**31:
        raise Fault(
            f"strconv.ParseInt: parsing {quote(text)}: value out of range",
            code="invalid-retries",
            hint="write a smaller number",
            at=text,
        )
    if value < 0:
        raise Fault(
            f"--retries cannot be negative ({value})",
            code="invalid-retries",
            hint="write a whole number, or 0 for the default",
            at=text,
        )
    return value


_HEALTH_FLAGS = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), TEXT)


def _read_healthcheck(statement: Statement) -> Instruction:
    if not statement.args:
        raise _at_least_one("HEALTHCHECK")
    kind, command = statement.args[0].upper(), statement.args[1:]
    if kind == "NONE":
        if command:
            raise Fault(
                "HEALTHCHECK NONE takes no arguments", code="unexpected-argument", hint="HEALTHCHECK NONE stands alone"
            )
        return kinds.Healthcheck(test=("NONE",), **_frame(statement))
    flags = Flags(statement.flags, _HEALTH_FLAGS)
    if kind != "CMD":
        raise Fault(
            f"Unknown type {quote(kind)} in HEALTHCHECK (try CMD)",
            code="unknown-healthcheck",
            hint="HEALTHCHECK CMD … or HEALTHCHECK NONE",
            at=statement.args[0],
        )
    if not command:
        raise Fault(
            "Missing command after HEALTHCHECK CMD", code="missing-argument", hint="write HEALTHCHECK CMD command"
        )
    return kinds.Healthcheck(
        test=("CMD" if statement.json else "CMD-SHELL", *command),
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
        **_frame(statement),
    )


def _read_expose(statement: Statement) -> Instruction:
    if not statement.args:
        raise _at_least_one("EXPOSE")
    _no_flags(statement)
    return kinds.Expose(ports=tuple(sorted(statement.args)), **_frame(statement))


def _read_user(statement: Statement) -> Instruction:
    user = _only(statement)
    _no_flags(statement)
    return kinds.User(user=user, **_frame(statement))


def _read_volume(statement: Statement) -> Instruction:
    if not statement.args:
        raise _at_least_one("VOLUME")
    _no_flags(statement)
    paths = tuple(path.strip(SPACE) for path in statement.args)
    if not all(paths):
        raise Fault(
            "VOLUME specified can not be an empty string", code="empty-volume", hint="name a directory of the image"
        )
    return kinds.Volume(paths=paths, **_frame(statement))


def _read_workdir(statement: Statement) -> Instruction:
    path = _only(statement)
    _no_flags(statement)
    return kinds.Workdir(path=path, **_frame(statement))


def _read_stopsignal(statement: Statement) -> Instruction:
    return kinds.StopSignal(signal=_only(statement), **_frame(statement))


def _read_onbuild(statement: Statement) -> Instruction:
    if not statement.args:
        raise _at_least_one("ONBUILD")
    _no_flags(statement)
    kind = statement.args[0].strip(SPACE).upper()
    if kind == "ONBUILD":
        raise Fault(
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            code="invalid-trigger",
            hint="a trigger is passed on to children, not to their children",
        )
    if kind in ("MAINTAINER", "FROM"):
        raise Fault(
            f"{kind} isn't allowed as an ONBUILD trigger",
            code="invalid-trigger",
            hint="a trigger cannot begin a stage or name an author",
            at=statement.args[0],
        )
    trigger = _ONBUILD.sub("", statement.original)
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in statement.heredocs)
    return kinds.Onbuild(trigger=trigger + bodies, **_frame(statement))


_READERS: dict[str, Callable[[Statement], Instruction]] = {
    "add": _read_add,
    "arg": _read_arg,
    "cmd": _read_cmd,
    "copy": _read_copy,
    "entrypoint": _read_entrypoint,
    "env": _read_env,
    "expose": _read_expose,
    "from": _read_from,
    "healthcheck": _read_healthcheck,
    "label": _read_label,
    "maintainer": _read_maintainer,
    "onbuild": _read_onbuild,
    "run": _read_run,
    "shell": _read_shell,
    "stopsignal": _read_stopsignal,
    "user": _read_user,
    "volume": _read_volume,
    "workdir": _read_workdir,
}
