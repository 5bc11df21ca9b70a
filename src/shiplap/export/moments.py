"""Times as Go writes them into image configs: RFC 3339, UTC, nanoseconds without trailing zeros."""

from __future__ import annotations

import time


def format_time(seconds: float) -> str:
    """``2026-11-21T04:01:45.578832Z`` for seconds since the epoch (microseconds are kept)."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    fraction = f"{micros:06d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"
