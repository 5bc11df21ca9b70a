"""Writes command-line.md from the commands' parsers and errors.md from the sources: ``python docs/reference/generate.py``.

tests/unit/cli/test_reference.py fails when what is written here is not what this would write.
"""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import NamedTuple, NoReturn

from shiplap import errors
from shiplap.cli.main import COMMANDS
from shiplap.cli.parsing import Parser

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent / "src" / "shiplap"


class _Caught(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command: whichever it would read its arguments with."""

    def caught(self: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _Caught(self)

    original = Parser.parse_args
    Parser.parse_args = caught  # type: ignore[method-assign, assignment]
    try:
        with redirect_stdout(StringIO()):  # version has no parser: it just speaks
            import_module(f"shiplap.cli.{COMMANDS[name][0]}").run(name, [])
    except _Caught as found:
        return found.parser
    finally:
        Parser.parse_args = original  # type: ignore[method-assign]
    return Parser(name, COMMANDS[name][1])


def command_line() -> str:
    """The text of command-line.md."""
    parts = [
        "# The command line",
        "",
        "Written by `python docs/reference/generate.py` from the parsers; do not edit.",
        "",
        "`shiplap [--root DIR] COMMAND ...`; each command takes `--root DIR` too, and `--help`. Exit status: 0 done, 1 failed,",
        "2 the command line makes no sense, 70 a fault of shiplap, 130, 143 and 129 ended by SIGINT, SIGTERM and SIGHUP, 141",
        "the reader of the output has gone; `shiplap run` ends with the status of what it ran.",
    ]
    for name in COMMANDS:
        if COMMANDS[name][1].startswith("The same as "):
            parts += ["", f"## shiplap {name}", "", COMMANDS[name][1].replace("shiplap", "`shiplap") + "`."]
        else:
            parts += ["", *_command(name)]
    return "\n".join(parts) + "\n"


def _command(name: str) -> Iterator[str]:
    parser = parser_of(name)
    actions = [action for action in parser._actions if action.dest not in ("help", "root")]
    operands = [action for action in actions if not action.option_strings]
    flags = [action for action in actions if action.option_strings and action.help != argparse.SUPPRESS]
    ignored = [action for action in actions if action.option_strings and action.help == argparse.SUPPRESS]
    words = ["shiplap", name, *(["[FLAGS]"] if flags else []), *map(_operand, operands)]
    yield f"## shiplap {name}"
    yield ""
    yield f"`{' '.join(words)}`"
    yield ""
    yield parser.description or ""
    if flags or any(action.help for action in operands):
        yield ""
        yield "| flag | meaning |"
        yield "| --- | --- |"
        for action in operands:
            if action.help:
                yield f"| `{_cell(_operand(action))}` | {_cell(action.help)} |"
        for action in flags:
            yield f"| `{_cell(_flag(action))}` | {_cell(_meaning(action))} |"
    if ignored:
        names = ", ".join(f"`{action.option_strings[0]}`" for action in ignored)
        yield ""
        yield f"Accepted for habit's sake: {names}. They change nothing; those that ask for something that is missing warn."


def _operand(action: argparse.Action) -> str:
    shown = str(action.metavar or action.dest.upper())
    if action.nargs == "+":
        return f"{shown}..."
    if action.nargs in ("?", argparse.REMAINDER):
        return f"[{shown}{'...' if action.nargs != '?' else ''}]"
    return shown


def _flag(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return names
    value = action.metavar or ("|".join(c for c in action.choices if c) if action.choices else action.dest.upper())
    return f"{names} {value}"


def _meaning(action: argparse.Action) -> str:
    text = action.help or action.dest.replace("_", " ")
    if action.choices and isinstance(action.default, str) and action.default:
        text += f" (default: {action.default})"
    return text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


class Raised(NamedTuple):
    """One place where an error gets its code."""

    code: str
    kind: str
    message: str
    hint: str


def error_reference() -> str:
    """The text of errors.md."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ShiplapError)]
    lines = [
        "# Errors",
        "",
        "Written by `python docs/reference/generate.py` from the sources; do not edit.",
        "",
        "An error shows as `ERROR: message [code]`, the place (`--> file:line` with the lines, or a blob's digest), and what",
        "to `try`. In a program it is a `shiplap.ShiplapError` with `message`, `code`, `where` and `hint`. Codes stay;",
        "messages may change. `…` stands for what differs from case to case.",
        "",
        "| class | exit | code if no other is given | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for kind in kinds:
        meaning = (inspect.getdoc(kind) or "").splitlines()[0].replace("``", "`")
        lines.append(f"| {kind.__name__} | {kind.exit_status} | `{kind.default_code}` | {_cell(meaning)} |")
    lines += [
        "| (none) | 70 | `internal` | A fault of shiplap: please report it, with what `SHIPLAP_TRACEBACK=1` shows. |",
        "| (none) | 1 | `system` | The operating system refused something that has no code of its own here. |",
        "",
        "| code | class | message | try |",
        "| --- | --- | --- | --- |",
    ]
    known: dict[str, list[Raised]] = {}
    for raised in sorted(set(raised_errors())):
        known.setdefault(raised.code, []).append(raised)
    for code, places in known.items():
        raisers = ", ".join(dict.fromkeys(place.kind for place in places if place.kind))
        message = "<br>".join(dict.fromkeys(_cell(place.message) for place in places if place.message))
        hint = "<br>".join(dict.fromkeys(_cell(place.hint) for place in places if place.hint))
        lines.append(f"| `{code}` | {raisers} | {message} | {hint} |")
    return "\n".join(lines) + "\n"


def raised_errors() -> Iterator[Raised]:
    """Every call in the sources that gives an error its ``code=``."""
    for file in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            words = {keyword.arg: keyword.value for keyword in node.keywords}
            if "code" not in words:
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            kind = (
                "DockerfileError" if called == "Fault" else called if called.endswith(("Error", "Interrupted")) else ""
            )
            message = " / ".join(_texts(node.args[0])) if node.args else ""
            hint = " / ".join(_texts(words["hint"])) if "hint" in words else ""
            for code in _texts(words["code"]):
                if "…" not in code:
                    yield Raised(code, kind, message, hint)


def _texts(node: ast.expr) -> list[str]:
    """What a string expression may come to, with ``…`` for what is not known here."""
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in _texts(value) if text != "…"]
    text = _text(node)
    return [" ".join(text.split()).replace("……", "…")] if text else []


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value) if node.value is not None else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"


DOCUMENTS = {"command-line.md": command_line, "errors.md": error_reference}

if __name__ == "__main__":
    for name, write in DOCUMENTS.items():
        (HERE / name).write_text(write())
