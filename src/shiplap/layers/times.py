"""The modification times that a layer is written with."""

from __future__ import annotations

from typing import NamedTuple


class Times(NamedTuple):
    """What becomes of modification times: none is later than ``latest`` (seconds); ``alike``: all are ``latest``."""

    latest: int
    alike: bool = False

    def of(self, mtime: int) -> int:
        """The time to write, in seconds, for one in nanoseconds."""
        return self.latest if self.alike else min(mtime // 1_000_000_000, self.latest)
