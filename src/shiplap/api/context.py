"""The build context and its Dockerfile: a directory, what came on standard input (a tar, or a Dockerfile alone), or a
repository or file from elsewhere (see ``remote``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from shiplap.api.request import Request
from shiplap.dockerfile.options import NamedContext
from shiplap.errors import ContextError, ImageError, UsageError
from shiplap.graph.node import Node
from shiplap.ops.workbench import Workbench
from shiplap.settings import Settings
from shiplap.trees.patterns import parse_ignore
from shiplap.trees.root import find
from shiplap.trees.tree import Tree

DOCKERFILE_LIMIT = 16 << 20
IGNORE_LIMIT = 16 << 20


class Context(msgspec.Struct, frozen=True):
    """``path`` is None when the context is not a directory of this machine; then ``source`` says what it is."""

    path: Path | None
    dockerfile: bytes
    dockerfile_name: str
    ignore: tuple[str, ...] = ()
    named: Mapping[str, NamedContext] = {}
    directories: Mapping[str, Path] = {}
    source: Node | None = None
    """Where the files come from, if not from this machine."""
    version: Mapping[str, str] = {}
    """What git says of the files, where it is to be told: see ``versions``."""
    layouts: Mapping[str, Path] = {}
    """OCI layouts that named contexts lie in, by the name (host and path) that stands for each."""


@contextmanager
def open_build_context(request: Request, settings: Settings, bench: Workbench | None = None) -> Iterator[Context]:
    """Make the context ready to read; ``bench`` fetches what is elsewhere. Raises ContextError, UsageError."""
    named, directories, layouts = _named(request)
    if request.context_data is None and is_remote(str(request.context)):
        from shiplap.api.remote import open_remote_context

        if bench is None:
            raise ContextError(
                "the context is not on this machine", code="no-context", hint="fetch it first, and name its directory"
            )
        found = open_remote_context(request, settings, bench)
        yield msgspec.structs.replace(found, named=named, directories=directories, layouts=layouts)
        return
    for context in _open_local(request, settings, bench, named, directories):
        yield msgspec.structs.replace(context, layouts=layouts)


def dockerfile_path(request: Request) -> str:
    """Where the Dockerfile of a directory lies; empty if it is no file."""
    if request.dockerfile_data is not None:
        return ""
    given = str(request.dockerfile) if request.dockerfile is not None else ""
    return given if given and os.path.lexists(given) else os.path.join(request.context, given or "Dockerfile")


def is_remote(text: str) -> bool:
    """Whether ``text`` is an address, not a path: a URL, ``user@host:path``, or github.com/… if there is no such directory."""
    import re

    if re.match(r"(https?|git|ssh)://", text) or re.match(r"[\w-]+@[\w.-]+:", text):
        return True
    return text.startswith("github.com/") and not Path(text).is_dir()


def _open_local(
    request: Request,
    settings: Settings,
    bench: Workbench | None,
    named: Mapping[str, NamedContext],
    directories: Mapping[str, Path],
) -> Iterator[Context]:
    if request.context_data is None:
        path = Path(request.context)
        if not path.is_dir():
            raise ContextError(
                f"unable to prepare context: path {str(path)!r} not found or not a directory",
                code="no-context",
                hint="name the directory that holds your files, as in: shiplap build .",
            )
        yield _with_dockerfile(request, path.resolve(), named, directories, local=True)
        return
    with _temporary(settings, bench) as path:
        if _unpack_archive(request.context_data, str(path)):
            yield _with_dockerfile(request, path, named, directories, local=False)
        else:
            if request.dockerfile is not None:
                raise UsageError(
                    "the Dockerfile comes on standard input: --file cannot name another",
                    code="two-dockerfiles",
                    hint="leave out -f, or give a directory as the context",
                )
            yield Context(path, request.context_data, "Dockerfile", (), named, directories)


@contextmanager
def _temporary(settings: Settings, bench: Workbench | None) -> Iterator[Path]:
    if bench is not None:
        # In the store, where the next build clears up what is left if this one is killed.
        with bench.store.scratch("context") as path:
            yield path
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="shiplap-context-", dir=settings.temporary or None) as temporary:
        yield Path(temporary)


def _with_dockerfile(
    request: Request, path: Path, named: Mapping[str, NamedContext], directories: Mapping[str, Path], *, local: bool
) -> Context:
    if request.dockerfile_data is not None:
        name, data = "Dockerfile", request.dockerfile_data
        ignore = _ignore(path, None) if local else ()
        return Context(path, data, name, ignore, named, directories)
    name = str(request.dockerfile) if request.dockerfile is not None else "Dockerfile"
    if request.dockerfile is None or not local:
        data, shown = _inside(path, name)
    else:
        # docker reads -f relative to where it was typed, and it may lie outside of the context.
        data, shown = _outside(Path(name), path)
    ignore = _ignore(path, Path(name) if request.dockerfile is not None else path / "Dockerfile") if local else ()
    return Context(path, data, shown, ignore, named, directories)


def _inside(path: Path, name: str) -> tuple[bytes, str]:
    with Tree((str(path),), live=True) as tree:
        return dockerfile_in(tree, name)


def dockerfile_in(tree: Tree, name: str) -> tuple[bytes, str]:
    """The Dockerfile ``name`` inside a context, and its name. Raises ContextError(code="no-dockerfile")."""
    data = _read_in(tree, name, DOCKERFILE_LIMIT)
    if data is None and name == "Dockerfile":
        data = _read_in(tree, "dockerfile", DOCKERFILE_LIMIT)
    if data is None:
        raise ContextError(
            f"failed to read dockerfile: open {name}: no such file or directory",
            code="no-dockerfile",
            hint="name it with -f FILE, or choose another context directory",
        )
    return data, name


def _outside(file: Path, context: Path) -> tuple[bytes, str]:
    for candidate in (file, context / file):
        try:
            data = candidate.read_bytes()
        except OSError:
            continue
        if len(data) > DOCKERFILE_LIMIT:
            raise ContextError(f"{file} is over {DOCKERFILE_LIMIT} bytes", code="too-large")
        return data, str(file)
    raise ContextError(
        f"failed to read dockerfile: open {file}: no such file or directory",
        code="no-dockerfile",
        hint="check the path after -f",
    )


def _ignore(context: Path, dockerfile: Path | None) -> tuple[str, ...]:
    """The patterns that apply: of ``<Dockerfile>.dockerignore`` beside it, even if empty, else of ``.dockerignore``."""
    if dockerfile is not None:
        beside = dockerfile.with_name(dockerfile.name + ".dockerignore")
        data = _read(beside.parent, beside.name, IGNORE_LIMIT)
        if data is not None:
            return parse_ignore(data)
    data = _read(context, ".dockerignore", IGNORE_LIMIT)
    return parse_ignore(data) if data is not None else ()


def _read(directory: Path, name: str, limit: int) -> bytes | None:
    """A file inside ``directory``, links followed inside it only (CVE-2022-4122: the ignore file may be a link out)."""
    if not directory.is_dir():
        return None
    with Tree((str(directory),), live=True) as tree:
        return _read_in(tree, name, limit)


def _read_in(tree: Tree, name: str, limit: int) -> bytes | None:
    found = find(tree, name)
    if found is None or found.entry is None or not found.entry.is_file:
        return None
    if found.entry.size > limit:
        raise ContextError(f"{name} is over {limit} bytes", code="too-large")
    with open(found.parent.open_file(found.entry), "rb") as file:
        return file.read(limit)


def _named(request: Request) -> tuple[dict[str, NamedContext], dict[str, Path], dict[str, Path]]:
    named: dict[str, NamedContext] = {}
    directories: dict[str, Path] = {}
    layouts: dict[str, Path] = {}
    for name, value in request.build_contexts.items():
        if isinstance(value, Request) or value.startswith("target:"):
            raise UsageError(
                f"the context {name} has to be built first", code="no-context", hint="ask for a build, not for a check"
            )
        if value.startswith("docker-image://"):
            named[name] = NamedContext(kind="image", value=value.removeprefix("docker-image://"), ignore=())
            continue
        if value.startswith("oci-layout://"):
            from shiplap.api.layout import find_layout

            reference, directory = find_layout(name, value)
            layouts[reference.partition("@")[0]] = directory
            named[name] = NamedContext(kind="image", value=reference)
            continue
        if is_remote(value):
            from shiplap.api.remote import named_remote

            named[name] = named_remote(value)
            continue
        path = Path(value)
        if not path.is_dir():
            raise ContextError(
                f"invalid context specifier {name}={value}: no such directory",
                code="no-context",
                hint="give a directory, docker-image://NAME, oci-layout://DIRECTORY, or a git or http URL",
            )
        # As buildx: the names of the two directories that each build has are theirs.
        local = f"_{name}" if name in ("context", "dockerfile") else name
        directories[local] = path.resolve()
        named[name] = NamedContext(kind="local", value=local, ignore=_ignore(path, None))
    return named, directories, layouts


def _unpack_archive(data: bytes, directory: str) -> bool:
    """Unpack ``data`` into ``directory`` if it is a tar, plain or compressed; whether it was one."""
    from io import BytesIO

    from shiplap.layers.compression import Decompressed
    from shiplap.layers.reader import TarReader
    from shiplap.layers.unpack import UnpackRule, unpack
    from shiplap.trees.change import ChangeTree

    try:
        if next(iter(TarReader(Decompressed(BytesIO(data)))), None) is None:
            return False
    except ImageError:
        return False
    with ChangeTree(directory, None) as target:
        unpack(Decompressed(BytesIO(data)), target, UnpackRule(whiteouts=False))
    return True
