"""Hashing beside whatever else is done with the bytes."""

from __future__ import annotations

import hashlib
import threading
from queue import SimpleQueue


class Hashing:
    """As hashlib's, with a thread of its own: what ``update`` is given is hashed meanwhile, two pieces behind at most."""

    def __init__(self, algorithm: str) -> None:
        self._hasher = hashlib.new(algorithm)
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = threading.Semaphore(2)
        self._thread = threading.Thread(target=self._work, name="shiplap-hash", daemon=True)
        self._thread.start()

    def update(self, data: bytes, /) -> None:
        self._room.acquire()
        self._pieces.put(data)

    def hexdigest(self) -> str:
        """Of all that was told; nothing may follow."""
        self.close()
        return self._hasher.hexdigest()

    def close(self) -> None:
        self._pieces.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (data := self._pieces.get()) is not None:
            self._hasher.update(data)
            self._room.release()
