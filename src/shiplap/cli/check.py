"""``shiplap check``: remarks on a Dockerfile, and fixes; also what ``build --check`` and ``--call`` show."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from shiplap.cli.parsing import Parser, pairs, settings_of, write_error
from shiplap.errors import UsageError
from shiplap.settings.boolean import parse_bool

if TYPE_CHECKING:
    from shiplap.api.checking import Checked
    from shiplap.api.request import Request
    from shiplap.settings import Settings

_EPILOG = """rules: those of BuildKit (docs.docker.com/reference/build-checks), and five that need the stage graph:
  StageNeverReached, CopyOfMissingPath, CacheHostileOrder, SecretInLayer, CompilerInFinalStage
A rule is left out by a line "# check=skip=Rule" at the top, or right above one instruction.

exit status: 0 nothing was found, 1 something was, or the Dockerfile is wrong
"""


def run(name: str, argv: list[str]) -> int:
    """Check a Dockerfile."""
    p = Parser(
        "check", "Find what may be wrong in a Dockerfile, without building and without a network.", epilog=_EPILOG
    )
    p.add_argument("path", nargs="?", default=".", metavar="PATH", help="build context, or a Dockerfile (default: .)")
    p.add_argument("-f", "--file", help="the Dockerfile (default: PATH/Dockerfile)")
    p.add_argument("--target", default="", metavar="STAGE", help="look at this stage and what it needs only")
    p.add_argument("--build-arg", action="append", metavar="K=V", help="value of an ARG")
    p.add_argument("--platform", default="", metavar="P", help="os/architecture[/variant] of the result")
    p.add_argument("--format", default="text", choices=("text", "json", "sarif"), help="how findings are written")
    p.add_argument("--fix", action="store_true", help="mend the file where that changes nothing of what is built")
    options = p.parse_args(argv)
    from shiplap.api.checking import check_dockerfile
    from shiplap.api.request import Request

    alone = os.path.isfile(options.path)
    request = Request(
        context=os.path.dirname(options.path) or "." if alone else options.path,
        dockerfile=options.path if alone and options.file is None else options.file,
        target=options.target,
        build_args=dict(pairs(options.build_arg, "--build-arg")),
        platform=options.platform,
    )
    checked = check_dockerfile(request, settings_of(options), fix=options.fix)
    if options.format == "sarif":
        print(json.dumps(_sarif(checked), indent=2))
    elif options.format == "json":
        print(json.dumps(_json(checked, fixes=True), indent=2))
    else:
        if checked.mended:
            print(f"mended {checked.mended} of {checked.mended + len(checked.findings)}\n")
        print(_text(checked, fixes=True), end="")
    if checked.error is not None:
        raise checked.error
    return 1 if checked.findings else 0


def call(text: str, request: Request, settings: Settings) -> int:
    """``build --call=check|outline|targets[,format=json][,ignorestatus=true]``: as buildx has them."""
    what = ""
    form, ignore = "", False
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if key == "format" and equals:
            form = value
        elif key == "ignorestatus" and equals:
            ignore = parse_bool(value) is True
        elif equals or what:
            raise UsageError(f"invalid --call {text!r}", code="bad-command-line", hint="--call=check,format=json")
        else:
            what = key
    if what in ("check", "lint"):
        return _call_check(request, settings, form, ignore)
    if what not in ("outline", "targets"):
        raise UsageError(
            f"unknown --call {what!r}", code="bad-command-line", hint="use build, check, outline or targets"
        )
    from shiplap.api.checking import outline_of, targets_of

    found = outline_of(request, settings) if what == "outline" else targets_of(request, settings)
    if form == "json":
        print(json.dumps(found, indent=2))
    else:
        print(_outline(found) if what == "outline" else _targets(found), end="")
    return 0


def _call_check(request: Request, settings: Settings, form: str, ignore: bool) -> int:
    from shiplap.api.checking import check_dockerfile

    checked = check_dockerfile(request, settings, graph=False, ask=True)
    if form == "json":
        print(json.dumps(_json(checked, fixes=False), indent=2))
    else:
        print(_text(checked, fixes=False), end="\n" if checked.error is not None and checked.findings else "")
    if checked.error is not None:
        write_error(checked.error.render() + "\n" if form != "json" else "")
        return 0 if ignore else 1
    return 1 if checked.findings and not ignore else 0


# -- forms


def _text(checked: Checked, *, fixes: bool) -> str:
    count = len(checked.findings)
    if not count:
        return "Check complete, no warnings found.\n" if checked.error is None else ""
    found = "1 warning has" if count == 1 else f"{count} warnings have"
    lines = [f"Check complete, {found} been found!"]
    source = checked.source.decode("utf-8", "replace").split("\n")
    for finding in sorted(checked.findings, key=lambda finding: finding.line):
        lines += ["", f"WARNING: {finding.rule}" + (f" - {finding.url}" if finding.url else ""), finding.detail]
        lines += [f"{finding.file}:{finding.line}", *_excerpt(source, finding.line, finding.end_line)]
        if fixes and finding.fix is not None:
            lines.append(f"fix (--fix): {finding.fix.strip()}")
    return "\n".join(lines) + "\n"


def _excerpt(source: list[str], line: int, end: int) -> list[str]:
    # As much about it as BuildKit shows, line for line.
    first, last = line, min(end, len(source))
    padded, wanted = 0, 4 if first == last else 2
    while padded < wanted:
        above, below = first > 1, last < len(source)
        first -= above
        last += below
        padded += above + below + 1
    rule = "-" * 20
    shown = [
        f"{number:4d} | {'>>>' if line <= number <= end else '   '} {source[number - 1]}"
        for number in range(first, last + 1)
    ]
    return [rule, *shown, rule]


def _json(checked: Checked, *, fixes: bool) -> dict[str, Any]:
    import base64

    warnings = []
    for finding in checked.findings:
        warning: dict[str, Any] = {"ruleName": finding.rule, "description": finding.description}
        if finding.url:
            warning["url"] = finding.url
        warning["detail"] = finding.detail
        warning["location"] = _location(finding.line, finding.end_line)
        if fixes and finding.fix is not None:
            warning["fix"] = finding.fix
        warnings.append(warning)
    source = {
        "filename": checked.name,
        "data": base64.b64encode(checked.source).decode(),
        "language": "Dockerfile",
    }
    result: dict[str, Any] = {"warnings": warnings or None, "sources": [source]}
    error = checked.error
    if error is not None:
        result["buildError"] = {"message": error.message, "location": {}}
        if error.where is not None and error.where.line:
            end = error.where.end_line or error.where.line
            result["buildError"]["location"] = _location(error.where.line, end)
    return result


def _location(line: int, end: int) -> dict[str, Any]:
    # A range for each line, as BuildKit has it.
    return {"ranges": [{"start": {"line": n}, "end": {"line": n}} for n in range(line, end + 1)]}


def _sarif(checked: Checked) -> dict[str, Any]:
    """SARIF 2.1.0, which code hosts show beside the lines."""
    from shiplap import __version__
    from shiplap.api.checking import rules

    results = []
    for finding in checked.findings:
        place = {
            "artifactLocation": {"uri": finding.file},
            "region": {"startLine": finding.line, "endLine": finding.end_line},
        }
        result: dict[str, Any] = {
            "ruleId": finding.rule,
            "level": "warning",
            "message": {"text": finding.detail},
            "locations": [{"physicalLocation": place}],
        }
        if finding.fix is not None:
            replacement = {
                "deletedRegion": {"startLine": finding.line, "endLine": finding.line},
                "insertedContent": {"text": finding.fix},
            }
            change = {"artifactLocation": {"uri": finding.file}, "replacements": [replacement]}
            result["fixes"] = [{"description": {"text": finding.description}, "artifactChanges": [change]}]
        results.append(result)
    if checked.error is not None:
        where = checked.error.where
        line = where.line if where is not None and where.line else 1
        place = {"artifactLocation": {"uri": checked.name}, "region": {"startLine": line}}
        results.append(
            {
                "ruleId": checked.error.code,
                "level": "error",
                "message": {"text": checked.error.message},
                "locations": [{"physicalLocation": place}],
            }
        )
    described = [{"id": rule, "shortDescription": {"text": text}} for rule, text in rules()]
    driver = {"name": "shiplap", "version": __version__, "rules": described}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _columns(rows: list[list[str]], gap: int) -> str:
    # As Go's tabwriter: the last column is not padded.
    widths = [max(len(row[column]) for row in rows) + gap for column in range(len(rows[0]) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )


def _outline(found: Any) -> str:
    parts = []
    if found.get("name") or found.get("description"):
        rows = [["TARGET:", found.get("name") or "(default)"]]
        if found.get("description"):
            rows.append(["DESCRIPTION:", found["description"]])
        parts.append(_columns(rows, 1))
    if found.get("args"):
        rows = [[arg["name"], arg.get("value", ""), arg.get("description", "")] for arg in found["args"]]
        parts.append(_columns([["BUILD ARG", "VALUE", "DESCRIPTION"], *rows], 3))
    for key, title in (("secrets", "SECRET"), ("ssh", "SSH")):
        if found.get(key):
            rows = [[item["name"], "true" if item.get("required") else ""] for item in found[key]]
            parts.append(_columns([[title, "REQUIRED"], *rows], 3))
    return "".join(part + "\n" for part in parts)


def _targets(found: Any) -> str:
    rows = [["TARGET", "DESCRIPTION"]]
    for target in found["targets"]:
        name = target.get("name", "")
        if target.get("default"):
            name = f"{name} (default)".strip()
        rows.append([name, target.get("description", "")])
    return _columns(rows, 1)
