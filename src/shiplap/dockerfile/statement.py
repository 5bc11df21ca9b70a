"""One logical line, taken apart: keyword, flags, and arguments by the form its kind has (reference 1.5 to 1.7)."""

from __future__ import annotations

import re

import msgspec

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import SPACE, quote, valid
from shiplap.dockerfile.heredoc import Heredoc

_BLANK = re.compile(r"[\t\v\f\r ]+")
_LONE = (
    r"((?:^|[^\\])(?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)

KEYWORDS = frozenset(
    (
        *("add", "arg", "cmd", "copy", "entrypoint", "env", "expose", "from", "healthcheck", "label", "maintainer"),
        *("onbuild", "run", "shell", "stopsignal", "user", "volume", "workdir"),
    )
)
_JSON_OR_TEXT = frozenset(("cmd", "entrypoint", "run", "shell"))
_JSON_OR_LIST = frozenset(("add", "copy", "volume"))
_LIST = frozenset(("from", "expose"))
_PAIRS = frozenset(("env", "label"))
_TEXT = frozenset(("maintainer", "stopsignal", "user", "workdir"))
_TAKES_HEREDOCS = frozenset(("add", "copy", "run"))


class Statement(msgspec.Struct, frozen=True):
    """``args`` by kind: strings of the JSON array, words, one raw text, or (ENV, LABEL) name, value and ``=`` or ""."""

    keyword: str
    """As typed."""
    flags: tuple[str, ...]
    args: tuple[str, ...]
    json: bool
    """The arguments were a JSON array of strings."""
    original: str
    heredocs: tuple[Heredoc, ...] = ()
    line: int = 0
    end_line: int = 0
    comments: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.keyword.lower()


def parse_statement(text: str, escape: str) -> Statement:
    """Take a logical line apart. Raises Fault for what no kind of instruction allows."""
    parts = _BLANK.split(text.strip(SPACE), maxsplit=1)
    keyword = parts[0]
    flags: list[str] = []
    rest = ""
    if len(parts) == 2:
        flags, rest = _flags(parts[1], escape)
        rest = rest.strip(SPACE)
    args, json = _arguments(keyword.lower(), rest, escape)
    return Statement(keyword, tuple(flags), args, json, text)


def takes_heredocs(text: str, escape: str) -> bool:
    """True if ``<<`` in ``text`` can begin a heredoc: RUN, COPY, ADD, and ONBUILD of these, not in JSON form."""
    statement = parse_statement(text, escape)
    if statement.kind == "onbuild" and statement.args:
        statement = parse_statement(_after_onbuild(text, escape), escape)
    return statement.kind in _TAKES_HEREDOCS and not statement.json


def _after_onbuild(text: str, escape: str) -> str:
    rest = _BLANK.split(text.strip(SPACE), maxsplit=1)[1]
    return _flags(rest, escape)[1].strip(SPACE)


def _arguments(kind: str, rest: str, escape: str) -> tuple[tuple[str, ...], bool]:
    if kind in _JSON_OR_TEXT:
        array = _json_array(rest)
        if array is not None:
            return array, True
        return ((rest,) if rest else ()), False
    if kind in _JSON_OR_LIST:
        array = _json_array(rest)
        if array is not None:
            return array, True
        return tuple(_BLANK.split(rest)) if rest else (), False
    if kind in _LIST:
        return tuple(_BLANK.split(rest)) if rest else (), False
    if kind in _PAIRS:
        return _pairs(rest, kind.upper(), escape), False
    if kind == "arg":
        return tuple(split_words(rest, escape)), False
    if kind in _TEXT:
        return ((rest,) if rest else ()), False
    if kind == "healthcheck":
        return _healthcheck(rest)
    if kind == "onbuild" and rest:
        word = _BLANK.split(rest, maxsplit=1)[0]
        if word.lower() == "onbuild":
            return (word,), False
        trigger = parse_statement(rest, escape)
        return (trigger.keyword, *trigger.args), False
    return (), False


def _json_array(rest: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None if ``rest`` is no JSON array, so that another form is meant."""
    if not rest.startswith("["):
        return None
    try:
        array = msgspec.json.decode(valid(rest).encode())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        if "\\ud" not in rest.lower():
            return None
        # msgspec takes no lone surrogate (``"\\ud800"``), Go makes U+FFFD of it.
        return _json_array(re.sub(_LONE, r"\1\\ufffd", rest)) if re.search(_LONE, rest) else None
    if not all(isinstance(item, str) for item in array):
        raise Fault(
            "when using JSON array syntax, arrays must be comprised of strings only",
            code="json-not-strings",
            hint="put every element into double quotes",
        )
    return tuple(array)


def _healthcheck(rest: str) -> tuple[tuple[str, ...], bool]:
    kind = rest.split(maxsplit=1)[0] if rest else ""
    if not kind:
        return (), False
    command = rest[len(kind) :].lstrip(SPACE)
    array = _json_array(command)
    if array is not None:
        return (kind, *array), True
    return ((kind, command) if command else (kind,)), False


def _flags(line: str, escape: str) -> tuple[list[str], str]:
    """The leading ``--words`` (quotes and escapes resolved) and what follows them."""
    flags: list[str] = []
    place, end = 0, len(line)
    while place < end:
        if line[place] in SPACE:
            place += 1
            continue
        if not line.startswith("--", place):
            return flags, line[place:]
        word: list[str] = []
        quoted = ""
        some = False
        while place < end and (quoted or line[place] not in SPACE):
            char = line[place]
            place += 1
            if char == quoted:
                quoted = ""
            elif char in "'\"" and not quoted:
                quoted, some = char, True
            elif char == escape:
                if place == end:
                    break
                word.append(line[place])
                place += 1
            else:
                word.append(char)
        text = "".join(word)
        if text == "--":
            return flags, line[place:]
        if text or some:
            flags.append(text)
    return flags, ""


def split_words(text: str, escape: str) -> list[str]:
    """Words cut at white space that is neither quoted nor escaped; quotes and escapes stay in them."""
    words: list[str] = []
    word: list[str] = []
    quoted = ""
    some = inside = False
    place, end = 0, len(text)
    while place < end:
        char = text[place]
        place += 1
        if not inside:
            if char in SPACE:
                continue
            inside = True
        if not quoted and char in SPACE:
            if word or some:
                words.append("".join(word))
            word, inside, some = [], False, False
            continue
        if char == quoted:
            quoted = ""
        elif char in "'\"" and not quoted:
            quoted, some = char, True
        elif char == escape and quoted != "'":
            if place == end:
                break
            word.append(char)
            char = text[place]
            place += 1
        word.append(char)
    if word or (some and inside):
        words.append("".join(word))
    return words


def _pairs(rest: str, name: str, escape: str) -> tuple[str, ...]:
    words = split_words(rest, escape)
    if not words:
        return ()
    if "=" not in words[0]:
        parts = _BLANK.split(rest, maxsplit=1)
        if len(parts) < 2:
            raise Fault(f"{name} must have two arguments", code="missing-argument", hint=f"write {name} name=value")
        return parts[0], parts[1], ""
    triples: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise Fault(
                f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value",
                code="missing-equals",
                hint="quote a value that holds spaces",
                at=word,
            )
        triples += (key, value, "=")
    return tuple(triples)
