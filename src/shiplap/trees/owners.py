"""Owners, modes and devices that the machine would not let us set, kept on record beside a layer's directory.

With a user namespace of a single id, ``chown`` to anybody but root is refused (EINVAL) and device nodes cannot be made
(EPERM). The layer must carry them all the same, so they are written down by path and every tree reads through them.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from shiplap.oci.manifest import prepare
from shiplap.trees.entry import Entry


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """What a path really is. ``mode`` and ``rdev`` are -1 when the file system holds the truth."""

    uid: int
    gid: int
    mode: int = -1
    rdev: int = -1


prepare(dict[str, Owner])


class Owners:
    """Paths (relative, clean) to owners; empty where the machine could do it all."""

    __slots__ = ("changed", "paths")

    def __init__(self, paths: dict[str, Owner] | None = None) -> None:
        self.paths: dict[str, Owner] = paths or {}
        self.changed = False

    def __bool__(self) -> bool:
        return bool(self.paths)

    def applied(self, path: str, entry: Entry) -> Entry:
        """``entry`` as the layer means it."""
        owner = self.paths.get(path)
        if owner is None:
            return entry
        return msgspec.structs.replace(
            entry,
            uid=owner.uid,
            gid=owner.gid,
            mode=entry.mode if owner.mode < 0 else owner.mode,
            rdev=entry.rdev if owner.rdev < 0 else owner.rdev,
        )

    def record(self, path: str, owner: Owner) -> None:
        self.paths[path] = owner
        self.changed = True

    def forget(self, path: str) -> None:
        """``path`` and all below it are gone."""
        if not self.paths:
            return
        for known in [known for known in self.paths if known == path or known.startswith(path + "/")]:
            del self.paths[known]
            self.changed = True

    @staticmethod
    def file_for(directory: str) -> str:
        """Where the record of the layer directory ``directory`` lies."""
        return os.path.join(os.path.dirname(directory), "owners.json")

    @classmethod
    def load(cls, directory: str) -> Owners:
        """The record beside ``directory``; none means an empty one."""
        try:
            # No pathlib: a tree of n layers asks n times, and most have no record.
            with open(cls.file_for(directory), "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            return cls()
        return cls({_path(text): owner for text, owner in msgspec.json.decode(raw, type=dict[str, Owner]).items()})

    def save(self, directory: str) -> None:
        """Write the record beside ``directory`` if there is anything to write."""
        if self.changed:
            known = {_text(path): owner for path, owner in self.paths.items()}
            Path(self.file_for(directory)).write_bytes(msgspec.json.encode(known))


def _text(path: str) -> str:
    # Names of files are bytes, and JSON has no place for what is no UTF-8: each byte as the character of its number.
    return os.fsencode(path).decode("latin-1")


def _path(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))
