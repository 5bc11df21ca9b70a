"""Did you mean: the nearest of some words, at an edit distance of at most two (BuildKit util/suggest)."""

from __future__ import annotations

from collections.abc import Iterable

_NEAR = 3


def nearest(word: str, options: Iterable[str], *, case_sensitive: bool = True) -> str:
    """The option nearest to ``word``, in its case unless ``case_sensitive``; "" if none is near or one is equal.

    Of several that are equally near the first is taken; pass a sorted list where the order means nothing.
    """
    asked = word if case_sensitive else word.lower()
    best, distance = "", _NEAR
    for option in options:
        candidate = option if case_sensitive else option.lower()
        if candidate == asked:
            return ""
        if abs(len(candidate) - len(asked)) >= distance or len(asked) > 1000:
            continue
        steps = _distance(asked, candidate)
        if steps < distance:
            best, distance = candidate, steps
    if best and not case_sensitive:
        return best.upper() if word == word.upper() and word != word.lower() else best
    return best


def did_you_mean(word: str, options: Iterable[str], *, case_sensitive: bool = True) -> str:
    """`` (did you mean X?)``, or nothing."""
    match = nearest(word, options, case_sensitive=case_sensitive)
    return f" (did you mean {match}?)" if match else ""


def _distance(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for number, char in enumerate(left, 1):
        previous, row[0] = row[0], number
        for column, other in enumerate(right, 1):
            previous, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, previous + (char != other)),
            )
    return row[-1]
