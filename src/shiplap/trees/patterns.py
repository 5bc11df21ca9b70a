"""Patterns of ignore files, ``--exclude`` and ``--parents`` (moby/patternmatcher), and Go's ``filepath.Match``.

moby/patternmatcher turns a pattern into a regular expression letter by letter, and what it accepts is what that
expression accepts, oddities included (``[a*]``, ``a^b``, ``a|b``). The same expression is built here, read back into
tokens, and matched by ``re`` when it has few stars, else by an automaton, for ``re`` backtracks and a pattern of fifty
``**/`` must not take for ever. The tests hold a table of Go's own answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from shiplap.errors import TreeError
from shiplap.trees.automaton import Anchor, Boundary, Item, Maybe, Star, Token, compile_tokens, crosses

_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
"""What Go's ``strings.TrimSpace`` trims."""
_ESCAPED = frozenset(".+()$")
"""Of ``.+()|{}$`` patternmatcher means to escape all; its table has eight rows for sixteen, so that ``|{}`` are not."""
_LINE_LIMIT = 65535


def parse_ignore(text: bytes) -> tuple[str, ...]:
    """The patterns of an ignore file, cleaned, in order; ``!`` stays in front. Bytes that are no UTF-8 are kept by
    surrogateescape. Raises TreeError(code="ignore-line-too-long") for a line over 65535 bytes.
    """
    patterns = []
    for raw in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if len(raw) > _LINE_LIMIT:
            raise TreeError("bufio.Scanner: token too long", code="ignore-line-too-long")
        if raw.startswith(b"#"):
            continue
        line = raw.decode("utf-8", "surrogateescape").strip(_SPACE)
        if not line:
            continue
        negated = line[0] == "!"
        if negated:
            line = line[1:].strip(_SPACE)
        if line:
            line = clean(line)
            if len(line) > 1 and line[0] == "/":
                line = line[1:]
        patterns.append("!" + line if negated else line)
    return tuple(patterns)


