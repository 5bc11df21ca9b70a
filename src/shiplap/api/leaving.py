"""What is still done when this process has to end at once, and no ``with`` block comes to its end."""

from __future__ import annotations

import sys


def put_away() -> None:
    """Remove the temporary files of this process from the stores that it has open. Made to be called by a signal handler.

    Returns when none is left. Imports nothing but what is there already: who has no store open has no such files.
    """
    module = sys.modules.get("shiplap.store.store")
    if module is not None and hasattr(module, "abandon"):
        module.abandon()
