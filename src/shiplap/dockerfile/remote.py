"""Sources that are fetched, as operations: files by URL, git repositories (reference 2.7)."""

from __future__ import annotations

import re

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.giturl import GitUrl
from shiplap.graph.operations import GitSource, HttpSource
from shiplap.trees.patterns import clean

_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")


def http_source(url: str, checksum: str = "") -> HttpSource:
    """The file at ``url``, named by the last part of its path. Raises Fault for what is no checksum."""
    from urllib.parse import unquote, urlsplit

    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        path = ""
    name = clean(path).rpartition("/")[2] if path.strip("/") else ""
    if checksum and not _CHECKSUM.fullmatch(checksum):
        raise _bad_digest(checksum)
    return HttpSource(url, name if name not in ("", ".", "..") else "__unnamed__", checksum)


def git_source(git: GitUrl, *, keep: bool | None = None, checksum: str = "") -> GitSource:
    """A repository as ADD has it; ``keep`` and ``checksum`` are its flags. Raises Fault if they contradict the URL."""
    if keep is not None and git.keep_git_dir is not None and keep != git.keep_git_dir:
        raise Fault(
            "inconsistent keep-git-dir configuration",
            code="invalid-git-url",
            hint="say it once: in the URL, or with the flag",
        )
    if checksum and git.checksum and checksum != git.checksum:
        raise Fault(
            f'checksum mismatch "{checksum}" != "{git.checksum}"',
            code="invalid-checksum",
            hint="say it once: in the URL, or with the flag",
        )
    return GitSource(
        git.remote,
        git.ref,
        git.subdir,
        keep_git_dir=bool(keep if git.keep_git_dir is None else git.keep_git_dir),
        checksum=git.checksum or checksum,
        submodules=git.submodules,
        fetch_by_commit=git.fetch_by_commit,
    )


def git_context(git: GitUrl, *, keep: bool = False, dated: bool = False) -> GitSource:
    """A repository as a build context. Unlike for ADD, ``mtime=commit`` counts, and goes without saying if ``dated``."""
    operation = git_source(git)
    return GitSource(
        operation.url,
        operation.ref,
        operation.subdir,
        keep_git_dir=operation.keep_git_dir or keep,
        checksum=operation.checksum,
        submodules=operation.submodules,
        fetch_by_commit=operation.fetch_by_commit,
        commit_times=git.commit_times if git.commit_times is not None else dated,
    )


def _bad_digest(text: str) -> Fault:
    algorithm, colon, encoded = text.partition(":")
    hint = "write sha256: and 64 hexadecimal digits"
    if not colon or not re.fullmatch(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*", algorithm) or not encoded:
        return Fault("invalid checksum digest format", code="invalid-checksum", hint=hint, at=text)
    if algorithm not in ("sha256", "sha384", "sha512"):
        return Fault("unsupported digest algorithm", code="invalid-checksum", hint=hint, at=text)
    lengths = {"sha256": 64, "sha384": 96, "sha512": 128}
    if len(encoded) != lengths[algorithm]:
        return Fault("invalid checksum digest length", code="invalid-checksum", hint=hint, at=text)
    return Fault("invalid checksum digest format", code="invalid-checksum", hint=hint, at=text)
