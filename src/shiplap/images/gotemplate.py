"""Go's text/template, as far as ``--format`` is used: fields, pipelines, variables, if, range, with, and their functions.

Not spoken, and said so: define, template, block, call, html, js, urlquery, slice, break, continue, method arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from shiplap.errors import UsageError, quote
from shiplap.oci.manifest import encode_json

_FUNCTIONS = (
    "and",
    "or",
    "not",
    "len",
    "index",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "print",
    "println",
    "printf",
    "json",
)
_UNSPOKEN = ("define", "template", "block", "call", "html", "js", "urlquery", "slice", "break", "continue")
_KEYWORDS = ("if", "else", "end", "range", "with")
_TOKEN = re.compile(
    r"""\s*(?:(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<dot>\.)|(?P<variable>\$\w*(?:\.[A-Za-z_]\w*)*)|(?P<word>[A-Za-z_]\w*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<number>[+-]?\d+(?:\.\d+)?)|(?P<mark>:=|[()|,=]))""",
    re.VERBOSE,
)
_ACTION = re.compile(r"\{\{(-\s)?\s*(/\*.*?\*/|(?:\"(?:[^\"\\]|\\.)*\"|`[^`]*`|[^\"`])*?)\s*(\s-)?\}\}", re.DOTALL)
_DEEPEST = 100


class Record:
    """A Go struct: ``fields`` by Go's names; ``written`` is how it is in JSON. A field may be made when it is asked for."""

    def __init__(self, fields: Mapping[str, Any], written: Mapping[str, Any]) -> None:
        self.fields = fields
        self.written = written


class Moment(str):
    """A ``time.Time``: RFC 3339 text, as it is in JSON; printed as Go prints times."""

    def shown(self) -> str:
        day, _, rest = self.partition("T")
        match = re.fullmatch(r"([0-9:.]+)(Z|[+-]\d\d:\d\d)", rest)
        if match is None:
            return str(self)
        zone = "+0000 UTC" if match[2] == "Z" else " ".join([match[2].replace(":", "")] * 2)
        return f"{day} {match[1]} {zone}"


class _Token(NamedTuple):
    kind: str
    text: str


class _Node(NamedTuple):
    kind: str
    """text, pipe, if, range, with"""
    pipe: Any = None
    body: tuple[Any, ...] = ()
    other: tuple[Any, ...] = ()
    text: str = ""


def render(template: str, data: Any) -> str:
    """``template`` filled with ``data``: Records, dicts, lists, texts, numbers. Raises UsageError (bad-template)."""
    nodes = _Parser(template).nodes()
    return "".join(_Run(data).walk(nodes, data))


def to_json(value: Any) -> str:
    """As buildx's ``json`` writes it: indented by two spaces, keys of maps sorted, Go's escapes."""
    return msgspec.json.format(encode_json(plain(value)), indent=2).decode()


def plain(value: Any) -> Any:
    """``value`` without Records: what JSON shows of it."""
    if isinstance(value, Record):
        return {key: plain(item) for key, item in value.written.items()}
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Moment) else value


