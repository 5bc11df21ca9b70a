"""``shiplap version``."""

from __future__ import annotations

from shiplap import __version__


def run(name: str, argv: list[str]) -> int:
    """Show the version."""
    print(f"shiplap {__version__}")
    return 0
