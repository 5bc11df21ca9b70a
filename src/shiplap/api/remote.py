"""Build contexts from elsewhere: a git repository, an archive or a Dockerfile behind a URL (reference 6.2, 6.3).

They are nodes of the graph like any other source, brought here before the Dockerfile can be read. Ignore files do not
apply to them: what is in a repository or an archive was put there on purpose.
"""

from __future__ import annotations

from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from shiplap.api.context import Context, dockerfile_in
from shiplap.api.request import Request
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.giturl import GitUrl, is_http, parse_git_url
from shiplap.dockerfile.options import NamedContext
from shiplap.dockerfile.remote import git_context
from shiplap.errors import ContextError, ImageError
from shiplap.graph.node import About, Node
from shiplap.graph.operations import NO_INPUT, Copy, FileChange, GitSource, HttpSource, LocalSource
from shiplap.ops.workbench import Workbench
from shiplap.settings import Settings
from shiplap.settings.boolean import parse_bool
from shiplap.trees.root import find
from shiplap.trees.tree import Tree

FILENAME = "context"
"""The name of what a URL gives, as a context (BuildKit's name for it, too)."""
HEAD = 1024
"""Bytes that are looked at to tell an archive."""
_GITHUB = "github.com/"


def named_remote(value: str) -> NamedContext:
    """The named context that an address stands for. Raises ContextError(code="invalid-context")."""
    if _git_url(value) is not None:
        return NamedContext("git", f"https://{value}" if value.startswith(_GITHUB) else value)
    return NamedContext("http", value)


def open_remote_context(request: Request, settings: Settings, bench: Workbench) -> Context:
    """Fetch the context that ``request`` names by its address, and read its Dockerfile."""
    address = str(request.context)
    git = _git_url(address)
    about = About("[internal] load remote build context", instruction="FROM")
    if git is not None:
        keep = parse_bool(request.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR") or "")
        epoch = request.build_args.get("SOURCE_DATE_EPOCH")
        dated = bool(epoch) if epoch is not None else settings.source_date_epoch is not None
        operation = git_context(git, keep=bool(keep), dated=dated)
        return _context(request, Node(operation, (), about), bench)
    node = Node(HttpSource(address, FILENAME), (), about)
    with _tree(node, bench) as tree:
        archive = is_archive(_head(tree))
    if not archive:
        # The file is the Dockerfile; that it is also the only file of the context is as in BuildKit.
        return _context(request, node, bench, FILENAME)
    unpacked = FileChange((Copy(0, (f"/{FILENAME}",), "/", unpack=True),), base=NO_INPUT)
    return _context(request, Node(unpacked, (node,), About("[internal] unpack remote build context")), bench)


def _context(request: Request, node: Node, bench: Workbench, name: str = "") -> Context:
    if request.dockerfile_data is not None:
        _tree(node, bench).close()
        return Context(None, request.dockerfile_data, "Dockerfile", source=node)
    with _tree(node, bench) as tree:
        data, shown = dockerfile_in(tree, name or str(request.dockerfile or "Dockerfile"))
    return Context(None, data, shown if not name else "Dockerfile", source=node)


def moment_of(source: GitSource | HttpSource | LocalSource, unpacked: Path | None, bench: Workbench) -> int | None:
    """The time of a source, in seconds since 1970: of the commit, of the file, or of the newest file in an archive.

    ``unpacked`` is where an archive on standard input, the context, was unpacked. None if there is no such time.
    """
    if isinstance(source, GitSource):
        from shiplap.ops.git import commit_time

        return commit_time(source, bench)
    if isinstance(source, LocalSource):
        files = [entry.lstat() for entry in unpacked.rglob("*")] if unpacked is not None else []
        return max((int(file.st_mtime) for file in files if S_ISREG(file.st_mode)), default=None)
    with _tree(Node(source, (), About(f"[internal] time of {source.filename}")), bench) as tree:
        found = find(tree, source.filename)
        if found is None or found.entry is None:
            return None
        if found.entry.mtime:
            return found.entry.mtime // 1_000_000_000
        with open(found.parent.open_file(found.entry), "rb") as file:
            return _newest(file)


def _newest(file: BinaryIO) -> int | None:
    from shiplap.layers.compression import Decompressed
    from shiplap.layers.header import REGULAR
    from shiplap.layers.reader import TarReader

    try:
        members = TarReader(Decompressed(file))
        return max((int(member.mtime) for member in members if member.kind == REGULAR), default=None)
    except ImageError:
        return None


def _tree(node: Node, bench: Workbench) -> Tree:
    """The tree of ``node``, made if need be."""
    from shiplap.ops.driver import Driver

    driver = Driver([node], bench, 1)
    driver.solve()
    return bench.store.snapshots.tree(driver.result(node))


def is_archive(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a tar, or compressed as tars are."""
    from io import BytesIO

    from shiplap.layers.compression import detect
    from shiplap.layers.reader import TarReader

    if detect(head):
        return True
    try:
        return next(iter(TarReader(BytesIO(head))), None) is not None
    except ImageError:
        return False


def _git_url(address: str) -> GitUrl | None:
    github = address.startswith(_GITHUB)
    text = f"https://{address}" if github else address
    try:
        # For github.com/owner/repo alone the ".git" that tells a repository from a file goes without saying.
        git = parse_git_url(_with_suffix(text) if github else text)
    except Fault as fault:
        raise _not_a_context(fault.message) from None
    if git is None and not is_http(address):
        raise _not_a_context("neither a git repository nor a URL")
    return git


def _with_suffix(text: str) -> str:
    end = min((place for place in map(text.find, "?#") if place >= 0), default=len(text))
    path = text[:end].rstrip("/")
    return (path if path.endswith(".git") else path + ".git") + text[end:]


def _not_a_context(why: str) -> ContextError:
    return ContextError(
        f"invalid build context: {why}",
        code="invalid-context",
        hint="give a directory, https://host/repository.git#ref:directory, or the URL of an archive or Dockerfile",
    )


def _head(tree: Tree) -> bytes:
    found = find(tree, FILENAME)
    if found is None or found.entry is None:
        return b""
    with open(found.parent.open_file(found.entry), "rb") as file:
        return file.read(HEAD)
