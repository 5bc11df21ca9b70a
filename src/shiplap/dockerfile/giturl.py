"""Which sources of ADD are git repositories, and what their fragment or query asks for (reference 2.7)."""

from __future__ import annotations

import re

import msgspec

from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.gotext import quote
from shiplap.dockerfile.paths import join
from shiplap.settings.boolean import parse_bool

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_QUERY = ("ref", "tag", "branch", "subdir", "commit", "keep-git-dir", "submodules", "mtime", "fetch-by-commit")
_SCP = r"([a-zA-Z0-9\-_]+)@([a-zA-Z0-9\-.]+):(.*?)(?:\?(.*?))?(?:#(.*))?"


class GitUrl(msgspec.Struct):
    """A git source: ``remote`` is what git fetches from."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True
    fetch_by_commit: bool = False
    """The checksum is the commit; the ref is what it is to be called."""
    commit_times: bool | None = None
    """``mtime=commit`` or ``mtime=checkout``; a build context heeds it, ADD does not."""


def parse_git_url(source: str) -> GitUrl | None:
    """The git source that ``source`` names; None if it is none. Raises Fault for a query that makes no sense."""
    scheme = _SCHEME.match(source)
    if scheme is None:
        scp = re.fullmatch(_SCP, source, re.DOTALL)
        if scp is None or source.startswith(("./", "../")):
            return None
        url = GitUrl(f"{scp[1]}@{scp[2]}:{scp[3]}")
        query, fragment = scp[4] or "", scp[5] or ""
    else:
        kind = scheme[1].lower()
        if kind not in ("http", "https", "ssh", "git"):
            return None
        rest, _, fragment = source.partition("#")
        rest, _, query = rest.partition("?")
        if kind in ("http", "https") and not rest.endswith(".git"):
            return None
        url = GitUrl(kind + rest[len(kind) :])
    if fragment:
        url.ref, _, subdir = _unescape(fragment).partition(":")
        url.subdir = join("/", subdir)[1:]
    if query:
        _apply_query(url, query)
    return url


def is_http(source: str) -> bool:
    """True for a URL that is fetched as one file."""
    if not source.startswith(("http://", "https://")):
        return False
    try:
        return parse_git_url(source) is None
    except Fault:
        # BuildKit asks whether it is git, and a bad query is no answer to that: the fault is told elsewhere.
        return True


def _unescape(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text, errors="surrogateescape")


def _apply_query(url: GitUrl, query: str) -> None:
    from urllib.parse import parse_qs

    tag = branch = ""
    for key, values in parse_qs(query, keep_blank_values=True, max_num_fields=100).items():
        value = values[0]
        if len(values) > 1:
            raise _bad(f"query {quote(key)} has multiple values")
        if not value and key not in ("submodules", "keep-git-dir", "fetch-by-commit"):
            raise _bad(f"query {quote(key)} has no value")
        if key == "ref":
            _agree("ref", url.ref, value)
            url.ref = value
        elif key == "tag":
            tag = value if value.startswith("refs/tags/") else "refs/tags/" + value
        elif key == "branch":
            branch = value if value.startswith("refs/heads/") else "refs/heads/" + value
        elif key == "subdir":
            _agree("subdir", url.subdir, value)
            url.subdir = value
        elif key in ("checksum", "commit"):
            url.checksum = value
        elif key in ("keep-git-dir", "submodules", "fetch-by-commit"):
            truth = parse_bool(value) if value else True
            if truth is None:
                raise _bad(f"invalid {key} value: {quote(value)}")
            if key == "keep-git-dir":
                url.keep_git_dir = truth
            elif key == "submodules":
                url.submodules = truth
            else:
                url.fetch_by_commit = truth
        elif key == "mtime":
            if value not in ("checkout", "commit"):
                raise _bad(f'invalid mtime value: {quote(value)} (must be "checkout" or "commit")')
            url.commit_times = value == "commit"
        else:
            raise _bad(f"unexpected query {quote(key)}")
    if tag:
        _agree("ref", url.ref, tag)
        url.ref = tag
    if branch:
        if tag:
            raise _bad("branch conflicts with tag")
        _agree("ref", url.ref, branch)
        url.ref = branch


def _agree(what: str, old: str, new: str) -> None:
    if old and old != new:
        raise _bad(f"{what} conflicts: {quote(old)} vs {quote(new)}")


def _bad(message: str) -> Fault:
    return Fault(
        message,
        code="invalid-git-url",
        hint="a query may hold " + ", ".join(_QUERY) + ", each once",
    )
