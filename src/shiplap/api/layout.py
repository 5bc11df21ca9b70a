"""Images in OCI layouts on this machine, as named contexts: ``--build-context base=oci-layout://DIRECTORY:tag`` (6.3)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from shiplap.dockerfile.options import ResolvedImage
from shiplap.errors import ContextError, ImageError
from shiplap.oci.digest import is_digest, split_digest
from shiplap.oci.manifest import Descriptor, Index, offered_platforms, parse_manifest, select_manifest
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference
from shiplap.store.images import no_such_platform
from shiplap.store.store import Store

PREFIX = "oci-layout://"
_HOST = "oci-layout.invalid"
"""The host of references that stand for images of layouts. ``.invalid`` is no name of any host (RFC 2606)."""
_SMALL = 16 << 20
_TAG = ("org.opencontainers.image.ref.name", "io.containerd.image.name")


def find_layout(name: str, value: str) -> tuple[str, Path]:
    """The reference that stands for the image ``value`` names, by digest, and the layout's directory.

    Raises ContextError: no-context, invalid-context.
    """
    path, at, digest = value.removeprefix(PREFIX).partition("@")
    tag = ""
    if not at and not Path(path).is_dir():
        path, _, tag = path.rpartition(":")
    if at and not is_digest(digest):
        raise _invalid(name, value, f"{digest[:80]!r} is no digest")
    directory = Path(path)
    if not path or not (directory / "index.json").is_file():
        raise _invalid(name, value, "no OCI layout there: it would have an index.json")
    directory = directory.resolve()
    if not digest:
        digest = _by_tag(directory, tag, name, value).digest
    return f"{_repository(directory)}@{digest}", directory


def resolve_in_layout(directory: Path, reference: Reference, platform: Platform, store: Store) -> ResolvedImage:
    """The image for ``platform``; its manifest and config come into the store. Raises ImageError."""
    raw = _read(directory, reference.digest)
    manifest = parse_manifest(raw, digest=reference.digest)
    if isinstance(manifest, Index):
        entry = select_manifest(manifest, platform)
        if entry is None:
            raise no_such_platform(reference.digest, platform, offered_platforms(manifest))
        store.blobs.write(raw)
        raw = _read(directory, entry.digest)
        manifest = parse_manifest(raw, digest=entry.digest)
        if isinstance(manifest, Index):
            raise ImageError("an index within an index is no image", code="invalid-image")
    digest = store.blobs.write(raw)
    store.blobs.write(_read(directory, manifest.config.digest))
    resolved = store.images.resolve(digest, None)
    return ResolvedImage(reference, digest, resolved.config)


def copy_blob(directory: Path, descriptor: Descriptor, save: Callable[[Descriptor, Iterator[bytes]], None]) -> None:
    """Give a blob of the layout to ``save``, which checks its digest."""
    try:
        with open(_blob(directory, descriptor.digest), "rb") as file:
            save(descriptor, iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise _unreadable(descriptor.digest, error) from None


def _by_tag(directory: Path, tag: str, name: str, value: str) -> Descriptor:
    index = parse_manifest(_small(directory / "index.json"))
    if not isinstance(index, Index):
        raise _invalid(name, value, "its index.json is no index")
    wanted = tag or "latest"
    for entry in index.manifests:
        named = [(entry.annotations or {}).get(key, "") for key in _TAG]
        if any(text == wanted or text.rpartition(":")[2] == wanted for text in named if text):
            return entry
    if not tag and len(index.manifests) == 1:
        return index.manifests[0]
    raise _invalid(name, value, f"the layout has no image tagged {wanted}")


def _repository(directory: Path) -> str:
    return f"{_HOST}/{hashlib.sha256(os.fsencode(directory)).hexdigest()[:32]}"


def _blob(directory: Path, digest: str) -> Path:
    return directory.joinpath("blobs", *split_digest(digest))


def _read(directory: Path, digest: str) -> bytes:
    try:
        data = _small(_blob(directory, digest))
    except OSError as error:
        raise _unreadable(digest, error) from None
    algorithm, expected = split_digest(digest)
    if hashlib.new(algorithm, data).hexdigest() != expected:
        raise ImageError(f"blob {digest} of the layout has another digest", code="digest-mismatch")
    return data


def _small(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_SMALL + 1)
    if len(data) > _SMALL:
        raise ImageError(f"{path.name} is over {_SMALL} bytes", code="too-large")
    return data


def _unreadable(digest: str, error: OSError) -> ImageError:
    return ImageError(
        f"blob {digest} cannot be read from the OCI layout: {error.strerror}",
        code="blob-missing",
        hint="make the layout anew, with all blobs of this platform",
    )


def _invalid(name: str, value: str, why: str) -> ContextError:
    return ContextError(
        f"invalid context specifier {name}={value[:200]}: {why}",
        code="invalid-context",
        hint="write oci-layout://DIRECTORY, with :tag or @sha256:… behind it if it holds several images",
    )
