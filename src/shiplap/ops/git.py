"""ADD of a git repository: the tree of one commit, by the git command line (2.30 or newer; reference 2.7).

A ref is first resolved to a commit, which then says everything: the snapshot is named by it and made once. Objects are
kept in a bare repository for each remote, one commit deep, so a next commit costs what changed. The hardening
of git itself stands in ``gitcommand``; here names are checked before git sees them.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from shiplap.errors import ContextError, quote
from shiplap.graph.operations import GitSource
from shiplap.ops.gitcommand import Git, GitFailure
from shiplap.ops.workbench import Fetched, Workbench
from shiplap.store.snapshots import EMPTY, remove_directory

REF_LIMIT = 1024
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|[/.]$|\.lock(/|$)|/\.")
_TEXT = r"[^\s\x00-\x1f\x7f]"
_USER = r"(?:[^@/?#\s\x00-\x1f\x7f-][^@/?#\s\x00-\x1f\x7f]*@)?"
_REMOTE = re.compile(rf"(https?|ssh|git)://{_USER}[A-Za-z0-9\[][A-Za-z0-9\[\]:._%-]*(?:[/?#]{_TEXT}*)?")
_SCP = re.compile(rf"[A-Za-z0-9_][\w-]*@[A-Za-z0-9][A-Za-z0-9.-]*:(?!-){_TEXT}+")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fetch_git(operation: GitSource, bench: Workbench) -> Fetched:
    """The snapshot with the tree of ``operation``. Raises ContextError: git-failed, no-such-ref, invalid-git-ref,
    invalid-git-url, invalid-checksum, digest-mismatch, not-found, ssh-not-forwarded, git-missing.
    """
    check_remote(operation.url)
    check_ref(operation.ref)
    checksum = operation.checksum.lower()
    if checksum and not re.fullmatch("[0-9a-f]{1,64}", checksum):
        raise ContextError(
            f"invalid checksum {operation.checksum[:80]} for Git URL, expected hex commit hash",
            code="invalid-checksum",
            hint="give the commit id that git rev-parse prints",
        )
    with bench.store.scratch("git") as scratch:
        return _Fetch(operation, bench, scratch, checksum).run()


def commit_time(operation: GitSource, bench: Workbench) -> int:
    """When the commit of ``operation`` was made, by its committer's clock, in seconds since 1970. Raises as ``fetch_git``."""
    check_remote(operation.url)
    check_ref(operation.ref)
    with bench.store.scratch("git") as scratch:
        return _Fetch(operation, bench, scratch, operation.checksum.lower()).time()


def check_remote(url: str) -> None:
    """Raise ContextError unless git may be given ``url``: no option, no helper (``ext::``), no file."""
    if not (_REMOTE.fullmatch(url) or _SCP.fullmatch(url)):
        raise ContextError("not the address of a git repository", code="invalid-git-url", hint="use https:// or ssh://")


def check_ref(ref: str) -> None:
    """Raise ContextError for a ref that git would not accept as a name, or would take for something else."""
    if ref and (len(ref) > REF_LIMIT or _BAD_REF.search(ref)):
        raise ContextError(
            f"invalid git ref {ref[:80]!r}", code="invalid-git-ref", hint="name a branch, a tag, or a whole commit id"
        )


def subdir_parts(subdir: str) -> list[str]:
    """The components of ``subdir``, taken from the root of the repository: what climbs higher stays there."""
    parts: list[str] = []
    for part in subdir.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


