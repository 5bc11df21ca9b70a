"""The operations of a build, as frozen structs. Whatever can change a result stands here, and so in the digest.

What cannot change a result (display names, source lines, parallelism) stands in :class:`shiplap.graph.node.About`.
Paths are POSIX text (surrogateescape for bytes that are no UTF-8). Input numbers index ``Node.inputs``; -1 is "none",
for a root file system: empty (scratch).
"""

from __future__ import annotations

import msgspec

NO_INPUT = -1


class ImageSource(msgspec.Struct, frozen=True, tag="image"):
    """The root file system of an image, by the digest of its manifest: the tag was resolved when the graph was made."""

    reference: str
    """Normalised reference; names the place to pull from, and is not part of the digest (see ``identity``)."""
    digest: str
    platform: str


class LocalSource(msgspec.Struct, frozen=True, tag="local"):
    """A directory of the building machine: ``name`` is ``context``, or that of a named context.

    ``ignore`` are the lines of the ignore file that applies, in order.
    """

    name: str
    ignore: tuple[str, ...] = ()


class HttpSource(msgspec.Struct, frozen=True, tag="http"):
    """One file from a URL, as a tree that holds it under ``filename``."""

    url: str
    filename: str
    checksum: str = ""


class GitSource(msgspec.Struct, frozen=True, tag="git"):
    """The tree of a git commit."""

    url: str
    ref: str = ""
    subdir: str = ""
    keep_git_dir: bool = False
    checksum: str = ""
    submodules: bool = True
    fetch_by_commit: bool = False
    """``checksum`` is a whole commit id, and taken at its word: the ref is not asked for."""
    commit_times: bool = False
    """Every file has the commit's time, not that of the check-out."""


class Mount(msgspec.Struct, frozen=True):
    """One ``RUN --mount``. ``kind`` is bind, cache, tmpfs, secret or ssh; ``target`` is absolute and clean."""

    kind: str
    target: str
    source: str = "/"
    input: int = NO_INPUT
    readonly: bool = True
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""
    """secret: the variable to set."""
    as_file: bool = True
    """secret: whether a file is made (not so for ``env=`` without a target)."""


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Run one process over a root file system (input ``rootfs``); the result is the changed file system."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    """``NAME=value``, in order; duplicates were folded."""
    cwd: str
    platform: str
    user: str = ""
    rootfs: int = 0
    mounts: tuple[Mount, ...] = ()
    files: tuple[Inline, ...] = ()
    """Heredoc scripts, seen read-only under /dev/pipes/NAME with mode 0755."""
    network: str = "default"
    security: str = "sandbox"
    hostname: str = "buildkitsandbox"
    extra_hosts: tuple[str, ...] = ()
    """``name=address``."""
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()


class Inline(msgspec.Struct, frozen=True):
    """A file whose content stands in the Dockerfile (heredoc)."""

    name: str
    data: bytes
    mode: int = 0o644


class Copy(msgspec.Struct, frozen=True, tag="copy"):
    """COPY or ADD from one input: ``sources`` (rooted patterns, as expanded) and ``inline`` files into ``dest``.

    ``dest`` is absolute; a trailing ``/`` or ``/.`` was kept, for it says "directory". ``owner`` and ``mode`` are as
    typed; names resolve in the destination. ``unpack``: None = ADD's rule (local archives are unpacked), for COPY False.
    """

    input: int
    sources: tuple[str, ...]
    dest: str
    inline: tuple[Inline, ...] = ()
    owner: str = ""
    mode: str = ""
    exclude: tuple[str, ...] = ()
    parents: bool = False
    unpack: bool | None = False
    reset_owner: bool = False
    """True for a build context: uid and gid of what is copied become 0."""


class MakeDirectory(msgspec.Struct, frozen=True, tag="mkdir"):
    """Make ``path`` and its missing parents with ``mode``; ``owner`` (as typed, may be a name) is for what is new."""

    path: str
    mode: int = 0o755
    owner: str = ""


FileAction = Copy | MakeDirectory


class FileChange(msgspec.Struct, frozen=True, tag="file"):
    """Apply ``actions`` in order to input ``base`` (-1: scratch); the result is one layer."""

    actions: tuple[FileAction, ...]
    base: int = 0


class Merge(msgspec.Struct, frozen=True, tag="merge"):
    """The inputs' layers on top of each other (``COPY --link``): input 0 is the lowest."""


Operation = ImageSource | LocalSource | HttpSource | GitSource | Run | FileChange | Merge

_encoder = msgspec.json.Encoder(order="deterministic")


def identity(operation: Operation) -> bytes:
    """The bytes that stand for ``operation`` in digests: its deterministic JSON, without what only says where to fetch."""
    if isinstance(operation, ImageSource):
        operation = msgspec.structs.replace(operation, reference="")
    try:
        return _encoder.encode(operation)
    except UnicodeEncodeError:
        # Bytes that are no UTF-8 are held as surrogates, which JSON has no place for: escape them all.
        import json

        return json.dumps(msgspec.to_builtins(operation), sort_keys=True).encode()
