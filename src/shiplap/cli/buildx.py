"""``shiplap buildx create, inspect, ls, use, rm, stop``: the usual scripts run unchanged, though there is no daemon.

What is printed, and the exit statuses, are those of buildx 0.30.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shiplap import __version__
from shiplap.cli.parsing import Parser, settings_of, table, write_error
from shiplap.errors import ShiplapError, UsageError

if TYPE_CHECKING:
    from shiplap.api.builders import Builder, Builders

_HERE = ("", "docker", "docker-container", "shiplap")
"""Drivers whose builder would be on this machine as well."""
_VERSION = f"shiplap v{__version__}"
_FIELDS = {"Name", "DriverEndpoint", "Status", "Buildkit", "Platforms"}


def run(name: str, argv: list[str]) -> int:
    """One command of the family."""
    return _COMMANDS[name](name, argv)


def _parser(name: str, description: str) -> Parser:
    p = Parser(name, description)
    p.add_argument(
        "--builder", default="", metavar="NAME", help="the builder, where none is named (default: the current)"
    )
    p.add_argument("-D", "--debug", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--timeout", default="", help=argparse.SUPPRESS)
    return p


def _builders(options: argparse.Namespace) -> Builders:
    from shiplap.api.builders import Builders

    return Builders(settings_of(options))


def _create(name: str, argv: list[str]) -> int:
    p = _parser(
        name, "Keep a name for a builder. It is started nowhere: shiplap builds in the process that is asked to."
    )
    add = p.add_argument
    add("endpoint", nargs="?", default="", metavar="CONTEXT|ENDPOINT", help="kept, and shown")
    add("--name", default="", metavar="NAME", help="its name (default: one is made up)")
    add("--use", action="store_true", help="make it the current one")
    add("--bootstrap", action="store_true", help="nothing to start: succeeds")
    add("--append", action="store_true", help="add a node to a builder that is there")
    add("--leave", action="store_true", help="take a node away from a builder")
    add("--node", default="", metavar="NAME", help="name of the node")
    add("--driver", default="", metavar="DRIVER", help="kept, and shown; builds run here whatever it is")
    add(
        "--platform",
        action="append",
        default=[],
        metavar="P",
        help="kept; what this machine runs is tried, see inspect",
    )
    add("--driver-opt", action="append", default=[], metavar="K=V", help="no effect")
    add("--buildkitd-config", "--config", default="", metavar="FILE", help="no effect")
    add("--buildkitd-flags", "--flags", default="", metavar="FLAGS", help="no effect")
    options = p.parse_args(argv)
    builders = _builders(options)
    if options.leave:
        if not options.name or not options.node:
            raise UsageError(
                "leave requires instance name and node name", code="bad-command-line", hint="--name, --node"
            )
        print(builders.leave(options.name, options.node).name)
        return 0
    if options.driver not in _HERE:
        write_error(
            f"note: there is no driver {options.driver} here: builds run on this machine, in their own process\n"
        )
    idle = [
        flag
        for flag, given in (
            ("--driver-opt", options.driver_opt),
            ("--buildkitd-config", options.buildkitd_config),
            ("--buildkitd-flags", options.buildkitd_flags),
            ("--platform", options.platform),
        )
        if given
    ]
    if idle:
        write_error(f"note: {', '.join(idle)}: no effect, since shiplap has no daemon\n")
    platforms = tuple(part for text in options.platform for part in text.split(",") if part)
    append = options.append
    made = builders.create(options.name, options.driver, options.node, options.endpoint, platforms, append=append)
    if options.use:
        builders.use(made.name)
    print(made.name)
    return 0


def _inspect(name: str, argv: list[str]) -> int:
    p = _parser(name, "Show a builder, and the platforms it builds for: those that RUN was tried and works for.")
    p.add_argument("name", nargs="?", default="", metavar="NAME", help="the builder (default: the current one)")
    p.add_argument("--bootstrap", action="store_true", help="nothing to start: succeeds")
    options = p.parse_args(argv)
    builder = _builders(options).find(options.name or options.builder)
    platforms = ", ".join(_platforms(options))
    lines = [("Name", builder.name), ("Driver", builder.driver)]
    if builder.made:
        lines.append(("Last Activity", time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(builder.made))))
    _print_fields(lines)
    print("\nNodes:")
    for index, node in enumerate(builder.nodes):
        if index:
            print()
        _print_fields(
            [
                ("Name", node.name),
                ("Endpoint", node.endpoint or "here"),
                ("Status", "running"),
                ("BuildKit version", _VERSION),
                ("Platforms", platforms),
            ]
        )
    return 0


def _print_fields(fields: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in fields) + 2
    for name, value in fields:
        print(f"{name + ':':<{width}}{value}".rstrip())


def _platforms(options: argparse.Namespace) -> list[str]:
    from shiplap.cli.builder import tried

    found = tried(settings_of(options))
    working = [each.platform for each in found if each.how]
    return working or [each.platform for each in found]  # without RUN a Dockerfile can be built all the same


def _list(name: str, argv: list[str]) -> int:
    p = _parser(name, "List the builders.")
    p.add_argument("--format", default="table", metavar="FORMAT", help="table, json, or a template such as '{{.Name}}'")
    p.add_argument("--no-trunc", action="store_true", help="every platform, not the number of variants")
    options = p.parse_args(argv)
    builders = _builders(options)
    current, known = builders.current(), builders.all()
    if options.format == "table":
        shown = ", ".join(_platforms(options) if options.no_trunc else _folded(_platforms(options)))
        rows = [["NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "BUILDKIT", "PLATFORMS"]]
        for builder in known:
            rows.append([builder.name + ("*" if builder.name == current else ""), builder.driver, "", "", ""])
            rows += [
                [f" \\_ {n.name}", f" \\_ {n.endpoint or 'here'}", "running", _VERSION, shown] for n in builder.nodes
            ]
        table(rows)
        return 0
    needed = options.format == "json" or "json" in options.format or ".Platforms" in options.format
    platforms = _platforms(options) if needed else []
    for builder in known:
        print(_formatted(options.format, builder, builder.name == current, platforms))
    return 0


def _folded(platforms: list[str]) -> list[str]:
    """``linux/amd64 (+2)`` for a platform and its variants, as buildx lists them."""
    groups: dict[str, int] = {}
    for each in platforms:
        plain = "/".join(each.split("/")[:2])
        groups[plain] = groups.get(plain, 0) + 1
    return [plain + (f" (+{count - 1})" if count > 1 else "") for plain, count in groups.items()]


def _formatted(template: str, builder: Builder, current: bool, platforms: list[str]) -> str:
    import json

    nodes: list[dict[str, Any]] = [
        {
            "Name": node.name,
            "Endpoint": node.endpoint or "here",
            "Status": "running",
            "Version": _VERSION,
            "Platforms": platforms,
        }
        for node in builder.nodes
    ]
    whole = json.dumps(
        {
            "Current": current,
            "Driver": builder.driver,
            "Dynamic": False,
            "LastActivity": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(builder.made)),
            "Name": builder.name,
            "Nodes": nodes,
        }
    )
    if template == "json":
        return whole
    values = {
        "Name": builder.name + ("*" if current else ""),
        "DriverEndpoint": builder.driver,
        "Status": "running",
        "Buildkit": _VERSION,
        "Platforms": ", ".join(platforms),
    }

    def fill(found: re.Match[str]) -> str:
        expression = found.group(1).strip()
        if expression == "json .":
            return whole
        if expression.startswith(".") and expression[1:] in _FIELDS:
            return values[expression[1:]]
        hint = "{{json .}}, " + ", ".join(f"{{{{.{field}}}}}" for field in sorted(_FIELDS))
        raise UsageError(f"unknown expression {found.group(0)} in --format", code="bad-command-line", hint=hint)

    return re.sub(r"\{\{(.*?)\}\}", fill, template)


def _use(name: str, argv: list[str]) -> int:
    p = _parser(name, "Choose the current builder.")
    p.add_argument("name", nargs="?", default="", metavar="NAME", help="the builder")
    p.add_argument("--default", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--global", dest="everywhere", action="store_true", help=argparse.SUPPRESS)
    options = p.parse_args(argv)
    if not (options.name or options.builder):
        raise UsageError("which builder?", code="bad-command-line", hint="shiplap buildx use NAME")
    _builders(options).use(options.name or options.builder)
    return 0


def _remove(name: str, argv: list[str]) -> int:
    p = _parser(name, "Forget builders. What was built stays.")
    p.add_argument("names", nargs="*", metavar="NAME", help="the builders (default: the current one)")
    p.add_argument("--all-inactive", action="store_true", help="those that do not run: none")
    for habit in ("-f", "--force", "--keep-daemon", "--keep-state"):
        p.add_argument(habit, dest="habit", action="store_true", help=argparse.SUPPRESS)
    options = p.parse_args(argv)
    if options.all_inactive:
        return 0
    builders = _builders(options)
    failed = 0
    for each in options.names or [options.builder or builders.current()]:
        try:
            builders.remove(each)
        except ShiplapError as error:
            write_error(f"failed to remove {each}: {error.message}\n")
            failed = 1
        else:
            print(f"{each} removed")
    if failed:
        write_error("ERROR: failed to remove one or more builders\n")
    return failed


def _stop(name: str, argv: list[str]) -> int:
    p = _parser(name, "Succeed if the builder is known: there is nothing to stop.")
    p.add_argument("name", nargs="?", default="", metavar="NAME", help="the builder (default: the current one)")
    options = p.parse_args(argv)
    _builders(options).find(options.name or options.builder)
    return 0


_COMMANDS: dict[str, Callable[[str, list[str]], int]] = {
    "buildx create": _create,
    "buildx inspect": _inspect,
    "buildx ls": _list,
    "buildx use": _use,
    "buildx rm": _remove,
    "buildx stop": _stop,
}
