"""Who a process of a step takes itself for, where the kernel knows one user only: credentials(7) without a kernel.

Three tuples: real, effective, saved and file system user; the same four of the group; the supplementary groups. Whoever's
effective user is 0 may become anybody, as with CAP_SETUID and CAP_SETGID.
"""

from __future__ import annotations

import errno

Ids = tuple[int, ...]
Credentials = tuple[Ids, Ids, Ids]

REAL, EFFECTIVE, SAVED, FILES = range(4)
_UNCHANGED = 0xFFFFFFFF


class Denied(Exception):
    """The call fails with ``number`` (an errno)."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def root(groups: Ids) -> Credentials:
    """Root with these supplementary groups."""
    return (0, 0, 0, 0), (0, 0, 0, 0), tuple(sorted(groups))


def is_root(who: Credentials) -> bool:
    """Whether nothing of these credentials is anybody else's."""
    return not any(who[0]) and not any(who[1])


def changed(who: Credentials, call: str, arguments: Ids) -> Credentials:
    """The credentials after ``call`` (setuid, setreuid, setresuid, setfsuid, or the same of groups) with its arguments.

    Raises Denied. setfsuid(2) is never denied, it then changes nothing.
    """
    users, groups, others = who
    wanted = tuple(number & _UNCHANGED for number in arguments)
    free = users[EFFECTIVE] == 0
    if "gid" in call:
        return users, _changed(groups, call.replace("gid", "uid"), wanted, free), others
    return _changed(users, call, wanted, free), groups, others


def _changed(ids: Ids, call: str, wanted: Ids, free: bool) -> Ids:
    real, effective, saved, files = ids
    if call == "setuid":
        if wanted[0] == _UNCHANGED:
            raise Denied(errno.EINVAL)
        if not free and wanted[0] not in (real, saved):
            raise Denied(errno.EPERM)
        return (wanted[0],) * 4 if free else (real, wanted[0], saved, wanted[0])
    if call == "setfsuid":
        allowed = wanted[0] != _UNCHANGED and (free or wanted[0] in ids)
        return real, effective, saved, wanted[0] if allowed else files
    if call == "setreuid":
        new_real, new = (
            old if number == _UNCHANGED else number for old, number in zip((real, effective), wanted, strict=False)
        )
        if not free and (new_real not in (real, effective) or new not in (real, effective, saved)):
            raise Denied(errno.EPERM)
        if wanted[0] != _UNCHANGED or (wanted[1] != _UNCHANGED and new != real):
            saved = new
        return new_real, new, saved, new
    if not free and any(number not in (real, effective, saved, _UNCHANGED) for number in wanted[:3]):
        raise Denied(errno.EPERM)
    real, effective, saved = (
        old if number == _UNCHANGED else number for old, number in zip(ids[:3], wanted, strict=False)
    )
    return real, effective, saved, effective


def with_groups(who: Credentials, groups: Ids) -> Credentials:
    """The credentials after setgroups(2). Raises Denied."""
    if who[0][EFFECTIVE] != 0:
        raise Denied(errno.EPERM)
    return who[0], who[1], tuple(sorted(groups))


def executed(who: Credentials, uid: int | None, gid: int | None) -> Credentials:
    """The credentials after exec of a program with the setuid bit and owner ``uid`` (None: without), likewise ``gid``."""
    user = who[0][EFFECTIVE] if uid is None else uid
    group = who[1][EFFECTIVE] if gid is None else gid
    return (who[0][REAL], user, user, user), (who[1][REAL], group, group, group), who[2]


def may_give(who: Credentials, owner: tuple[int, int], uid: int | None, gid: int | None) -> bool:
    """Whether chown(2) of a file of ``owner`` (uid, gid) to these (None: unchanged) is allowed."""
    if who[0][FILES] == 0:
        return True
    if who[0][FILES] != owner[0] or uid not in (None, owner[0]):
        return False
    return gid in (None, owner[1], who[1][FILES], *who[2])
