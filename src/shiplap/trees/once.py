"""Small files of a build context are read once: for their digest, and from memory by whoever then copies them."""

from __future__ import annotations

from shiplap.trees.entry import Entry

SMALL = 64 << 10
"""Largest file that is kept, in bytes: beyond that, opening it again is little beside reading it."""
MOST = 64 << 20
"""How many bytes are kept at a time."""


class ReadOnce:
    """Bytes and extended attributes of files that were read, until they are taken or have changed.

    Of use between a digest and the COPY that found no result for it: opening, reading and closing each of 20,000 files a
    second time is a quarter of that COPY. Used from several threads.
    """

    def __init__(self, most: int = MOST) -> None:
        self._files: dict[str, tuple[Entry, bytes, dict[str, bytes]]] = {}
        self._left = most

    def keep(self, path: str, entry: Entry, data: bytes, attributes: dict[str, bytes]) -> None:
        """Keep what was read of the file ``path``, if there is room."""
        if len(data) <= min(SMALL, self._left):
            self._left -= len(data)
            self._files[path] = entry, data, attributes

    def attributes(self, path: str, entry: Entry) -> dict[str, bytes] | None:
        """Its extended attributes; None if it is not kept, or was another."""
        kept = self._files.get(path)
        return kept[2] if kept is not None and _same(kept[0], entry) else None

    def take(self, path: str, entry: Entry) -> tuple[bytes, dict[str, bytes]] | None:
        """What was kept, which is not kept any longer; None if nothing was, or the file was another."""
        kept = self._files.pop(path, None)
        if kept is None:
            return None
        self._left += len(kept[1])
        return kept[1:] if _same(kept[0], entry) else None


def _same(kept: Entry, entry: Entry) -> bool:
    # As FileMemory has it. Who changes a file within one tick of the clock gets what its digest says.
    return (kept.inode, kept.size, kept.mtime, kept.ctime) == (entry.inode, entry.size, entry.mtime, entry.ctime)
