"""``shiplap doctor``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shiplap.cli.parsing import Parser, settings_of
from shiplap.errors import SandboxError

if TYPE_CHECKING:
    from shiplap.api.doctor import Report

_EPILOG = "exit status: 0 if RUN works, 1 if it does not"
_WAYS = {
    "root": "as root",
    "A": "for an ordinary user with subordinate ids (way A)",
    "B": "for an ordinary user with one id (way B)",
    "D": "",
}


def run(name: str, argv: list[str]) -> int:
    """Say whether RUN works on this machine, how, and what would make it better."""
    p = Parser("doctor", "Say whether RUN works on this machine, how, and what would make it better.", epilog=_EPILOG)
    p.add_argument("--format", default="text", choices=("text", "json"), help="json: one object, for scripts")
    options = p.parse_args(argv)
    settings = settings_of(options)
    import msgspec

    from shiplap.api.doctor import examine, look

    machine = look()
    if os.geteuid() != 0 and not machine.userns:
        from shiplap.api.isolation import enter_user_namespace

        try:
            enter_user_namespace()
        except SandboxError as error:
            machine = msgspec.structs.replace(machine, userns=error.message, userns_fix=error.hint or "")
    report = examine(machine, settings)
    if options.format == "json":
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        print("\n".join(lines(report)))
    return 0 if report.run else 1


def lines(report: Report) -> list[str]:
    """The report as text."""
    if report.run:
        snapshots = "overlays" if report.snapshots == "overlay" else "copies"
        network = "the machine's network" if report.network == "host" else f"a network through {report.network}"
        said = [f"RUN works here {_WAYS[report.way]}: isolated by {report.isolation}, with {snapshots} and {network}."]
    else:
        said = ["RUN does not work here. Dockerfiles without RUN do."]
    said.append("")
    for finding in report.findings:
        said.append(f"{finding.level:<8} {finding.name:<10} {finding.text}")
        if finding.fix:
            said.append(f"{'':<19} try: {finding.fix}")
    return said