def clean(path: str) -> str:
    """Go's ``path.Clean``: the shortest path of the same meaning, ``.`` for an empty one."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts and parts[-1] != "..":
                parts.pop()
            elif not rooted:
                parts.append(part)
        elif part and part != ".":
            parts.append(part)
    return "/" + "/".join(parts) if rooted else "/".join(parts) or "."


class _Run:
    """Patterns of one sign that stand next to each other: one question for all of them."""

    __slots__ = ("_ask", "_ask_flat", "_ask_name", "_exact", "_prefixes", "_suffixes", "excludes")

    def __init__(self, excludes: bool, patterns: list[str]) -> None:
        self.excludes = excludes
        self._exact: set[str] = set()
        prefixes: list[str] = []
        suffixes: list[str] = []
        tokens: list[list[Token]] = []
        for pattern in patterns:
            kind, value, expression = _translate(pattern)
            if kind == "exact":
                self._exact.add(value)
            elif kind == "prefix":
                prefixes.append(value)
            elif kind == "suffix":
                suffixes.append(value)
                if value.startswith("/"):
                    self._exact.add(value[1:])
            else:
                tokens.extend(_read(expression))
        self._prefixes, self._suffixes = tuple(prefixes), tuple(suffixes)
        # A pattern that takes no slash (``*.log``) is asked about first components only, for others have a parent; one
        # that takes none but in front (``**/*.pyc``) is asked about the last component.
        crossing = [alternative for alternative in tokens if crosses(alternative)]
        self._ask_flat = compile_tokens([alternative for alternative in tokens if not crosses(alternative)])
        self._ask_name = compile_tokens([alternative[1:] for alternative in crossing if _of_name(alternative)])
        self._ask = compile_tokens([alternative for alternative in crossing if not _of_name(alternative)])

    def __call__(self, path: str, name: str) -> bool:
        """``name`` is the last component of ``path``."""
        return bool(
            path in self._exact
            or path.endswith(self._suffixes)
            or path.startswith(self._prefixes)
            or (self._ask_name is not None and self._ask_name(name) and "\n" not in path[: -len(name)])
            or (self._ask_flat is not None and name == path and self._ask_flat(path))
            or (self._ask is not None and self._ask(path))
        )


class _Malformed:
    """A pattern that is no regular expression: patternmatcher says so when it is the first time asked."""

    __slots__ = ("_error", "excludes")

    def __init__(self, excludes: bool, error: TreeError) -> None:
        self.excludes = excludes
        self._error = error

    def __call__(self, path: str, name: str) -> bool:
        raise self._error


def _run(excludes: bool, patterns: list[str]) -> _Run | _Malformed:
    try:
        return _Run(excludes, patterns)
    except TreeError as error:
        return _Malformed(excludes, error)


def _of_name(tokens: list[Token]) -> bool:
    first = tokens[0]
    return isinstance(first, Star) and first.optional_directories and not crosses(tokens[1:])


class PatternSet:
    """Ignore-file patterns, compiled once. Paths are relative, clean and slash-separated. One thread at a time.

    Raises TreeError(code="invalid-pattern") with Go's words if a pattern is malformed; some malformed ones are, as in
    patternmatcher, found out only when a path is held against them.
    """

    __slots__ = ("_known", "_malformed", "_runs", "negated")

    def __init__(self, patterns: Iterable[str]) -> None:
        runs: list[tuple[bool, list[str]]] = []
        single: list[tuple[bool, list[str]]] = []
        for line in patterns:
            pattern = line.strip(_SPACE)
            if not pattern:
                continue
            pattern = clean(pattern)
            excludes = pattern[0] != "!"
            if not excludes:
                pattern = pattern[1:]
                if not pattern:
                    raise TreeError('illegal exclusion pattern: "!"', code="invalid-pattern")
            check_pattern(pattern)
            if not runs or runs[-1][0] != excludes:
                runs.append((excludes, []))
            runs[-1][1].append(pattern)
            single.append((excludes, [pattern]))
        self._runs: tuple[_Run | _Malformed, ...]
        try:
            self._runs = tuple(_Run(excludes, group) for excludes, group in runs)
            self._malformed = False
        except TreeError:
            self._runs = tuple(_run(excludes, group) for excludes, group in single)
            self._malformed = True
        self.negated = any(not run.excludes for run in self._runs)
        """True if some pattern begins with ``!``: something below a match may then be no match."""
        self._known: dict[str, int] = {}

    def matches(self, path: str) -> bool:
        """True if ``path``, or a directory above it, matches, and no later ``!`` pattern takes it out again."""
        if self._malformed:
            return self._one_by_one(path)
        last = self._mask(path).bit_length()
        return last > 0 and self._runs[last - 1].excludes

    def _one_by_one(self, path: str) -> bool:
        """As patternmatcher goes: what cannot change the answer is not asked, so that it may never come upon a mistake."""
        above = [path[:end] for end, char in enumerate(path) if char == "/"]
        matched = False
        for run in self._runs:
            if run.excludes != matched and any(run(one, one.rpartition("/")[2]) for one in (path, *above)):
                matched = run.excludes
        return matched

    def prunes(self, directory: str) -> bool:
        """True if ``directory`` matches and nothing below it can be taken out again: nobody need look inside."""
        if self._malformed:
            return False
        last = self._mask(directory).bit_length()
        return last > 0 and self._runs[last - 1].excludes and all(run.excludes for run in self._runs[last:])

    def _mask(self, path: str) -> int:
        # Bit n: a pattern of run n matches the path or a directory above it. Directories are remembered, files are not.
        parent, slash, name = path.rpartition("/")
        mask = 0
        if slash:
            known = self._known.get(parent)
            if known is None:
                known = self._ancestors(parent)
            mask = known
        bit = 1
        for run in self._runs:
            # A ``!`` with nothing before it to take back need not be asked.
            if not mask & bit and (mask or run.excludes) and run(path, name):
                mask |= bit
            bit <<= 1
        return mask

    def _ancestors(self, path: str) -> int:
        if len(self._known) > 65536:
            self._known.clear()
        mask = start = end = 0
        while end >= 0:
            end = path.find("/", end + 1)
            directory = path if end < 0 else path[:end]
            name = directory[start:]
            start = end + 1
            known = self._known.get(directory)
            if known is None:
                known = mask
                for number, run in enumerate(self._runs):
                    if not known >> number & 1 and run(directory, name):
                        known |= 1 << number
                self._known[directory] = known
            mask = known
        return mask


def match_path(pattern: str, name: str) -> bool:
    """Go's ``filepath.Match``: ``*`` and ``?`` do not cross ``/``.

    Raises TreeError(code="invalid-pattern") if the match comes upon a malformed part; like Go, it may never come there.
    """
    return _matcher(pattern)(name)


def check_pattern(pattern: str) -> None:
    """Raise TreeError(code="invalid-pattern") where patternmatcher does before it matches anything."""
    # It matches each pattern with "." for the sake of the error alone.
    _matcher(pattern)(".")


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> Callable[[str], bool]:
    chunks = _chunks(pattern)
    # Go takes the leftmost place for what follows a star and never comes back; that shows only if a class takes "/".
    if any(items is None or any(_is_class(item) and item.accepts("/") for item in items) for _, items in chunks):
        return lambda name: _match_chunks(chunks, name)
    tokens: list[Token] = []
    for star, items in chunks:
        tokens.extend([Star(_NO_SLASH)] if star else [])
        tokens.extend(items or [])
    ask = compile_tokens([tokens])
    assert ask is not None
    found = ask
    return lambda name: bool(found(name))


_NO_SLASH = Item("/", True)


def _is_class(item: Item) -> bool:
    return item.negated or bool(item.ranges)


_Chunk = tuple[bool, list[Item] | None]


def _match_chunks(chunks: list[_Chunk], name: str) -> bool:
    """Go's own way through a pattern of which a part (None) is malformed."""
    for number, (star, items) in enumerate(chunks):
        if items is None:
            raise _invalid()
        if star and not items:
            return "/" not in name
        last = number == len(chunks) - 1
        slash = name.find("/")
        for start in range((slash if slash >= 0 else len(name)) + 1 if star else 1):
            end = start + len(items)
            if len(name) < end or (last and len(name) > end):
                continue
            if all(item.accepts(char) for item, char in zip(items, name[start:end])):
                name = name[end:]
                break
        else:
            return False
    return not name