class _Parser:
    def __init__(self, template: str) -> None:
        self._pieces = list(_split(template))
        self._at = 0

    def nodes(self) -> tuple[_Node, ...]:
        body, ending = self._block(0)
        if ending:
            raise _bad(f"unexpected {{{{{ending[0].text}}}}}")
        return body

    def _block(self, depth: int) -> tuple[tuple[_Node, ...], list[_Token]]:
        """Nodes up to an ``else`` or ``end`` of their own, which comes second; nothing there at the end of the text."""
        if depth > _DEEPEST:
            raise _bad(f"nested more than {_DEEPEST} deep")
        found: list[_Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if isinstance(piece, str):
                found.append(_Node("text", text=piece))
                continue
            word = piece[0].text if piece and piece[0].kind == "word" else ""
            if word in ("else", "end"):
                return tuple(found), piece
            if word in ("if", "range", "with"):
                found.append(self._control(word, piece[1:], depth))
            elif piece:
                found.append(_Node("pipe", _Pipes(piece).whole()))
        return tuple(found), []

    def _control(self, kind: str, tokens: list[_Token], depth: int) -> _Node:
        pipe = _Pipes(tokens).whole()
        body, ending = self._block(depth + 1)
        other: tuple[_Node, ...] = ()
        if ending and ending[0].text == "else":
            if len(ending) > 1:  # else if, else with: the rest ends where this does
                if ending[1].text not in ("if", "with"):
                    raise _bad(f"unexpected {ending[1].text!r} after else")
                return _Node(kind, pipe, body, (self._control(ending[1].text, ending[2:], depth + 1),))
            other, ending = self._block(depth + 1)
        if not ending or ending[0].text != "end":
            raise _bad(f"{{{{{kind}}}}} without {{{{end}}}}")
        return _Node(kind, pipe, body, other)


def _split(template: str) -> Iterator[str | list[_Token]]:
    at, trim = 0, False
    for action in _ACTION.finditer(template):
        text = template[at : action.start()]
        text = text.lstrip() if trim else text
        if "{{" in text:
            break
        yield text.rstrip() if action[1] else text
        if not action[2].startswith("/*"):
            yield _tokens(action[2])
        at, trim = action.end(), bool(action[3])
    rest = template[at:]
    if "{{" in rest:
        raise _bad(f"unclosed action: {rest[rest.index('{{') :][:60]}")
    yield rest.lstrip() if trim else rest


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _bad(f"cannot read {text[at:][:60]!r}")
        found.append(_Token(match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


class _Pipes:
    """Reads a pipeline: ``(variables, commands)``; a command is a list of operands."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Any:
        pipe = self._pipe()
        if self._at < len(self._tokens):
            raise _bad(f"unexpected {self._tokens[self._at].text!r}")
        return pipe

    def _peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _Token("end", "")

    def _pipe(self) -> Any:
        names = self._declared()
        commands = [self._command()]
        while self._peek().text == "|" and self._peek().kind == "mark":
            self._at += 1
            commands.append(self._command())
        return names, commands

    def _declared(self) -> tuple[str, ...]:
        start, names = self._at, []
        while self._peek().kind == "variable":
            names.append(self._peek().text)
            self._at += 1
            if self._peek().text in (":=", "="):
                self._at += 1
                return tuple(names)
            if self._peek().text != ",":
                break
            self._at += 1
        self._at = start
        return ()

    def _command(self) -> list[Any]:
        operands = []
        while self._peek().kind not in ("end",) and not (self._peek().kind == "mark" and self._peek().text in "|)"):
            operands.append(self._operand())
        if not operands:
            raise _bad("missing value for command")
        return operands

    def _operand(self) -> Any:
        token = self._peek()
        self._at += 1
        if token.kind == "mark" and token.text == "(":
            self._depth += 1
            if self._depth > _DEEPEST:
                raise _bad(f"nested more than {_DEEPEST} deep")
            inner = self._pipe()
            if self._peek().text != ")":
                raise _bad("unclosed (")
            self._at += 1
            chain = ""
            if self._peek().kind == "field":
                chain = self._peek().text
                self._at += 1
            return ("pipe", inner, chain)
        if token.kind == "mark":
            raise _bad(f"unexpected {token.text!r}")
        if token.kind == "word" and token.text not in ("true", "false", "nil", *_FUNCTIONS):
            spoken = "is not spoken by shiplap" if token.text in _UNSPOKEN else "is not defined"
            raise _bad(f"function {quote(token.text)} {spoken}")
        return token


class _Run:
    def __init__(self, data: Any) -> None:
        self._variables: list[tuple[str, Any]] = [("$", data)]

    def walk(self, nodes: tuple[_Node, ...], dot: Any) -> Iterator[str]:
        mark = len(self._variables)
        for node in nodes:
            if node.kind == "text":
                yield node.text
            elif node.kind == "pipe":
                names, _ = node.pipe
                value = self._pipe(node.pipe, dot)
                if not names:
                    yield shown(value)
            else:
                yield from self._control(node, dot)
        del self._variables[mark:]

    def _control(self, node: _Node, dot: Any) -> Iterator[str]:
        mark = len(self._variables)
        if node.kind == "range":
            yield from self._range(node, dot)
        else:
            value = self._pipe(node.pipe, dot)
            inner = value if node.kind == "with" and _true(value) else dot
            yield from self.walk(node.body if _true(value) else node.other, inner)
        del self._variables[mark:]

    def _range(self, node: _Node, dot: Any) -> Iterator[str]:
        names, commands = node.pipe
        value = self._pipe(((), commands), dot)
        if isinstance(value, dict):
            pairs = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, (list, tuple)) or value is None:
            pairs = list(enumerate(value or ()))
        else:
            raise _bad(f"range can't iterate over {shown(value)[:60]}")
        for key, item in pairs:
            mark = len(self._variables)
            if names:
                self._variables += [(names[-1], item)] if len(names) == 1 else [(names[0], key), (names[1], item)]
            yield from self.walk(node.body, item)
            del self._variables[mark:]
        if not pairs:
            yield from self.walk(node.other, dot)

    def _pipe(self, pipe: Any, dot: Any) -> Any:
        names, commands = pipe
        value: Any = None
        for position, command in enumerate(commands):
            value = self._command(command, dot, (value,) if position else ())
        for name in names:
            self._variables.append((name, value))
        return value

    def _command(self, operands: list[Any], dot: Any, last: tuple[Any, ...]) -> Any:
        first = operands[0]
        if isinstance(first, _Token) and first.kind == "word" and first.text in _FUNCTIONS:
            arguments = [self._operand(each, dot) for each in operands[1:]]
            return _call(first.text, [*arguments, *last])
        if len(operands) > 1 or last:
            raise _bad(f"can't give arguments to {getattr(first, 'text', 'a value')}")
        return self._operand(first, dot)

    def _operand(self, operand: Any, dot: Any) -> Any:
        if not isinstance(operand, _Token):
            _, inner, chain = operand
            found = self._pipe(inner, dot)
            if found is None and chain:
                raise _bad(f"nil pointer evaluating {chain}")
            return _fields(found, chain)
        kind, text = operand
        if kind == "dot":
            return dot
        if kind == "field":
            return _fields(dot, text)
        if kind == "variable":
            name, point, chain = text.partition(".")
            for known, value in reversed(self._variables):
                if known == name:
                    return _fields(value, point + chain)
            raise _bad(f"undefined variable {quote(name)}")
        if kind == "string":
            return text[1:-1] if text[0] == "`" else _unquoted(text)
        if kind == "number":
            return float(text) if "." in text else int(text)
        if text in _FUNCTIONS:
            return _call(text, [])
        return {"true": True, "false": False}.get(text)


def _fields(value: Any, chain: str) -> Any:
    for name in filter(None, chain.split(".")):
        if isinstance(value, Record):
            if name not in value.fields:
                close = ", ".join(value.fields)
                raise _bad(f"there is no field {name} here; there is {close}")
            value = value.fields[name]
            if callable(value):
                value = value()
        elif isinstance(value, dict):
            value = value.get(name)
        elif value is not None:
            raise _bad(f"can't evaluate field {name} in {shown(value)[:60]}")
    return value


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return _CALLS[name](*arguments)
    except UsageError:
        raise
    except (TypeError, ValueError, LookupError) as error:
        raise _bad(f"error calling {name}: {error}") from None


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, (list, tuple)) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise _bad(f"error calling index: no element {shown(key)}")
    return value


def _printf(form: str, *arguments: Any) -> str:
    rest = list(arguments)

    def one(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        if not rest:
            return f"%!{match[2]}(MISSING)"
        value = rest.pop(0)
        if match[2] == "q":
            return ("%" + match[1] + "s") % quote(shown(value))
        if match[2] in "dx":
            return str(("%" + match[1] + match[2]) % value)
        return ("%" + match[1] + "s") % shown(value)

    return re.sub(r"%([-+0]?\d*)([svdqxt%])", one, form)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: test(left, right)


def _either(*values: Any) -> Any:
    return next((value for value in values if _true(value)), values[-1])


def _both(*values: Any) -> Any:
    return next((value for value in values if not _true(value)), values[-1])


_CALLS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "and": _both,
    "or": _either,
    "not": lambda value: not _true(value),
    "len": len,
    "index": _index,
    "eq": lambda left, *others: any(left == other for other in others),
    "ne": _compare(lambda left, right: bool(left != right)),
    "lt": _compare(lambda left, right: bool(left < right)),
    "le": _compare(lambda left, right: bool(left <= right)),
    "gt": _compare(lambda left, right: bool(left > right)),
    "ge": _compare(lambda left, right: bool(left >= right)),
    "print": lambda *values: _joined(values),
    "println": lambda *values: " ".join(map(shown, values)) + "\n",
    "printf": _printf,
}


def _joined(values: tuple[Any, ...]) -> str:
    # fmt.Print: a space between operands when neither is a text.
    parts = []
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            parts.append(" ")
        parts.append(shown(value))
    return "".join(parts)


def shown(value: Any) -> str:
    """As ``fmt.Print`` writes it. Raises UsageError for a Record: nobody wants to see Go's pointers."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Moment):
        return value.shown()
    if isinstance(value, Record):
        raise _bad("this is more than a text: ask for a field of it, or for {{json …}}")
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(shown, value)) + "]"
    return str(value)


def _true(value: Any) -> bool:
    return isinstance(value, Record) or bool(value)


def _unquoted(text: str) -> str:
    escapes = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
    return re.sub(r"\\(.)", lambda match: escapes.get(match[1], match[0]), text[1:-1])


def _bad(why: str) -> UsageError:
    return UsageError(f"template: {why}", code="bad-template", hint="see docs/how-to/images.md for what can be asked")
