"""What a build leaves behind: the image in the store, files, a push; one line of progress for each."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from shiplap.api.attesting import Attesting, read_attests
from shiplap.api.outcome import Built, Delivered
from shiplap.api.request import ImageResult, Output, Request
from shiplap.errors import ExportError, UsageError
from shiplap.events.facts import Sink, Warned
from shiplap.export.annotations import Annotations, read_annotations
from shiplap.export.archive import archive_pieces, layout_files, write_archive, write_layout
from shiplap.export.aside import writing
from shiplap.export.image import Assembled, Packing, assemble
from shiplap.export.moments import format_time
from shiplap.layers.times import Times
from shiplap.oci.manifest import Descriptor
from shiplap.oci.platform import Platform
from shiplap.oci.reference import parse_reference
from shiplap.ops.workbench import telling
from shiplap.settings import Settings
from shiplap.store.index import now
from shiplap.store.results import Result as SolvedResult
from shiplap.store.results import built_key
from shiplap.store.store import Store
from shiplap.trees.tree import Tree

REPRODUCIBLE_LEVEL = 6
"""gzip with a level is zlib's, the same bytes on every processor; the default is faster, and not."""


class Exported(msgspec.Struct, frozen=True):
    """What names point to (the manifest of one image or the index of all), and the images.

    ``referrers``: attestations that no index names, for they refer to their images.
    """

    root: Descriptor
    images: tuple[Assembled, ...]
    referrers: tuple[Descriptor, ...] = ()


def deliver(
    request: Request,
    built: Sequence[Built],
    store: Store,
    settings: Settings,
    sink: Sink,
    attesting: Attesting,
    check: Callable[[], None],
    cancel: threading.Event | None = None,
) -> Delivered:
    """Carry out every output of ``request``; without one the image goes to the store."""
    outputs = request.outputs or (Output("image"),)
    if request.push and not any(output.type == "registry" for output in outputs):
        outputs = (*outputs, Output("registry"))
    delivery = _Delivery(request, built, store, settings, sink, attesting, check, cancel)
    for output in outputs:
        check()
        delivery.carry_out(output)
    if request.load:
        check()
        delivery.load()
    return delivery.done


def check_outputs(request: Request, platforms: Sequence[Platform]) -> None:
    """Raise, before anything is built, what ``deliver`` could only raise in the end."""
    several = len(platforms) > 1
    asked = bool(read_attests(request.attests))
    for output in request.outputs or (Output("image"),):
        if output.type in ("local", "tar", "cacheonly"):
            continue
        packing = _packing(output).checked()
        apart = output.flag("referrers")
        attested = asked and not apart
        if asked and apart and not (output.type == "registry" or output.flag("push")):
            raise UsageError(
                "referrers=true is for images that are pushed",
                code="invalid-attestation",
                hint="--output type=registry,referrers=true",
            )
        read_annotations(request.annotations, output.attributes).check(
            platforms, several or attested, packing.docker_types
        )
        if attested and packing.docker_types:
            raise UsageError(
                'cannot export attestations with "oci-mediatypes=false"',
                code="invalid-attestation",
                hint="leave it out",
            )
        if output.type == "docker" and (several or attested):
            raise UsageError(
                "docker exporter does not support exporting manifest lists",
                code="docker-index",
                hint="use --output type=oci, or build for one platform, without attestations",
            )