class _Fetch:
    def __init__(self, operation: GitSource, bench: Workbench, scratch: Path, checksum: str) -> None:
        self._operation = operation
        self._bench = bench
        self._checksum = checksum
        self._git = Git(operation.url, bench, scratch)
        self._scratch = scratch
        self._subdir = subdir_parts(operation.subdir)
        self._ref = ""
        """The full name that the ref turned out to have, if it is one."""

    def run(self) -> Fetched:
        commit = self._resolve()
        name = self._name(commit)
        store = self._bench.store
        if store.snapshots.get(name) is None:
            mirror = self._mirror()
            with store.once(f"git {mirror.name}", self._bench.check):
                if store.snapshots.get(name) is None:
                    self._make_snapshot(commit, mirror, name)
        return Fetched(name, f"{'sha1' if len(commit) == 40 else 'sha256'}:{commit}")

    def time(self) -> int:
        """The committer's time."""
        commit = self._resolve()
        mirror = self._mirror()
        with self._bench.store.once(f"git {mirror.name}", self._bench.check):
            self._bring(commit, mirror)
            return self._time(commit, mirror)

    def _mirror(self) -> Path:
        return self._bench.store.root / "git" / hashlib.sha256(os.fsencode(self._git.remote)).hexdigest()[:32]

    def _time(self, commit: str, mirror: Path) -> int:
        shown = self._git.run(
            "log", "-1", "--no-show-signature", "--format=%ct", f"{commit}^{{commit}}", git_dir=mirror
        )
        return int(shown.strip() or b"0")

    def _make_snapshot(self, commit: str, mirror: Path, name: str) -> None:
        fresh = not (mirror / "HEAD").exists()
        try:
            self._bring(commit, mirror)
            self._check_out(commit, mirror, name)
        except GitFailure:
            if fresh:
                raise
            # What is here may be damaged, or in the way (a branch that became a directory): begin anew, once.
            remove_directory(mirror)
            for left in ("tree", "git"):
                remove_directory(self._scratch / left)
            self._bring(commit, mirror)
            self._check_out(commit, mirror, name)

    def _name(self, commit: str) -> str:
        """What names the snapshot: all that its files depend on. A kept ``.git`` says whence it came, and as what."""
        operation = self._operation
        keep = [self._git.shown, self._ref] if self._keeps else []
        times = ["commit times"] if operation.commit_times else []
        parts = ["git", commit, "/".join(self._subdir), str(operation.submodules), *times, *keep]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

    @property
    def _keeps(self) -> bool:
        return self._operation.keep_git_dir and not self._subdir

    # -- which commit

    def _resolve(self) -> str:
        ref = self._operation.ref
        if _COMMIT.fullmatch(ref):
            self._verify(ref)
            return ref
        if self._operation.fetch_by_commit:
            return self._trusted(ref)
        if ref in ("", "HEAD"):
            listed = self._git.run("ls-remote", "--symref", "--", self._git.remote, "HEAD")
            found = _listing(listed)
            self._ref = _default_branch(listed)
            commit = found.get("HEAD", "")
            tagged = ""
        else:
            found = _listing(self._git.run("ls-remote", "--", self._git.remote, ref, ref + "^{}"))
            commit, tagged = self._choose(ref, found)
        if not _COMMIT.fullmatch(commit):
            raise ContextError(
                f"repository does not contain ref {ref or 'HEAD'}: {self._git.shown}",
                code="no-such-ref",
                hint="name a branch or a tag; a commit needs all of its 40 digits",
            )
        self._verify(commit, tagged)
        return tagged or commit

    def _trusted(self, ref: str) -> str:
        """``fetch-by-commit``: the checksum says the commit, and nobody is asked what the ref means."""
        if not _COMMIT.fullmatch(self._checksum):
            given = f"a full commit SHA checksum, got {quote(self._checksum)}" if self._checksum else ""
            raise ContextError(
                f"fetch-by-commit requires {given or 'a checksum or a commit SHA ref'}",
                code="invalid-checksum",
                hint="give ?commit= all 40 digits of the commit id",
            )
        if ref:
            self._ref = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
        return self._checksum

    def _choose(self, ref: str, found: dict[str, str]) -> tuple[str, str]:
        """The object that ``ref`` means and, for an annotated tag, the commit behind it; a branch goes before a tag."""
        for name in (
            "refs/" + ref.removeprefix("refs/"),
            "refs/heads/" + ref.removeprefix("refs/heads/"),
            "refs/tags/" + ref.removeprefix("refs/tags/"),
        ):
            if name in found:
                self._ref = name
                return found[name], found.get(name + "^{}", "")
        return "", ""

    def _verify(self, *commits: str) -> None:
        if self._checksum and not any(commit.startswith(self._checksum) for commit in commits if commit):
            raise ContextError(
                f"expected checksum to match {self._operation.checksum}, got {' or '.join(c for c in commits if c)}",
                code="digest-mismatch",
                hint="the ref was moved, or the checksum is out of date",
            )

    # -- its objects

    def _bring(self, commit: str, mirror: Path) -> None:
        """Have all objects of ``commit`` in ``mirror``, and ``refs/shiplap/<commit>`` to say so."""
        if (mirror / "HEAD").exists():
            if self._has(commit, mirror):
                return
        else:
            self._make(mirror, commit)
        self._download(commit, mirror)

    def _has(self, commit: str, mirror: Path) -> bool:
        try:
            self._git.run("rev-parse", "--verify", "--quiet", _kept(commit), git_dir=mirror)
        except GitFailure:
            return False
        return True

    def _make(self, mirror: Path, commit: str) -> None:
        mirror.parent.mkdir(mode=0o700, exist_ok=True)
        if mirror.exists():
            remove_directory(mirror)
        made = self._scratch / "mirror"
        self._git.run("init", "--quiet", "--bare", "--template=", _format(commit), "--", str(made))
        made.rename(mirror)

    def _download(self, commit: str, mirror: Path) -> None:
        # We hold the lock of this mirror: a lock that lies there is that of a process that was killed.
        (mirror / "shallow.lock").unlink(missing_ok=True)
        try:
            self._fetch(mirror, f"+{commit}:{_kept(commit)}")
        except GitFailure as failure:
            # A server may refuse to be asked for a commit: take what has a name, and see whether that is it.
            incoming = "refs/shiplap/incoming"
            if self._ref:
                self._fetch(mirror, f"+{self._ref}:{incoming}")
            else:
                self._fetch(mirror, "+refs/heads/*:refs/shiplap/heads/*", "+refs/tags/*:refs/shiplap/tags/*", deep=True)
            try:
                self._git.run("cat-file", "-e", f"{commit}^{{tree}}", git_dir=mirror)
            except GitFailure:
                raise failure from None
            self._git.run("update-ref", _kept(commit), commit, git_dir=mirror)

    def _fetch(self, mirror: Path, *wanted: str, deep: bool = False) -> None:
        depth = ["--depth=1"]
        if deep:
            depth = ["--unshallow"] if (mirror / "shallow").exists() else []
        command = ["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head"]
        try:
            self._git.run(*command, *depth, "--", self._git.remote, *wanted, git_dir=mirror)
        except GitFailure as failure:
            if "shallow capabilities" not in failure.message:
                raise
            self._git.run(*command, "--", self._git.remote, *wanted, git_dir=mirror)

    # -- its files

    def _check_out(self, commit: str, mirror: Path, name: str) -> None:
        with self._bench.store.snapshots.draft(EMPTY) as draft:
            tree = self._scratch / "tree" if self._subdir else Path(draft.diff)
            tree.mkdir(mode=0o755, exist_ok=True)
            os.chmod(draft.diff, 0o755)
            if self._keeps:
                git_dir = tree / ".git"
                self._clone(commit, mirror, git_dir)
            else:
                git_dir = self._scratch / "git"
                self._borrow(commit, mirror, git_dir)
            checkout = ("checkout", "--quiet", "--force", "--detach")
            self._git.run(*checkout, f"{commit}^{{commit}}", "--", git_dir=git_dir, work_tree=tree)
            if self._operation.submodules and _is_file(tree / ".gitmodules"):
                self._submodules(git_dir, tree)
            if self._keeps:
                self._git.run("config", "remote.origin.url", self._git.shown, git_dir=git_dir)
                (git_dir / "FETCH_HEAD").unlink(missing_ok=True)
            if self._subdir:
                self._lift(tree, draft.diff)
            if self._operation.commit_times:
                _set_times(draft.diff, self._time(commit, mirror))
            draft.commit(about=f"git {self._git.shown} {commit[:12]}", id=name)

    def _borrow(self, commit: str, mirror: Path, git_dir: Path) -> None:
        """A repository for this check-out alone (index, submodules), with the objects of the mirror."""
        self._git.run("init", "--quiet", "--template=", "--bare", _format(commit), "--", str(git_dir))
        self._git.run("config", "core.bare", "false", git_dir=git_dir)
        (git_dir / "objects" / "info").mkdir(exist_ok=True)
        (git_dir / "objects" / "info" / "alternates").write_bytes(os.fsencode(mirror / "objects") + b"\n")
        with suppress(FileNotFoundError):
            shutil.copyfile(mirror / "shallow", git_dir / "shallow")

    def _clone(self, commit: str, mirror: Path, git_dir: Path) -> None:
        """A repository of its own, to be kept. Fetched, not cloned: git links no file of ours into it (CVE-2022-39253)."""
        self._git.run("init", "--quiet", "--template=", _format(commit), "--", str(git_dir.parent))
        wanted = f"{_kept(commit)}:{self._ref}" if self._ref else _kept(commit)
        command = ("fetch", "--quiet", "--no-tags", "--update-head-ok", "--depth=1")
        self._git.run(*command, "--", str(mirror), wanted, git_dir=git_dir, protocols="file")

    def _submodules(self, git_dir: Path, tree: Path) -> None:
        # Relative addresses of submodules start from that of the repository.
        self._git.run("config", "remote.origin.url", self._git.remote, git_dir=git_dir)
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
        try:
            self._git.run(*update, git_dir=git_dir, work_tree=tree)
        except GitFailure as failure:
            # Told as it is: a mirror made anew would not mend it.
            raise ContextError(failure.message, code=failure.code, hint=failure.hint) from None
        if not self._keeps:
            # Each submodule has a file .git that names its repository by a path that will be gone.
            for directory, _, files in os.walk(tree):
                if ".git" in files:
                    os.unlink(os.path.join(directory, ".git"))

    def _lift(self, tree: Path, target: str) -> None:
        """Move what the subdirectory holds to ``target``. Its components must be directories, not links (CVE-2026-33748)."""
        fd = os.open(tree, _DIRECTORY)
        try:
            for part in self._subdir:
                try:
                    deeper = os.open(part, _DIRECTORY, dir_fd=fd)
                except (OSError, ValueError) as error:
                    why = "no such directory" if isinstance(error, FileNotFoundError) else "not a directory"
                    raise ContextError(
                        f"invalid subdir {'/'.join(self._subdir)[:200]!r}: {why} in {self._git.shown}",
                        code="not-found",
                        hint="name a directory of the repository after the colon: #ref:directory",
                    ) from None
                os.close(fd)
                fd = deeper
            for name in os.listdir(fd):
                os.rename(name, os.path.join(target, name), src_dir_fd=fd)
        finally:
            os.close(fd)


def _set_times(root: str, seconds: int) -> None:
    for directory, names, files in os.walk(root, topdown=False):
        for name in (*names, *files):
            os.utime(os.path.join(directory, name), (seconds, seconds), follow_symlinks=False)
    os.utime(root, (seconds, seconds))


def _listing(output: bytes) -> dict[str, str]:
    """What ``ls-remote`` printed: names to object ids."""
    found: dict[str, str] = {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        id, _, name = line.partition("\t")
        if name and _COMMIT.fullmatch(id):
            found[name] = id
    return found


def _default_branch(output: bytes) -> str:
    match = re.search(rb"^ref: (refs/\S+)\tHEAD$", output, re.MULTILINE)
    name = match[1].decode("utf-8", "surrogateescape") if match else ""
    check_ref(name)
    return name


def _kept(commit: str) -> str:
    return f"refs/shiplap/{commit}"


def _format(commit: str) -> str:
    return f"--object-format={'sha256' if len(commit) == 64 else 'sha1'}"


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