def _invalid() -> TreeError:
    return TreeError(
        "syntax error in pattern", code="invalid-pattern", hint="escape [ ] * ? with a backslash to mean themselves"
    )


def _chunks(pattern: str) -> list[_Chunk]:
    """A pattern cut before its stars: (begins with a star, single-character items or None if malformed)."""
    chunks: list[_Chunk] = []
    while pattern:
        rest = pattern.lstrip("*")
        star = len(rest) < len(pattern)
        index, inside = 0, False
        while index < len(rest) and (inside or rest[index] != "*"):
            if rest[index] == "\\" and index + 1 < len(rest):
                index += 1
            elif rest[index] in "[]":
                inside = rest[index] == "["
            index += 1
        try:
            chunks.append((star, _items(rest[:index])))
        except TreeError:
            chunks.append((star, None))
        pattern = rest[index:]
    return chunks


def _items(chunk: str) -> list[Item]:
    items: list[Item] = []
    index, end = 0, len(chunk)

    def escaped(position: int) -> tuple[str, int]:
        if position >= end or chunk[position] in "-]":
            raise _invalid()
        if chunk[position] == "\\":
            position += 1
        if position + 1 >= end:
            raise _invalid()
        return chunk[position], position + 1

    while index < end:
        char = chunk[index]
        index += 1
        if char == "?":
            items.append(_NO_SLASH)
        elif char == "\\":
            if index >= end:
                raise _invalid()
            items.append(Item(chunk[index]))
            index += 1
        elif char == "[":
            negated = index < end and chunk[index] == "^"
            index += negated
            ranges: list[tuple[str, str]] = []
            while not (ranges and index < end and chunk[index] == "]"):
                low, index = escaped(index)
                high = low
                if chunk[index] == "-":
                    high, index = escaped(index + 1)
                ranges.append((low, high))
            index += 1
            items.append(Item("", negated, tuple(pair for pair in ranges if pair[0] <= pair[1])))
        else:
            items.append(Item(char))
    return items


