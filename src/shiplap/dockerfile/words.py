"""Words: quotes, escapes and ``$`` expansion, by the grammar of BuildKit's Dockerfile shell lexer (reference 1.9).

Nothing here runs a shell. Output is bounded: a chain of ``ARG A=$A$A`` ends in an error, not in an empty machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import SPACE, quote, valid

EXPANSION_LIMIT = 1 << 20
"""Largest result of one expansion, in characters."""
_DEPTH_LIMIT = 64
_SPECIAL = frozenset("@*#?-$!0")
_END = "\ufffd"
"""What Go prints for the end of input where a character was due."""
_RUNS = re.compile(f"[{re.escape(SPACE)}]+|[^{re.escape(SPACE)}]+")
_GAP = re.compile(r"[\t\r ]*")

_BRACE = "close ${ with }, or escape the dollar"
_REPLACE = "write ${NAME/pattern/replacement}"
_QUOTE = "close the quote, or escape it"


_ORDINARY = re.compile(r"[\w./:@-]+", re.ASCII)
"""Nothing in such a word stands for something else, whatever the escape character (most names and paths are such)."""


class Lexer:
    """The settings of one use of the grammar."""

    __slots__ = ("escape", "raw_escapes", "raw_quotes", "skip_quotes", "skip_unset")

    def __init__(
        self,
        escape: str = "\\",
        *,
        raw_quotes: bool = False,
        raw_escapes: bool = False,
        skip_quotes: bool = False,
        skip_unset: bool = False,
    ) -> None:
        self.escape = escape
        self.raw_quotes = raw_quotes
        """Keep quotes in the result."""
        self.raw_escapes = raw_escapes
        """Keep escape characters in the result."""
        self.skip_quotes = skip_quotes
        """Quotes are ordinary characters (heredoc bodies)."""
        self.skip_unset = skip_unset
        """Leave variables that are not set as they are written."""

    def expand(
        self,
        word: str,
        env: Mapping[str, str],
        matched: set[str] | None = None,
        unmatched: set[str] | None = None,
    ) -> str:
        """The word with variables, quotes and escapes resolved; names looked up go to ``matched`` and ``unmatched``.

        Raises Fault ``failed to process "word": …``."""
        if word.isalnum() or _ORDINARY.fullmatch(word):
            return valid(word)
        return _Scan(self, word, env, matched, unmatched).run()[0]

    def split(self, text: str, env: Mapping[str, str]) -> list[str]:
        """Like ``expand``, but cut into words at white space that is not quoted, after expansion."""
        return _Scan(self, text, env, None, None, cut=True).run()[1]


class _Words:
    __slots__ = ("inside", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self.inside = False


class _Scan:
    __slots__ = ("buffer", "cut", "depth", "env", "lexer", "matched", "place", "produced", "raw", "text", "unmatched")

    def __init__(
        self,
        lexer: Lexer,
        text: str,
        env: Mapping[str, str],
        matched: set[str] | None,
        unmatched: set[str] | None,
        cut: bool = False,
    ) -> None:
        self.lexer = lexer
        # Go's text/scanner drops a byte order mark at the very start.
        self.text = valid(text).removeprefix("\ufeff")
        self.env = env
        self.matched = matched
        self.unmatched = unmatched
        self.cut = cut
        self.raw = lexer.raw_escapes
        self.place = 0
        self.depth = 0
        self.produced = 0
        # BuildKit has one buffer for the word being made, shared with and cleared by what stands in ``${…}``, so that
        # ``80-${END:-90}`` splits to ``90`` alone. It shows in EXPOSE only, and is kept.
        self.buffer: list[str] = []

    def run(self) -> tuple[str, list[str]]:
        try:
            return self._until("", self.raw)
        except Fault as fault:
            shown = self.text if len(self.text) <= 4096 else self.text[:4096]
            raise Fault(
                f"failed to process {quote(shown)}: {fault.message}", code=fault.code, hint=fault.hint
            ) from None

    def _peek(self) -> str:
        return self.text[self.place] if self.place < len(self.text) else ""

    def _next(self) -> str:
        if self.place >= len(self.text):
            return ""
        self.place += 1
        return self.text[self.place - 1]

    def _spend(self, text: str) -> str:
        self.produced += len(text)
        if self.produced > EXPANSION_LIMIT:
            raise Fault(
                f"the result is longer than {EXPANSION_LIMIT} characters",
                code="expansion-too-large",
                hint="a variable that holds itself more than once doubles with every instruction",
            )
        return text

    def _add(self, words: _Words, text: str) -> None:
        for run in _RUNS.findall(text):
            if run[0] not in SPACE:
                self.buffer.append(run)
                words.inside = True
            elif words.inside and self.buffer:
                words.words.append("".join(self.buffer))
                self.buffer.clear()
                words.inside = False

    def _add_raw(self, words: _Words, text: str) -> None:
        if text:
            self.buffer.append(text)
        words.inside = True

    def _until(self, stop: str, raw: bool) -> tuple[str, list[str]]:
        self.depth += 1
        if self.depth > _DEPTH_LIMIT:
            raise Fault("substitutions are nested too deeply", code="expansion-too-deep", hint="use ARGs for the parts")
        before, self.raw = self.raw, raw
        try:
            return self._read(stop)
        finally:
            self.raw = before
            self.depth -= 1

    def _read(self, stop: str) -> tuple[str, list[str]]:
        self.buffer.clear()
        words = _Words()
        out: list[str] = []
        lexer, text = self.lexer, self.text
        plain = _plain(lexer.escape, lexer.skip_quotes, self.cut, stop)
        while self.place < len(text):
            run = plain.match(text, self.place)
            if run is not None and run.end() > self.place:
                self.place = run.end()
                out.append(self._spend(run.group()))
                if self.cut:
                    self._add(words, run.group())
                continue
            char = text[self.place]
            if stop and char == stop:
                self.place += 1
                return "".join(out), self._finish(words)
            if char == "$":
                value = self._dollar()
                out.append(value)
                if self.cut:
                    self._add(words, value)
                continue
            if char == "<" and self.cut:
                value = self._angle()
            elif char == "'" and not lexer.skip_quotes:
                value = self._single()
            elif char == '"' and not lexer.skip_quotes:
                value = self._double()
            elif char == lexer.escape:
                value = self._escaped()
            else:
                self.place += 1
                out.append(self._spend(char))
                if self.cut:
                    self._add(words, char)
                continue
            out.append(value)
            if self.cut:
                self._add_raw(words, value)
        if stop:
            raise Fault(
                f"unexpected end of statement while looking for matching {stop}", code="unbalanced", hint=_QUOTE
            )
        return "".join(out), self._finish(words)

    def _finish(self, words: _Words) -> list[str]:
        if self.buffer:
            words.words.append("".join(self.buffer))
            self.buffer.clear()
        return words.words

    def _escaped(self) -> str:
        # An escape character at the end is dropped, unless such characters are kept.
        kept = self._next()
        if not self.raw:
            kept = ""
        return kept + self._next()

    def _angle(self) -> str:
        # "<< EOF" is one word, so that a heredoc may have blanks before its name.
        self.place += 1
        if self._peek() != "<":
            return "<"
        self.place += 1
        gap = _GAP.match(self.text, self.place)
        assert gap is not None
        self.place = gap.end()
        return "<<" + gap.group()

    def _single(self) -> str:
        end = self.text.find("'", self.place + 1)
        if end < 0:
            self.place = len(self.text)
            raise Fault(
                "unexpected end of statement while looking for matching single-quote", code="unbalanced", hint=_QUOTE
            )
        start, self.place = self.place, end + 1
        return self.text[start : end + 1] if self.lexer.raw_quotes else self.text[start + 1 : end]

    def _double(self) -> str:
        self.place += 1
        quote_mark = '"' if self.lexer.raw_quotes else ""
        out = [quote_mark]
        escape = self.lexer.escape
        plain = _quoted_plain(escape)
        while self.place < len(self.text):
            run = plain.match(self.text, self.place)
            if run is not None and run.end() > self.place:
                self.place = run.end()
                out.append(self._spend(run.group()))
                continue
            char = self.text[self.place]
            if char == '"':
                self.place += 1
                out.append(quote_mark)
                return "".join(out)
            if char == "$":
                out.append(self._dollar())
                continue
            self.place += 1
            if char == escape:
                if self.raw:
                    out.append(char)
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", escape):
                    char = self._next()
            out.append(char)
        raise Fault(
            "unexpected end of statement while looking for matching double-quote", code="unbalanced", hint=_QUOTE
        )

    def _get(self, name: str) -> str | None:
        value = self.env.get(name)
        if value is None:
            if self.unmatched is not None:
                self.unmatched.add(name)
        elif self.matched is not None:
            self.matched.add(name)
        return value

    def _name(self) -> str:
        start = self.place
        text = self.text
        if start >= len(text):
            return ""
        if text[start].isdecimal():
            while self.place < len(text) and text[self.place].isdecimal():
                self.place += 1
        elif text[start] in _SPECIAL:
            self.place += 1
        else:
            while self.place < len(text) and (_is_letter(text[self.place]) or text[self.place].isdecimal()):
                self.place += 1
        return text[start : self.place]

    def _dollar(self) -> str:
        self.place += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            if value is None:
                return "$" + name if self.lexer.skip_unset else ""
            return self._spend(value)
        self.place += 1
        first = self._peek()
        if not first:
            raise Fault("syntax error: missing '}'", code="unbalanced", hint=_BRACE)
        if first in "{}:":
            raise Fault(
                "syntax error: bad substitution", code="bad-substitution", hint="write ${NAME}, or escape the dollar"
            )
        name = self._name()
        mark = self._next()
        if mark == "}":
            value = self._get(name)
            if value is None:
                return f"${{{name}}}" if self.lexer.skip_unset else ""
            return self._spend(value)
        if mark == "/":
            return self._replace(name)
        shown = mark or _END
        colon = mark == ":"
        if colon:
            mark = self._next()
            shown += mark or _END
        if not colon and mark not in ("+", "-", "?", "#", "%"):
            raise _unsupported(shown)
        return self._modify(name, mark, colon, shown)

    def _modify(self, name: str, mark: str, colon: bool, shown: str) -> str:
        pattern = mark in ("#", "%")
        if colon and pattern:
            raise _unsupported(shown)
        word = self._word_until("}", pattern)
        value = self._get(name)
        if value is None and self.lexer.skip_unset:
            return f"${{{name}{shown}{word}}}"
        missing = value is None or (colon and value == "")
        if mark == "-":
            return word if missing else self._spend(value or "")
        if mark == "+":
            return "" if missing else word
        if mark == "?":
            if missing:
                default = "is not allowed to be unset" if value is None else "is not allowed to be empty"
                raise Fault(f"{name}: {word or default}", code="variable-required", hint=f"set {name}")
            return self._spend(value or "")
        if pattern:
            from shiplap.dockerfile import affix

            greedy = word.startswith(mark)
            trim = affix.trim_prefix if mark == "#" else affix.trim_suffix
            try:
                return self._spend(trim(word[greedy:], value or "", greedy))
            except Fault as fault:
                shown_word = word[greedy:] if mark == "#" else affix.reverse_pattern(word[greedy:])
                raise _bad_pattern(shown_word, fault) from None
        raise _unsupported(shown)

    def _replace(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self.place += 1
        pattern = self._word_until("/", True, "syntax error: missing '/' in ${}", _REPLACE)
        replacement = self._word_until("}", True)
        value = self._get(name)
        if value is None and self.lexer.skip_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        from shiplap.dockerfile import affix

        try:
            return self._spend(affix.replace(pattern, value or "", replacement, every, EXPANSION_LIMIT))
        except Fault as fault:
            raise _bad_pattern(pattern, fault) from None

    def _word_until(self, stop: str, raw: bool, missing: str = "syntax error: missing '}'", hint: str = _BRACE) -> str:
        try:
            return self._until(stop, raw)[0]
        except Fault as fault:
            # Whatever was wrong: at the end of the text BuildKit says that the end came too early.
            if self.place >= len(self.text) and not fault.code.startswith("expansion-"):
                raise Fault(missing, code="unbalanced", hint=hint) from None
            raise


def _is_letter(char: str) -> bool:
    return char.isalpha() or char == "_"


def _unsupported(shown: str) -> Fault:
    return Fault(
        f"unsupported modifier ({shown}) in substitution",
        code="unsupported-modifier",
        hint="there are :- - :+ + :? ? # ## % %% / and //",
    )


def _bad_pattern(pattern: str, fault: Fault) -> Fault:
    if fault.code != "invalid-pattern":
        return fault
    return Fault(f"invalid pattern ({pattern}) in substitution: {fault.message}", code=fault.code, hint=fault.hint)


@lru_cache(maxsize=64)
def _plain(escape: str, skip_quotes: bool, cut: bool, stop: str) -> re.Pattern[str]:
    special = "$" + escape + stop + ("" if skip_quotes else "'\"") + ("<" if cut else "")
    return re.compile(f"[^{re.escape(special)}]+")


@lru_cache(maxsize=4)
def _quoted_plain(escape: str) -> re.Pattern[str]:
    return re.compile(f'[^"${re.escape(escape)}]+')
