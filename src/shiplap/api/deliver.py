"""What a build leaves behind: the image in the store, files, a push; one line of progress for each."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from shiplap.api.request import Output, Request
from shiplap.dockerfile.options import Plan
from shiplap.errors import ExportError, UsageError
from shiplap.events.facts import Sink
from shiplap.export.archive import archive_pieces, layout_files, write_archive, write_layout
from shiplap.export.aside import replacing
from shiplap.export.image import Assembled, Packing, assemble
from shiplap.export.moments import format_time
from shiplap.oci.reference import parse_reference
from shiplap.ops.workbench import telling
from shiplap.settings import Settings
from shiplap.store.index import now
from shiplap.store.results import Result, built_key
from shiplap.store.snapshots import EMPTY
from shiplap.store.store import Store
from shiplap.trees.tree import Tree


class Delivered(msgspec.Struct, frozen=True):
    """What was made of the result."""

    digest: str = ""
    config_digest: str = ""
    size: int = 0
    image_size: int = 0
    media_type: str = ""
    names: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    stored: Mapping[str, str] = {}
    """Digests by the names that the store knows the result under now."""
    archives: tuple[tuple[str, tuple[bytes | tuple[str, int], ...]], ...] = ()
    """Path and pieces of each archive written: bytes, or digest and size of a blob."""


def deliver(
    request: Request,
    plan: Plan,
    snapshot: str,
    store: Store,
    settings: Settings,
    sink: Sink,
    epoch: int | None,
    check: Callable[[], None],
    cancel: threading.Event | None = None,
) -> Delivered:
    """Carry out every output of ``request``; without one the image goes to the store."""
    outputs = request.outputs or (Output("image"),)
    if request.push and not any(output.type == "registry" for output in outputs):
        outputs = (*outputs, Output("registry"))
    return _Delivery(request, plan, snapshot, store, settings, sink, epoch, check, cancel).run(outputs)


class _Delivery:
    def __init__(
        self,
        request: Request,
        plan: Plan,
        snapshot: str,
        store: Store,
        settings: Settings,
        sink: Sink,
        epoch: int | None,
        check: Callable[[], None],
        cancel: threading.Event | None,
    ) -> None:
        self._request = request
        self._plan = plan
        self._snapshot = snapshot
        self._store = store
        self._settings = settings
        self._sink = sink
        self._epoch = epoch
        self._check = check
        self._cancel = cancel
        self._images: dict[Packing, Assembled] = {}
        self._done = Delivered()

    def run(self, outputs: tuple[Output, ...]) -> Delivered:
        for output in outputs:
            self._check()
            if output.type in ("image", "registry"):
                self._to_store(output)
                if output.type == "registry" or output.flag("push"):
                    self._push(output)
            elif output.type in ("oci", "docker"):
                self._archive(output)
            elif output.type in ("local", "tar"):
                self._rootfs(output)
        return self._done

    # -- each kind

    def _to_store(self, output: Output) -> None:
        assembled = self._assemble(output)
        names = self._names(output)
        with telling(
            self._sink, f"naming {assembled.manifest.digest}", "naming to " + (", ".join(names) or "the store")
        ):
            descriptor = assembled.manifest
            # Without a name it is known by its digest, until the next prune.
            stored = dict.fromkeys(names or (descriptor.digest,), descriptor.digest)
            for name in stored:
                self._store.images.put(name, descriptor.digest, descriptor.media_type, descriptor.size)
        self._done = msgspec.structs.replace(self._done, stored={**self._done.stored, **stored})

    def _push(self, output: Output) -> None:
        from shiplap.api.transfer import push_names

        names = self._names(output)
        if not names:
            raise UsageError(
                "tag is needed when pushing to registry", code="push-without-tag", hint="add -t REGISTRY/NAME:TAG"
            )
        digest = self._assemble(output).manifest.digest
        push_names(self._store, self._settings, self._sink, names, digest, self._cancel)

    def _archive(self, output: Output) -> None:
        assembled = self._assemble(output)
        as_directory = not output.flag("tar", True)
        title = f"exporting to {output.type} image format"
        with telling(self._sink, f"{output.type} {output.dest}", title):
            created = format_time(self._epoch if self._epoch is not None else int(now()))
            files = layout_files(self._store, assembled.manifest, self._names(output), created, output.type == "docker")
            if as_directory:
                write_layout(self._store, files, Path(output.dest))
            else:
                self._to_file(output.dest, lambda out: write_archive(self._store, files, out))
                archive = (os.path.abspath(output.dest), tuple(archive_pieces(self._store, files)))
                self._done = msgspec.structs.replace(self._done, archives=(*self._done.archives, archive))
        self._wrote(output.dest)

    def _rootfs(self, output: Output) -> None:
        from shiplap.export.rootfs import write_rootfs, write_rootfs_tar

        title = "exporting to client " + ("directory" if output.type == "local" else "tarball")
        with telling(self._sink, f"{output.type} {output.dest}", title), self._tree() as tree:
            if output.type == "local":
                write_rootfs(tree, Path(output.dest), self._epoch, self._check)
            else:
                self._to_file(output.dest, lambda out: write_rootfs_tar(tree, out, self._epoch, self._check))
        self._wrote(output.dest)

    # -- what they share

    def _assemble(self, output: Output) -> Assembled:
        level = output.attributes.get("compression-level", "")
        if level and not level.lstrip("-").isdigit():
            raise UsageError(f"compression-level must be a number, not {level!r}", code="invalid-compression")
        packing = Packing(
            compression=output.attributes.get("compression", "gzip"),
            level=int(level) if level else None,
            force=output.flag("force-compression"),
            docker_types=not output.flag("oci-mediatypes", True),
        )
        if packing not in self._images:
            with telling(self._sink, f"exporting {packing.profile}", "exporting layers"):
                self._images[packing] = assemble(
                    self._store, self._snapshot, self._plan.config, packing, epoch=self._epoch, check=self._check
                )
            # ``shiplap run`` finds the files here, instead of unpacking the image that was packed from them.
            self._store.results.put(
                built_key(self._images[packing].manifest.digest), Result(self._snapshot, ""), {}, "image"
            )
        assembled = self._images[packing]
        if not self._done.digest:
            self._done = msgspec.structs.replace(
                self._done,
                digest=assembled.manifest.digest,
                config_digest=assembled.config,
                size=assembled.manifest.size,
                image_size=assembled.size,
                media_type=assembled.manifest.media_type,
                names=self._names(output),
            )
        return assembled

    def _names(self, output: Output) -> tuple[str, ...]:
        named = [name for name in output.attributes.get("name", "").split(",") if name]
        return tuple(dict.fromkeys(str(parse_reference(name)) for name in (*named, *self._request.tags)))

    def _tree(self) -> Tree:
        return self._store.snapshots.tree(self._snapshot) if self._snapshot != EMPTY else Tree(())

    def _to_file(self, dest: str, write: Callable[[BinaryIO], None]) -> None:
        if dest == "-":
            if os.isatty(1):
                raise UsageError(
                    "dest is a terminal: refusing to write an archive to it",
                    code="output-is-terminal",
                    hint="redirect it",
                )
            if sys.stdout is None:
                raise ExportError("standard output is closed", code="cannot-write", hint="redirect it to a file")
            write(sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        path = Path(dest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as out:
                write(out)
        except OSError as error:
            raise ExportError(
                f"cannot write {dest}: {error.strerror}", code="cannot-write", hint="choose another dest="
            ) from None

    def _wrote(self, dest: str) -> None:
        self._done = msgspec.structs.replace(self._done, written=(*self._done.written, dest))
