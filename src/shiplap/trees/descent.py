"""Walks of trees that are deeper than Python's stack: a path may have 2047 levels (PATH_MAX), and a thousand calls in one
another are Python's limit.

A walk is written as if it called itself, but yields the walk of what is beneath instead; whoever runs it keeps the stack.
When a walk is broken off, those that wait for it are closed from the innermost out, so their ``finally`` is run in order.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import GeneratorType
from typing import Any, TypeVar

T = TypeVar("T")
Walk = Generator[Any, Any, T]
"""A walk that yields walks, is sent what they returned, and returns a T."""


def descend(walk: Walk[T]) -> T:
    """Run ``walk`` and all that it yields; what it returns."""
    stack: list[Walk[Any]] = [walk]
    returned: Any = None
    try:
        while stack:
            try:
                below = stack[-1].send(returned)
            except StopIteration as end:
                stack.pop()
                returned = end.value
            else:
                stack.append(below)
                returned = None
    finally:
        while stack:
            stack.pop().close()
    result: T = returned
    return result


def flatten(walk: Iterator[Any]) -> Iterator[Any]:
    """What ``walk`` yields, and where that is another walk (a generator), what that yields."""
    stack: list[Iterator[Any]] = [walk]
    try:
        while stack:
            for item in stack[-1]:
                if type(item) is GeneratorType:
                    stack.append(item)
                    break
                yield item
            else:
                stack.pop()
    finally:
        while stack:
            left = stack.pop()
            if isinstance(left, GeneratorType):
                left.close()
