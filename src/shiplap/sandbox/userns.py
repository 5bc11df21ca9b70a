"""Makes an ordinary user root of a user namespace of their own, as unshare(1) and podman do, and knows which ids exist.

With ranges in /etc/subuid and /etc/subgid and the setuid programs newuidmap and newgidmap (package uidmap), ids 0 to
65536 or so all exist inside. Without them there is one id: root inside is the user outside, and nobody else can own a
file.
"""

from __future__ import annotations

import errno
import os
from functools import lru_cache
from pathlib import Path

import msgspec

from shiplap.errors import SandboxError

Span = tuple[int, int, int]
"""First id inside, first id outside, how many."""
_EVERYTHING = ((0, 0, 0xFFFFFFFF),)


class IdMap(msgspec.Struct, frozen=True):
    """Which user and group ids exist here. ``single``: only root does, and it is the user who called."""

    uids: tuple[Span, ...]
    gids: tuple[Span, ...]
    single: bool = False

    @property
    def initial(self) -> bool:
        """Whether these are the machine's own ids: no user namespace is in between."""
        return self.uids == _EVERYTHING

    def has_uid(self, uid: int) -> bool:
        """Whether user ``uid`` exists inside."""
        return _covers(self.uids, uid)

    def has_gid(self, gid: int) -> bool:
        """Whether group ``gid`` exists inside."""
        return _covers(self.gids, gid)

    def outside(self, uid: int) -> int:
        """What user ``uid`` is on the machine. Raises SandboxError (unmapped-id) if nothing."""
        for inside, out, count in self.uids:
            if inside <= uid < inside + count:
                return out + uid - inside
        raise self._unmapped("user", uid)

    def require(self, uid: int, gid: int, *groups: int) -> None:
        """Raise SandboxError (unmapped-id) unless all of these exist inside."""
        if not self.has_uid(uid):
            raise self._unmapped("user", uid)
        for number in (gid, *groups):
            if not self.has_gid(number):
                raise self._unmapped("group", number)

    def _unmapped(self, kind: str, number: int) -> SandboxError:
        file = "/etc/subuid" if kind == "user" else "/etc/subgid"
        if self.single:
            hint = (
                "only root exists in this rootless build: install uidmap (newuidmap) and give yourself a range, "
                "e.g. sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
            )
        else:
            hint = f"the range in {file} is too small: it must cover {number}"
        return SandboxError(f"{kind} {number} does not exist in this user namespace", code="unmapped-id", hint=hint)


def _covers(spans: tuple[Span, ...], number: int) -> bool:
    return any(inside <= number < inside + count for inside, _, count in spans)


def current() -> IdMap:
    """The map of the user namespace this process is in (it cannot change once written, so it is read once)."""
    return _read_map(os.stat("/proc/self/ns/user").st_ino)


@lru_cache(maxsize=4)
def _read_map(_namespace: int) -> IdMap:
    uids, gids = (_spans(Path(f"/proc/self/{name}_map").read_text()) for name in ("uid", "gid"))
    return IdMap(uids, gids, single=all(count == 1 for _, _, count in uids))


def _spans(text: str) -> tuple[Span, ...]:
    rows = (tuple(int(word) for word in line.split()) for line in text.splitlines())
    return tuple((inside, outside, count) for inside, outside, count in rows)


def subordinate(text: str, user: str, uid: int) -> tuple[tuple[int, int], ...]:
    """Ranges (first, count) that /etc/subuid or /etc/subgid gives to ``user`` (subuid(5): by name or by number)."""
    found = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if owner in (user, str(uid)) and first.isdecimal() and count.isdecimal() and int(count) > 0:
            found.append((int(first), int(count)))
    return tuple(found)


def plan(own: int, ranges: tuple[tuple[int, int], ...]) -> tuple[Span, ...]:
    """Root inside is ``own``; 1 and up are the subordinate ranges, one after the other, without a gap inside.

    A range that holds ``own`` itself is cut there: an id may be mapped once only.
    """
    spans: list[Span] = [(0, own, 1)]
    inside = 1
    for first, count in ranges:
        parts = [(first, count)]
        if first <= own < first + count:
            parts = [(first, own - first), (own + 1, first + count - own - 1)]
        for start, size in parts:
            if size > 0:
                spans.append((inside, start, size))
                inside += size
    return tuple(spans)


