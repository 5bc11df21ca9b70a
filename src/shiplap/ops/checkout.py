"""What git says of a directory of this machine: which commit is checked out there, whence, and whether anything was changed.

A build context may be anybody's: unpacked from an archive it brings a ``.git/config`` of its maker's. git is therefore asked
what it can answer without running a program that a repository names: names of commits and remotes, read from files. Only
``git status`` runs more (filters of content, a file system monitor, hooks, programs that fetch what a partial clone lacks),
so all of that is turned off for it by name. What the user's and the machine's configuration say goes on counting
(``safe.directory``, ``url.….insteadOf``, filters such as git-lfs): they are not the repository's to write.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from shiplap.errors import ContextError
from shiplap.oci.addresses import redacted

ANSWER_LIMIT = 64 << 10
PATIENCE = 10.0
"""Seconds that a question may take; a configuration that includes a FIFO would keep git forever."""
STATUS_PATIENCE = 120.0
"""Seconds that looking at every file may take."""
_GUARDS = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.sshCommand=false"),
    *("-c", "protocol.allow=never"),
    *("-c", "safe.bareRepository=explicit"),
)
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",  # status would write the index, and then runs a hook
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_PAGER": "cat",
}


class Checkout(NamedTuple):
    """``root``: absolute path of the work tree, no link in it; ``revision``: the commit, with ``-dirty`` if that was asked
    and something was changed, empty if there is none yet; ``source``: the remote's address as it may be told, or empty.
    """

    root: str
    revision: str = ""
    source: str = ""


def look(
    directory: str, programs: str, environment: Mapping[str, str], *, dirty: bool = False, check: Callable[[], None]
) -> Checkout | None:
    """The work tree that ``directory`` (absolute) lies in; None if it lies in none.

    ``programs`` is the PATH to find git on, ``environment`` what it is given besides: where the user's configuration is.
    ``dirty``: look whether anything was changed, too. ``check`` is called often, and raises if the build was cancelled.
    Raises ContextError (git-missing, git-failed) if there is a repository right here and git cannot read it.
    """
    import shutil

    program = shutil.which("git", path=programs)
    here = os.path.isdir(os.path.join(directory, ".git"))
    if program is None:
        if here:
            raise ContextError("git is not installed", code="git-missing", hint="install git 2.30 or newer")
        return None
    git = _Git(program, {**_ENVIRONMENT, "PATH": programs, **environment}, directory, check)
    try:
        inside, _, root = git.ask("rev-parse", "--is-inside-work-tree", "--show-toplevel").partition("\n")
    except _Failed as failed:
        if here:
            raise failed.error() from None
        return None
    if inside != "true":
        return None
    git = _Git(program, git.environment, root, check)
    return Checkout(root, git.revision(dirty), git.source())


class _Failed(Exception):
    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    def error(self) -> ContextError:
        lines = [line.strip() for line in self.said.split("\n") if line.strip()]
        first = lines[0].removeprefix("fatal: ") if lines else "git failed"
        command = next((line for line in lines if line.startswith("git config ")), "")
        return ContextError(first, code="git-failed", hint=command or None)


class _Git:
    def __init__(self, program: str, environment: Mapping[str, str], directory: str, check: Callable[[], None]) -> None:
        self._program = program
        self.environment = environment
        self._directory = directory
        self._check = check

    def revision(self, dirty: bool) -> str:
        """Not ``git show``, as buildx has it: that reads objects, and would fetch them."""
        commit = self.answer("rev-parse", "--verify", "--quiet", "HEAD")
        return f"{commit}-dirty" if commit and dirty and self.changed() else commit

    def source(self) -> str:
        """The address of the remote that the branch follows, else of origin, else of upstream."""
        branch = self.answer("symbolic-ref", "--quiet", "HEAD")
        followed = self.answer("for-each-ref", "--format=%(upstream:remotename)", branch) if branch else ""
        for remote in dict.fromkeys((followed, "origin", "upstream")):
            # A name that begins with a dash would be an option; git itself makes none.
            if remote and not remote.startswith("-") and (url := self.answer("remote", "get-url", remote)):
                return redacted(url)
        return ""

    def changed(self, ignored: bool = True) -> bool:
        """Whether anything differs from the commit, or lies here besides; so, too, if git cannot say."""
        try:
            filters = self._filters()
            if any("=" in name for name in filters):
                return True  # it cannot be turned off by name
            off = [
                word for name in filters for part in ("clean", "process") for word in ("-c", f"filter.{name}.{part}=")
            ]
            off += [word for name in filters for word in ("-c", f"filter.{name}.required=false")]
            flags = ("--porcelain", "--no-renames", "--ignore-submodules=dirty", *(("--ignored",) if ignored else ()))
            if self.ask("status", *flags, before=off, patience=STATUS_PATIENCE):
                return True
            modules = [os.path.join(self._directory, path) for path in self._submodules()]
        except _Failed:
            return True
        # Submodules one by one: each brings a configuration of its own.
        there = [path for path in modules if os.path.lexists(os.path.join(path, ".git"))]
        return any(_Git(self._program, self.environment, path, self._check).changed(ignored=False) for path in there)

    def _submodules(self) -> list[str]:
        if not os.path.isfile(os.path.join(self._directory, ".gitmodules")):
            return []
        words = ("config", "--file", ".gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$")
        told = self.ask(*words, fine=(0, 1)).split("\0")
        # One that names itself, or what it lies in, would be looked at for ever.
        paths = [os.path.normpath(item.partition("\n")[2]) for item in told if item]
        return [path for path in paths if path not in ("", ".") and not path.startswith(("/", ".."))]

    def _filters(self) -> list[str]:
        """Names of the filters of content that the repository itself brings."""
        told = self.ask(
            "config", "--null", "--show-scope", "--name-only", "--get-regexp", r"^filter\.", fine=(0, 1)
        ).split("\0")
        pairs = zip(told[::2], told[1::2], strict=False)
        keys = [key for scope, key in pairs if scope not in ("global", "system", "command")]
        return list(dict.fromkeys(key.removeprefix("filter.").rpartition(".")[0] for key in keys))

    def answer(self, *words: str) -> str:
        """The first line of what git says, without quotes, as buildx has it; empty if it fails."""
        try:
            return self.ask(*words).partition("\n")[0].replace("'", "")
        except _Failed:
            return ""

    def ask(
        self, *words: str, before: list[str] | None = None, patience: float = PATIENCE, fine: tuple[int, ...] = (0,)
    ) -> str:
        """What git prints, without the last end of line; its beginning, where that is long. Raises _Failed."""
        process = subprocess.Popen(
            [self._program, *_GUARDS, *(before or ()), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(self.environment),
            cwd=self._directory,
            start_new_session=True,
        )
        try:
            out, errors = _collect(process, time.monotonic() + patience, self._check)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if len(out) < ANSWER_LIMIT and process.returncode not in fine:
            raise _Failed(errors.decode("utf-8", "replace"))
        return os.fsdecode(out).removesuffix("\n")


def _collect(process: subprocess.Popen[bytes], until: float, check: Callable[[], None]) -> tuple[bytes, bytes]:
    """Both outputs; ends early when the first is long, and raises _Failed when time is up."""
    import selectors

    assert process.stdout is not None and process.stderr is not None
    found: dict[int, bytes] = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        for fd in found:
            selector.register(fd, selectors.EVENT_READ)
        out, errors = found
        while selector.get_map():
            check()
            if time.monotonic() > until:
                raise _Failed("git gives no answer")
            for key, _ in selector.select(0.2):
                piece = os.read(key.fd, ANSWER_LIMIT)
                if not piece:
                    selector.unregister(key.fd)
                found[key.fd] = (found[key.fd] + piece)[:ANSWER_LIMIT]
            if len(found[out]) >= ANSWER_LIMIT:
                break
        else:
            # Its end of the pipes is closed; it has next to nothing left to do.
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise _Failed("git gives no answer") from None
    return found[out], found[errors]
