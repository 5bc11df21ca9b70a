"""Users and groups of an image, read from its own /etc/passwd and /etc/group; never from this machine's."""

from __future__ import annotations

import os

import msgspec

from shiplap.errors import ImageError
from shiplap.sandbox.spec import Identity
from shiplap.trees.root import find
from shiplap.trees.tree import Tree

FILE_LIMIT = 10 << 20
"""Largest passwd or group file that is read (CVE-2026-47262: a huge one must not eat the memory)."""
ID_LIMIT = (1 << 32) - 2


class _User(msgspec.Struct, frozen=True):
    name: str
    uid: int
    gid: int
    home: str


class Accounts:
    """The accounts of the file system ``tree``; files are read when first needed."""

    def __init__(self, tree: Tree | None) -> None:
        self._tree = tree
        self._lines: dict[str, list[list[str]]] = {}

    def identity(self, user: str) -> Identity:
        """Whom ``USER user`` means for a RUN: uid, gid and supplementary groups. Raises ImageError for unknown names.

        Rules of dockerfile semantics 2.4: numbers are numbers; ``name:group`` has that group only.
        """
        name, colon, group = user.partition(":")
        if not user:
            return Identity(0, 0, self._groups_of("root", 0))
        if name.isdigit():
            uid = _number(name)
            if colon:
                gid = self._gid(group)
                return Identity(uid, gid, (gid,))
            known = next((entry for entry in self._users() if entry.uid == uid), None)
            if known is None:
                return Identity(uid, 0, (0,))
            return Identity(uid, known.gid, self._groups_of(known.name, known.gid))
        known = next((entry for entry in self._users() if entry.name == name), None)
        if known is None:
            raise ImageError(
                f"unable to find user {name}: no matching entries in passwd file",
                code="unknown-user",
                hint="make the user first, with RUN adduser or useradd",
            )
        if colon:
            gid = self._gid(group)
            return Identity(known.uid, gid, (gid,))
        return Identity(known.uid, known.gid, self._groups_of(known.name, known.gid))

    def owner(self, text: str) -> tuple[int, int]:
        """Whom ``--chown=text`` means: uid and gid. Unknown names are 0, as BuildKit has it."""
        name, colon, group = text.partition(":")
        if name.isdigit():
            uid = gid = _number(name)
        else:
            known = next((entry for entry in self._users() if entry.name == name), None)
            uid, gid = (known.uid, known.gid) if known is not None else (0, 0)
        if colon and group.isdigit():
            gid = _number(group)
        elif colon:
            # BuildKit: an unknown group leaves the user's, an empty one is number 0.
            gid = next((g for n, g, _ in self._group_rows() if n == group), gid if group else 0)
        return uid, gid

    def home(self, uid: int) -> str:
        """The home directory of ``uid``, ``/`` if it is not known."""
        return next((entry.home for entry in self._users() if entry.uid == uid and entry.home), "/")

    def _gid(self, group: str) -> int:
        if group.isdigit():
            return _number(group)
        for name, gid, _ in self._group_rows():
            if name == group:
                return gid
        raise ImageError(f"unable to find group {group}: no matching entries in group file", code="unknown-group")

    def _groups_of(self, name: str, primary: int) -> tuple[int, ...]:
        # The primary group is among them, lest "negative" group permissions be passed by (CVE-2022-2989 and kin).
        groups = [primary, *(gid for _, gid, members in self._group_rows() if name in members)]
        return tuple(dict.fromkeys(groups))

    def _users(self) -> list[_User]:
        found = []
        for row in self._rows("etc/passwd"):
            if len(row) >= 4 and row[2].isdigit() and row[3].isdigit():
                found.append(_User(row[0], _number(row[2]), _number(row[3]), row[5] if len(row) > 5 else ""))
        return found

    def _group_rows(self) -> list[tuple[str, int, list[str]]]:
        return [
            (row[0], _number(row[2]), row[3].split(",") if len(row) > 3 else [])
            for row in self._rows("etc/group")
            if len(row) >= 3 and row[2].isdigit()
        ]

    def _rows(self, path: str) -> list[list[str]]:
        if path not in self._lines:
            self._lines[path] = [
                line.strip().split(":")
                for line in self._read(path).split("\n")
                if line.strip() and not line.startswith("#")
            ]
        return self._lines[path]

    def _read(self, path: str) -> str:
        found = find(self._tree, path) if self._tree is not None else None
        if found is None or found.entry is None or not found.entry.is_file:
            return ""  # absent, or a FIFO, a device, a directory: nobody is known
        if found.entry.size > FILE_LIMIT:
            raise ImageError(f"/{path} of the image is over {FILE_LIMIT} bytes", code="too-large")
        fd = found.parent.open_file(found.entry)
        try:
            return os.read(fd, FILE_LIMIT).decode("utf-8", "replace")
        finally:
            os.close(fd)


def _number(text: str) -> int:
    value = int(text[:20])
    if value > ID_LIMIT:
        raise ImageError(f"user or group id {text[:20]} is out of range", code="id-out-of-range")
    return value
