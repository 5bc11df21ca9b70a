"""Facts as JSON lines: each is one object with a ``type``, its fields, and bytes as base64."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from shiplap.events.facts import Fact


class JsonView:
    """Writes one line for each fact with ``write``, from any thread."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()

    def __call__(self, fact: Fact) -> None:
        line = self._encoder.encode(fact).decode()
        with self._lock:
            self._write(line + "\n")