def _translate(pattern: str) -> tuple[str, str, str]:
    """(kind, literal, expression): kind is exact, prefix, suffix or regexp, told apart just as patternmatcher does."""
    kind, out, index, end = "exact", [], 0, len(pattern)
    first = True
    while index < end:
        char = pattern[index]
        index += 1
        if char == "*":
            if index < end and pattern[index] == "*":
                index += 1
                if index < end and pattern[index] == "/":
                    index += 1
                if index == end:
                    if kind == "exact":
                        kind = "prefix"
                    else:
                        kind = "regexp"
                        out.append(".*")
                else:
                    out.append("(.*/)?")
                    kind = "regexp"
                if first:
                    kind = "suffix"
            else:
                out.append("[^/]*")
                kind = "regexp"
        elif char == "?":
            out.append("[^/]")
            kind = "regexp"
        elif char in _ESCAPED:
            out.append("\\" + char)
        elif char == "\\":
            if index < end:
                out.append("\\" + pattern[index])
                index += 1
                kind = "regexp"
            else:
                out.append("\\")
        else:
            if char in "[]":
                kind = "regexp"
            out.append(char)
        first = False
    literal = pattern[:-2] if kind == "prefix" else pattern[2:] if kind == "suffix" else pattern
    return kind, literal, "".join(out)


_NAMED = {
    "d": ("", False, (("0", "9"),)),
    "D": ("", True, (("0", "9"),)),
    "w": ("_", False, (("0", "9"), ("A", "Z"), ("a", "z"))),
    "W": ("_", True, (("0", "9"), ("A", "Z"), ("a", "z"))),
    "s": ("\t\n\f\r ", False, ()),
    "S": ("\t\n\f\r ", True, ()),
}
_CONTROL = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_ANY = Item("\n", True)
_ALL = Item("", True)
_REPEAT = re.compile(r"\{([0-9]+)(,([0-9]*))?\}")


def _read(expression: str) -> list[list[Token]]:
    """The tokens, one list for each alternative, of such Go regular expressions as ``_translate`` makes."""
    tokens: list[Token] = []
    alternatives = [tokens]
    index, end = 0, len(expression)
    while index < end:
        char = expression[index]
        item: Item | None = None
        if char == "|":
            # ``^a|b$``: each half is anchored at one end only.
            tokens.append(Star(_ALL))
            tokens = [Star(_ALL)]
            alternatives.append(tokens)
            index += 1
            continue
        if char == "(":
            if not (tokens and isinstance(tokens[-1], Star) and tokens[-1].optional_directories):
                tokens.append(Star(_ANY, optional_directories=True))
            index += len("(.*/)?")
            continue
        if char == "^":
            tokens.append(Anchor())
            index += 1
            continue
        if char == "[":
            item, index = _read_class(expression, index + 1)
        elif char == "\\":
            if index + 1 >= end:
                # The backslash takes the meaning from the ``$`` that was to end the expression.
                tokens.extend((Item("$"), Star(_ALL)))
                break
            if expression[index + 1] in "bBA":
                tokens.append(Anchor() if expression[index + 1] == "A" else Boundary(expression[index + 1] == "b"))
                index += 2
                continue
            item, index = _read_escape(expression, index + 1)
        elif char == "{" and (repeat := _REPEAT.match(expression, index)):
            _repeat(tokens, int(repeat[1]), repeat[2], repeat[3])
            index = repeat.end()
            if expression[index : index + 1] == "*":
                raise _invalid()
            continue
        elif char == ".":
            item, index = _ANY, index + 1
        elif char == "*":
            raise _invalid()
        else:
            item, index = Item(char), index + 1
        if index < end and expression[index] == "*":
            index += 1
            if index < end and expression[index] == "*":
                raise _invalid()
            tokens.append(Star(item))
        else:
            tokens.append(item)
    return alternatives