def enter_user_namespace() -> IdMap:
    """Move this process, which must have one thread, into a new user and mount namespace where it is root.

    Call once, early. Does nothing for root. Raises SandboxError (no-userns), in plain words, where the machine forbids.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return current()
    uids, gids = (plan(own, _ranges(file, uid)) for own, file in ((uid, "/etc/subuid"), (gid, "/etc/subgid")))
    import shutil

    from shiplap.sandbox import linux  # ctypes, which root does without

    tools = [
        shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin") for name in ("newuidmap", "newgidmap")
    ]
    wide = len(uids) > 1 and len(gids) > 1 and None not in tools
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    target = os.getpid()
    child = os.fork() if wide else 0
    if wide and child == 0:
        os.close(ask)
        os.close(answered)
        _map_from_outside(asked, answer, target, [(tool or "", spans) for tool, spans in zip(tools, (uids, gids))])
    try:
        os.close(asked)
        os.close(answer)
        try:
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        except OSError as error:
            raise refusal(error) from error
        if wide:
            os.write(ask, b"g")
            wide = os.read(answered, 1) == b"y"
    finally:
        os.close(ask)
        os.close(answered)
        if child:
            os.waitpid(child, 0)
    if not wide:
        _map_single(uid, gid)
    return current()


def subordinate_ids(uid: int) -> int:
    """How many user ids /etc/subuid gives to the user ``uid``."""
    return sum(count for _, count in _ranges("/etc/subuid", uid))


def _ranges(file: str, uid: int) -> tuple[tuple[int, int], ...]:
    import pwd

    try:
        text = Path(file).read_text(errors="replace")
    except OSError:
        return ()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    return subordinate(text, user, uid)


def _map_from_outside(asked: int, answer: int, target: int, maps: list[tuple[str, tuple[Span, ...]]]) -> None:
    """The child, still outside: once asked, let the setuid programs write the maps of ``target``. Never returns."""
    done = b"n"
    try:
        if os.read(asked, 1) == b"g":
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            for tool, spans in maps:
                words = [str(number) for span in spans for number in span]
                if os.spawnve(os.P_WAIT, tool, [tool, str(target), *words], {}) != 0:
                    break
            else:
                done = b"y"
        os.write(answer, done)
    finally:
        os._exit(0)


def _map_single(uid: int, gid: int) -> None:
    """Root inside is the caller. setgroups has to be given up first (Linux 3.19, CVE-2014-8989). A map that one of the
    setuid programs did write stays."""
    for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
        path = f"/proc/self/{name}"
        if name != "setgroups" and Path(path).read_text().strip():
            continue
        try:
            fd = os.open(path, os.O_WRONLY)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise refusal(error) from error


def refusal(error: OSError) -> SandboxError:
    """Why this machine refuses a user namespace, and the one line that allows it."""
    setting = {
        "user.max_user_namespaces": "0",
        "kernel.unprivileged_userns_clone": "0",
        "kernel.apparmor_restrict_unprivileged_userns": "1",
    }
    for name, bad in setting.items():
        if sysctl(name) == bad:
            good = {"user.max_user_namespaces": "15000", "kernel.unprivileged_userns_clone": "1"}.get(name, "0")
            return SandboxError(
                f"this machine forbids user namespaces to ordinary users ({name} = {bad})",
                code="no-userns",
                hint=f"sudo sysctl -w {name}={good}",
            )
    if error.errno == errno.EINVAL:
        return SandboxError(
            "a process with several threads cannot enter a user namespace",
            code="no-userns",
            hint="use the shiplap command, which enters one before it starts threads, or run as root",
        )
    if error.errno == errno.ENOSPC:
        return SandboxError(
            "too many user namespaces are in use, or nested too deeply",
            code="no-userns",
            hint="sudo sysctl -w user.max_user_namespaces=15000",
        )
    return SandboxError(
        f"this machine refuses a user namespace: {error.strerror}",
        code="no-userns",
        hint="inside a container, start the outer one with --security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined --security-opt systempaths=unconfined",
    )


def sysctl(name: str) -> str:
    """Value of a kernel setting; empty if this kernel does not have it."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""
