"""Matches token patterns in linear time: by ``re`` where few stars make that safe, else by a lazily built automaton."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_FEW = 2
"""Stars up to which ``re`` is used: its worst case is the length of a path to that power."""
_REMEMBERED = 4096
"""Transitions an automaton remembers before it starts again."""


class Item:
    """One character out of ``letters`` and ``ranges``, or (``negated``) any other one."""

    __slots__ = ("letters", "negated", "ranges")

    def __init__(self, letters: str, negated: bool = False, ranges: tuple[tuple[str, str], ...] = ()) -> None:
        self.letters = letters
        self.negated = negated
        self.ranges = ranges

    def accepts(self, char: str) -> bool:
        inside = char in self.letters or any(low <= char <= high for low, high in self.ranges)
        return inside != self.negated

    def expression(self) -> str:
        inside = "".join(map(_escape, self.letters))
        inside += "".join(f"{_escape(low)}-{_escape(high)}" for low, high in self.ranges)
        if not inside:
            return r"[\s\S]" if self.negated else r"(?!)"
        if not self.negated and len(self.letters) == 1 and not self.ranges:
            return _escape(self.letters)
        return f"[{'^' if self.negated else ''}{inside}]"


class Star:
    """Any number of ``item``; or, for ``optional_directories``, nothing or anything up to and with a slash."""

    __slots__ = ("item", "optional_directories")

    def __init__(self, item: Item, optional_directories: bool = False) -> None:
        self.item = item
        self.optional_directories = optional_directories

    def expression(self) -> str:
        return f"(?:{self.item.expression()}*/)?" if self.optional_directories else f"{self.item.expression()}*"


class Maybe:
    """``item`` or nothing."""

    __slots__ = ("item",)

    def __init__(self, item: Item) -> None:
        self.item = item

    def expression(self) -> str:
        return self.item.expression() + "?"


class Anchor:
    """The beginning of the text."""

    __slots__ = ()

    def expression(self) -> str:
        return r"\A"


class Boundary:
    """Between two characters: where a word of ASCII letters ends or begins, or (not ``here``) where none does."""

    __slots__ = ("here",)

    def __init__(self, here: bool) -> None:
        self.here = here

    def expression(self) -> str:
        return r"(?a:\b)" if self.here else r"(?a:\B)"

    def lies(self, before: str, after: str) -> bool:
        """Whether it lies between these characters ("" at an end)."""
        return (_is_word(before) != _is_word(after)) == self.here


Token = Item | Star | Maybe | Anchor | Boundary


def compile_tokens(patterns: Sequence[Sequence[Token]]) -> Callable[[str], object] | None:
    """A predicate with a true value for texts that one of ``patterns`` matches whole; None if there are no patterns."""
    simple = [tokens for tokens in patterns if _stars(tokens) <= _FEW]
    tests: list[Callable[[str], object]] = [_Automaton(tokens) for tokens in patterns if _stars(tokens) > _FEW]
    if simple:
        source = "|".join("".join(token.expression() for token in tokens) for tokens in simple)
        tests.insert(0, re.compile(source).fullmatch)
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda text: any(test(text) for test in tests)


def crosses(tokens: Sequence[Token]) -> bool:
    """True if some token accepts a slash."""
    for token in tokens:
        if isinstance(token, Star) and token.optional_directories:
            return True
        item = token.item if isinstance(token, (Star, Maybe)) else token
        if isinstance(item, Item) and item.accepts("/"):
            return True
    return False


def _is_word(char: str) -> bool:
    return char == "_" or (char.isascii() and char.isalnum())


def _stars(tokens: Sequence[Token]) -> int:
    return sum(isinstance(token, (Star, Maybe)) for token in tokens)


def _escape(char: str) -> str:
    return char if char.isalnum() or char in "/_" or ord(char) > 127 else "\\" + char


class _Automaton:
    """States are positions between tokens, a set of them is the bits of an int, transitions are remembered."""

    __slots__ = ("_boundaries", "_closure", "_final", "_known", "_start", "_tokens")

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        size = len(tokens)
        self._final = 1 << size
        # What a state reaches without a character: over stars; an anchor is passed at the beginning only.
        self._closure = [1 << size] * (size + 1)
        starts = [1 << size] * (size + 1)
        for state in range(size - 1, -1, -1):
            here = 1 << state
            passes = isinstance(tokens[state], (Star, Maybe))
            self._closure[state] = here | (self._closure[state + 1] if passes else 0)
            starts[state] = here | (starts[state + 1] if passes or isinstance(tokens[state], Anchor) else 0)
        self._start = starts[0]
        self._boundaries = [(n, token) for n, token in enumerate(tokens) if isinstance(token, Boundary)]
        self._known: dict[tuple[int, str], int] = {}

    def __call__(self, text: str) -> bool:
        states = self._start
        if self._boundaries:
            return self._bounded(text)
        known = self._known
        for char in text:
            following = known.get((states, char))
            if following is None:
                following = self._step(states, char)
            states = following
            if not states:
                return False
        return bool(states & self._final)

    def _bounded(self, text: str) -> bool:
        """As ``__call__``, where what a character leads to hangs on the one before it."""
        states = self._start
        before = ""
        for char in (*text, ""):
            for state, token in self._boundaries:
                if states >> state & 1 and token.lies(before, char):
                    states |= self._closure[state + 1]
            if not char:
                break
            states, before = self._step(states, char), char
        return bool(states & self._final)

    def _step(self, states: int, char: str) -> int:
        result = 0
        for state, token in enumerate(self._tokens):
            if not states >> state & 1:
                continue
            if isinstance(token, Star):
                if token.optional_directories:
                    # The state loops inside "anything"; only a slash, not the loop, leads on.
                    if token.item.accepts(char):
                        result |= 1 << state
                    if char == "/":
                        result |= self._closure[state + 1]
                elif token.item.accepts(char):
                    result |= self._closure[state]
            elif not isinstance(token, Anchor | Boundary) and (
                token.item if isinstance(token, Maybe) else token
            ).accepts(char):
                result |= self._closure[state + 1]
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        self._known[states, char] = result
        return result
