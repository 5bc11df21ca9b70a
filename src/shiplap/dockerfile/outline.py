"""What a Dockerfile offers: its targets; and what one of them takes. As BuildKit's subrequests tell it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from shiplap.dockerfile.globals import platform_args
from shiplap.dockerfile.instructions import Arg, ArgItem, Dockerfile, Instruction, Run
from shiplap.dockerfile.options import LowerOptions
from shiplap.dockerfile.survey import Survey
from shiplap.settings.boolean import parse_bool

_NAME = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def targets(dockerfile: Dockerfile) -> dict[str, Any]:
    """All stages."""
    last = len(dockerfile.stages) - 1
    return {
        "targets": [
            _filled(
                name=stage.name,
                default=stage.index == last,
                description=_description(stage.origin, stage.name),
                base=stage.origin.base,
                platform=stage.origin.platform,
                location=_location(stage.origin),
            )
            for stage in dockerfile.stages
        ]
    }


def outline(dockerfile: Dockerfile, options: LowerOptions) -> dict[str, Any]:
    """Arguments with their values, secrets and agents of the stages that the target needs. Raises DockerfileError."""
    survey = Survey(dockerfile, options)
    stages = [entry.stage for entry in survey.reached()]
    target = survey.target.stage
    given = options.build_args
    automatic = platform_args(options.build_platform, options.target_platform, target.name, given)
    overall = {item.name: (item, arg) for arg in dockerfile.args for item in arg.items}
    used: dict[str, dict[str, Any]] = {}
    wanted = {name for stage in stages for text in (stage.origin.base, stage.origin.platform) for name in _names(text)}
    secrets: dict[str, dict[str, Any]] = {}
    agents: dict[str, dict[str, Any]] = {}
    for stage in stages:
        values = dict(survey.args)
        for command in stage.commands:
            if isinstance(command, Arg):
                for item in command.items:
                    wanted.add(item.name)
                    if item.name in automatic and item.name not in given:
                        continue
                    if item.default is not None or item.name not in overall:
                        value = given.get(item.name, _expanded(survey, item, values) or "")
                        values[item.name] = value
                        used.setdefault(item.name, _argument(item, value, command))
            elif isinstance(command, Run):
                _mounts(command, secrets, agents)
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if name in overall and name not in used:
            item, arg = overall[name]
            used[name] = _argument(item, survey.args.get(name, ""), arg)
            pending += _names(item.default or "")
    return _filled(
        name=target.name,
        description=_description(target.origin, target.name),
        args=_sorted(used),
        secrets=_sorted(secrets),
        ssh=_sorted(agents),
    )


def _names(text: str) -> list[str]:
    return _NAME.findall(text)


def _expanded(survey: Survey, item: ArgItem, values: Mapping[str, str]) -> str:
    if item.default is None:
        return values.get(item.name, "")
    return survey.lexer.expand(item.default, values)


def _argument(item: ArgItem, value: str, command: Instruction) -> dict[str, Any]:
    return _filled(
        name=item.name, description=_description(command, item.name), value=value, location=_location(command)
    )


def _mounts(command: Run, secrets: dict[str, dict[str, Any]], agents: dict[str, dict[str, Any]]) -> None:
    for text in command.mounts:
        fields = dict(field.strip().partition("=")[::2] for field in text.split(","))
        kind = fields.get("type", "bind")
        required = "required" in fields and parse_bool(fields["required"] or "true") is True
        if kind == "secret":
            target = fields.get("target") or fields.get("dst") or fields.get("destination") or ""
            name = fields.get("id") or posixpath.basename(target)
            secrets.setdefault(name, _filled(name=name, required=required, location=_location(command)))
        elif kind == "ssh":
            name = fields.get("id") or "default"
            agents.setdefault(name, _filled(name=name, required=required, location=_location(command)))


def _description(command: Instruction, name: str) -> str:
    """The comment right above, if it begins with the name."""
    for comment in reversed(command.comments):
        first, _, rest = comment.partition(" ")
        if name and first.lower() == name.lower():
            return rest.strip()
    return ""


def _location(command: Instruction) -> dict[str, Any]:
    # A range for each line, as BuildKit has it.
    lines = range(command.line, command.end_line + 1)
    return {"ranges": [{"start": {"line": number}, "end": {"line": number}} for number in lines]}


def _filled(**fields: Any) -> dict[str, Any]:
    # Go's omitempty.
    return {key: value for key, value in fields.items() if value not in ("", None, False, [], ())}


def _sorted(found: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found.values(), key=lambda item: item["location"]["ranges"][0]["start"]["line"])
