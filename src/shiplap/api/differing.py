"""How two images differ, wherever they are."""

from __future__ import annotations

from collections.abc import Callable

from shiplap.api.looking import wanted_platform
from shiplap.events.facts import Sink
from shiplap.images.difference import Difference, diff_images, plain_difference
from shiplap.images.location import parse_location
from shiplap.images.session import Session
from shiplap.settings import Settings

__all__ = ["Difference", "diff", "plain_difference"]


def diff(
    a: str,
    b: str,
    settings: Settings,
    *,
    platform: str = "",
    times: bool = True,
    most_contents: int = 20,
    sink: Sink = lambda fact: None,
    check: Callable[[], None] = lambda: None,
) -> Difference:
    """Compare the images at the locations ``a`` and ``b``; see ``images.difference.diff_images``."""
    with Session(settings, sink) as session:
        return diff_images(
            session.source(parse_location(a)),
            session.source(parse_location(b)),
            wanted_platform(platform, settings),
            session.spool,
            times=times,
            most_contents=most_contents,
            check=check,
        )