class _Delivery:
    def __init__(
        self,
        request: Request,
        built: Sequence[Built],
        store: Store,
        settings: Settings,
        sink: Sink,
        attesting: Attesting,
        check: Callable[[], None],
        cancel: threading.Event | None,
    ) -> None:
        self._request = request
        self._built = built
        self._store = store
        self._settings = settings
        self._sink = sink
        self._attesting = attesting
        self._epoch = built[0].plan.epoch
        self._check = check
        self._cancel = cancel
        self._exported: dict[tuple[Packing, Annotations, bool, bool], Exported] = {}
        self._said: set[str] = set()
        self.done = Delivered()

    def carry_out(self, output: Output) -> None:
        if output.type in ("image", "registry"):
            self._to_store(output)
            if output.type == "registry" or output.flag("push"):
                self._push(output)
        elif output.type in ("oci", "docker"):
            if output.dest:
                self._archive(output)
            else:
                self._to_engine(output)
        elif output.type in ("local", "tar"):
            self._rootfs(output)

    def load(self) -> None:
        """Put the image into the store and into the running Docker or Podman. Without one the store alone has it: only who
        has said where an engine is gets an error if it is not there.
        """
        from shiplap.images.engine import answers

        named = {"DOCKER_HOST", "DOCKER_CONTEXT", "CONTAINER_HOST"} & dict(self._settings.engine).keys()
        if named or answers(self._settings.engines()):
            self._to_engine(Output("image"))
        else:
            self._to_store(Output("image"))

    # -- each kind

    def _to_store(self, output: Output) -> None:
        root = self._export(output).root
        names = self._names(output)
        with telling(self._sink, f"naming {root.digest}", "naming to " + (", ".join(names) or "the store")):
            # Without a name it is known by its digest, until the next prune.
            stored = dict.fromkeys(names or (root.digest,), root.digest)
            for name in stored:
                self._store.images.put(name, root.digest, root.media_type, root.size)
        self._note(stored={**self.done.stored, **stored})

    def _push(self, output: Output) -> None:
        from shiplap.api.transfer import push_names

        names = self._names(output)
        if not names:
            raise UsageError(
                "tag is needed when pushing to registry", code="push-without-tag", hint="add -t REGISTRY/NAME:TAG"
            )
        exported = self._export(output)
        referrers = [referrer.digest for referrer in exported.referrers]
        push_names(self._store, self._settings, self._sink, names, exported.root.digest, self._cancel, referrers)

    def _to_engine(self, output: Output) -> None:
        from shiplap.api.moving import load_into_engine

        self._to_store(output)  # what goes to another program's store is in ours, too: shiplap run finds it
        digest = self._export(output).root.digest
        load_into_engine(self._store, digest, self._names(output), self._settings, self._sink)

    def _archive(self, output: Output) -> None:
        root = self._export(output).root
        as_directory = not output.flag("tar", True)
        title = f"exporting to {output.type} image format"
        with telling(self._sink, f"{output.type} {output.dest}", title):
            created = format_time(self._now())
            tag = "latest" if as_directory else ""  # as buildx calls an image without a name
            files = layout_files(self._store, root, self._names(output), created, output.type == "docker", tag)
            if as_directory:
                with _written_to(output.dest):
                    write_layout(self._store, files, Path(output.dest))
            else:
                self._to_file(output.dest, lambda out: write_archive(self._store, files, out))
                archive = (os.path.abspath(output.dest), tuple(archive_pieces(self._store, files)))
                self._note(archives=(*self.done.archives, archive))
        self._wrote(output.dest)

    def _rootfs(self, output: Output) -> None:
        from shiplap.export.rootfs import folders, write_rootfs, write_rootfs_tar

        title = "exporting to client " + ("directory" if output.type == "local" else "tarball")
        with telling(self._sink, f"{output.type} {output.dest}", title), ExitStack() as held:
            trees = {
                built.platform: held.enter_context(self._store.snapshots.tree(built.snapshot)) for built in self._built
            }
            split = output.flag("platform-split", len(self._built) > 1)
            parts = folders(trees, split, self._beside(trees, output, split))
            if output.type == "local":
                write_rootfs(parts, Path(output.dest), self._epoch, self._check)
            else:
                self._to_file(output.dest, lambda out: write_rootfs_tar(parts, out, self._epoch, self._check))
        self._wrote(output.dest)

    def _beside(self, trees: Mapping[Platform, Tree], output: Output, split: bool) -> dict[Platform, dict[str, bytes]]:
        """Attestations as files beside those of each platform, about every one of them."""
        if not self._attesting.asked:
            return {}
        from shiplap.export.attestation import statement_of_files

        prefix = output.attributes.get("attestation-prefix", "")
        found: dict[Platform, dict[str, bytes]] = {}
        for built in self._built:
            made = self._attesting.attestations(
                built.plan, built.snapshot, self._packing(output), self._now(), self._check
            )
            files = {}
            for attestation in made:
                stem, dot, end = attestation.filename.rpartition(".")
                mark = "" if split or len(trees) == 1 else "." + str(built.platform).replace("/", "_")
                name = prefix + (f"{stem}{mark}{dot}{end}" if dot else f"{end}{mark}")
                files[name] = statement_of_files(attestation, trees[built.platform], self._check)
            found[built.platform] = files
        return found

    # -- what they share

    def _export(self, output: Output) -> Exported:
        """The image, or images and their index, packed and annotated as ``output`` wants it: each way once."""
        packing = self._packing(output)
        annotations = read_annotations(self._request.annotations, output.attributes)
        artifact = output.flag("oci-artifact", True)
        apart = output.flag("referrers")
        way = (packing, annotations, artifact, apart)
        if way not in self._exported:
            with telling(self._sink, f"exporting {packing.profile}", "exporting layers"):
                images = tuple(self._assemble(built, packing, annotations) for built in self._built)
                attested = self._attest(images, packing, self._names(output), artifact)
                listed, referrers = ([], attested) if apart else (attested, [])
                root = images[0].manifest
                if len(images) > 1 or listed:
                    root = self._index([*(image.manifest for image in images), *listed], packing, annotations)
            self._exported[way] = Exported(root, images, tuple(referrers))
        exported = self._exported[way]
        if not self.done.digest:
            self._describe(exported, self._names(output))
        return exported

    def _assemble(self, built: Built, packing: Packing, annotations: Annotations) -> Assembled:
        assembled = assemble(
            self._store,
            built.snapshot,
            built.plan.config,
            packing,
            epoch=built.plan.epoch,
            annotations=annotations.of_image("manifest", built.platform),
            descriptor_annotations=annotations.of_image("manifest-descriptor", built.platform),
            check=self._check,
        )
        # ``shiplap run`` finds the files here, instead of unpacking the image that was packed from them.
        key = built_key(assembled.manifest.digest)
        self._store.results.put(key, SolvedResult(built.snapshot, ""), {}, "image")
        return assembled

    def _attest(
        self, images: Sequence[Assembled], packing: Packing, names: Sequence[str], artifact: bool
    ) -> list[Descriptor]:
        """Attestation manifests of all images, in order."""
        if not self._attesting.asked:
            return []
        from shiplap.export.attestation import write_attestations
        from shiplap.export.provenance import image_url

        entries = []
        for built, image in zip(self._built, images, strict=True):
            made = self._attesting.attestations(built.plan, built.snapshot, packing, self._now(), self._check)
            if not made:
                continue
            subjects = [image_url(name, built.platform) for name in names]
            entries.append(write_attestations(self._store, image.manifest, made, subjects, artifact))
        return entries

    def _index(self, entries: Sequence[Descriptor], packing: Packing, annotations: Annotations) -> Descriptor:
        from shiplap.export.index import write_index

        return write_index(
            self._store,
            entries,
            docker_types=packing.docker_types,
            annotations=annotations.of_index("index"),
            descriptor_annotations=annotations.of_index("index-descriptor"),
        )

    def _describe(self, exported: Exported, names: tuple[str, ...]) -> None:
        root, images = exported.root, exported.images
        self._note(
            digest=root.digest,
            config_digest=images[0].config if root is images[0].manifest else "",
            size=root.size,
            image_size=sum({image.manifest.digest: image.size for image in images}.values()),
            media_type=root.media_type,
            annotations=root.annotations,
            images=tuple(
                ImageResult(str(built.platform), image.manifest.digest, image.config, image.size)
                for built, image in zip(self._built, images, strict=True)
            ),
            names=names,
        )

    def _note(self, **changes: Any) -> None:
        self.done = msgspec.structs.replace(self.done, **changes)

    def _names(self, output: Output) -> tuple[str, ...]:
        named = [name for name in output.attributes.get("name", "").split(",") if name]
        return tuple(dict.fromkeys(str(parse_reference(name)) for name in (*named, *self._request.tags)))

    def _packing(self, output: Output) -> Packing:
        packing = _packing(output)
        if self._request.reproducible:
            assert self._epoch is not None
            if packing.compression == "gzip" and packing.level is None:
                packing = msgspec.structs.replace(packing, level=REPRODUCIBLE_LEVEL)
            return msgspec.structs.replace(packing, times=Times(self._epoch, alike=True))
        if output.flag("rewrite-timestamp"):
            if self._epoch is not None:
                return msgspec.structs.replace(packing, times=Times(self._epoch))
            self._warn("rewrite-timestamp is specified, but no source-date-epoch was found")
        return packing

    def _warn(self, message: str) -> None:
        """Once, however many outputs it is about."""
        if message not in self._said:
            self._said.add(message)
            self._sink(Warned(message))

    def _now(self) -> int:
        """The time of what is written, in seconds: that of the build's epoch, if it has one."""
        return self._epoch if self._epoch is not None else int(now())

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
            with _written_to("to standard output"):
                write(sys.stdout.buffer)
                sys.stdout.buffer.flush()
            return
        path = Path(dest)
        with _written_to(dest):
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path) as out:
                write(out)

    def _wrote(self, dest: str) -> None:
        self._note(written=(*self.done.written, dest))


@contextmanager
def _written_to(dest: str) -> Iterator[None]:
    """What goes wrong here is the destination's fault. That nobody reads on is told otherwise (``cli.ending``)."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ExportError(
            f"cannot write {dest}: {error.strerror}",
            code="cannot-write",
            hint="choose another dest=, or make room there",
        ) from None


def _packing(output: Output) -> Packing:
    level = output.attributes.get("compression-level", "")
    if level and not level.lstrip("-").isdigit():
        raise UsageError(f"compression-level must be a number, not {level!r}", code="invalid-compression")
    return Packing(
        compression=output.attributes.get("compression", "gzip"),
        level=int(level) if level else None,
        force=output.flag("force-compression"),
        docker_types=not output.flag("oci-mediatypes", True),
    )