def _repeat(tokens: list[Token], least: int, comma: str | None, most: str | None) -> None:
    item = tokens[-1] if tokens else None
    if not isinstance(item, Item) or least > 1000 or (most and not least <= int(most) <= 1000):
        raise _invalid()
    tokens[-1:] = [item] * least
    if comma and not most:
        tokens.append(Star(item))
    elif most:
        tokens.extend([Maybe(item)] * (int(most) - least))


_NUMBER = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}|x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]{1,6}\}")


def _read_escape(expression: str, index: int) -> tuple[Item, int]:
    """What the characters behind a backslash mean, and where they end."""
    char = expression[index]
    if char in _NAMED:
        letters, negated, ranges = _NAMED[char]
        return Item(letters, negated, ranges), index + 1
    if char in _CONTROL:
        return Item(_CONTROL[char]), index + 1
    number = _NUMBER.match(expression, index)
    if number is not None:
        digits = number[0].strip("x{}")
        code = int(digits, 16) if char == "x" else int(digits, 8)
        if code > 0x10FFFF:
            raise _invalid()
        return Item(chr(code)), number.end()
    if char.isascii() and not char.isalnum() and char != "_":
        return Item(char), index + 1
    raise _invalid()


_POSIX = {
    "alnum": (("0", "9"), ("A", "Z"), ("a", "z")),
    "alpha": (("A", "Z"), ("a", "z")),
    "ascii": (("\0", "\x7f"),),
    "blank": (("\t", "\t"), (" ", " ")),
    "cntrl": (("\0", "\x1f"), ("\x7f", "\x7f")),
    "digit": (("0", "9"),),
    "graph": (("!", "~"),),
    "lower": (("a", "z"),),
    "print": ((" ", "~"),),
    "punct": (("!", "/"), (":", "@"), ("[", "`"), ("{", "~")),
    "space": (("\t", "\r"), (" ", " ")),
    "upper": (("A", "Z"),),
    "word": (("0", "9"), ("A", "Z"), ("a", "z"), ("_", "_")),
    "xdigit": (("0", "9"), ("A", "F"), ("a", "f")),
}


def _read_class(expression: str, index: int) -> tuple[Item, int]:
    negated = expression[index : index + 1] == "^"
    index += negated
    ranges: list[tuple[str, str]] = []
    letters = ""
    first = True
    while first or expression[index : index + 1] != "]":
        if index >= len(expression):
            raise _invalid()
        # Go: a hyphen that is neither first nor last stands for a range only.
        if expression[index] == "-" and not first and expression[index + 1 : index + 2] != "]":
            raise _invalid()
        first = False
        named = re.compile(r"\[:(\^?)([a-z]+):\]").match(expression, index)
        if named:
            if named[1] or named[2] not in _POSIX:
                raise _invalid()
            ranges.extend(_POSIX[named[2]])
            index = named.end()
            continue
        if expression[index] == "\\" and expression[index + 1 : index + 2] in ("d", "w", "s"):
            more, _, pairs = _NAMED[expression[index + 1]]
            letters += more
            ranges.extend(pairs)
            index += 2
            continue
        low, index = _class_letter(expression, index)
        high = low
        if expression[index : index + 1] == "-" and expression[index + 1 : index + 2] not in ("", "]"):
            high, index = _class_letter(expression, index + 1)
            if high < low:
                raise _invalid()
        ranges.append((low, high))
    return Item(letters, negated, tuple(ranges)), index + 1


def _class_letter(expression: str, index: int) -> tuple[str, int]:
    char = expression[index]
    if char != "\\":
        return char, index + 1
    if index + 1 >= len(expression):
        raise _invalid()
    item, after = _read_escape(expression, index + 1)
    if item.negated or item.ranges or len(item.letters) != 1:
        raise _invalid()
    return item.letters, after
