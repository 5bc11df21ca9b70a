"""Laws of ignore files, for whatever hypothesis thinks of: they end, soon, with an answer or a TreeError."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shiplap.errors import TreeError
from shiplap.trees.patterns import PatternSet, clean, match_path, parse_ignore

PIECES = st.sampled_from(
    [
        *"ab/*?[]^-!\\.{}()|+$, \t",
        "**",
        "**/",
        "/**",
        "[a-c]",
        "[^a]",
        "\\*",
        "#",
        "é",
        "foo",
        "\\b",
        "{2}",
        "[[:alpha:]]",
    ]
)
PATTERNS = st.lists(PIECES, max_size=12).map("".join)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "foo", "é", "[", "*", "a.b", "!"]), min_size=1, max_size=5).map(
    "/".join
)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), PATHS)
def test_any_bytes(data: bytes, path: str) -> None:
    started = time.perf_counter()
    try:
        PatternSet(parse_ignore(data)).matches(path)
    except TreeError as error:
        assert error.code in ("invalid-pattern", "ignore-line-too-long")
    assert time.perf_counter() - started < 2


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PATTERNS, max_size=6), PATHS, PATHS)
def test_below_what_is_pruned_all_is_ignored(lines: list[str], above: str, below: str) -> None:
    try:
        rules = PatternSet(parse_ignore("\n".join(lines).encode()))
        pruned, ignored = rules.prunes(above), rules.matches(f"{above}/{below}")
    except TreeError:
        return
    assert ignored or not pruned


@settings(max_examples=400, deadline=None)
@given(st.lists(PATTERNS, max_size=6), PATHS)
def test_the_order_of_questions_does_not_matter(lines: list[str], path: str) -> None:
    try:
        fresh, used = (PatternSet(parse_ignore("\n".join(lines).encode())) for _ in range(2))
        for other in ("a", "b/a", "foo/é/[", path.rpartition("/")[0] or "x"):
            used.matches(other)
        assert fresh.matches(path) == used.matches(path)
    except TreeError:
        return


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab/. *", max_size=20))
def test_cleaning_twice_is_cleaning_once(path: str) -> None:
    assert clean(clean(path)) == clean(path)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["*", "?", "a", "*a", "[a-b]"]), min_size=1, max_size=40).map("".join),
    st.text("ab", max_size=200),
)
def test_stars_take_no_time(pattern: str, name: str) -> None:
    started = time.perf_counter()
    match_path(pattern, name)
    PatternSet(["**/" + pattern]).matches(name or "a")
    assert time.perf_counter() - started < 1
