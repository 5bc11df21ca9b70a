"""Images by name: what ``images``, ``tag`` and ``FROM`` find here without asking a registry.

A name is a small file of its own, not a row of the index: it is what a person gave, and nothing could make it again.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from shiplap.errors import ImageError
from shiplap.oci.config import ImageConfig, parse_config
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Index as ImageIndex
from shiplap.oci.manifest import Manifest, offered_platforms, parse_manifest, prepare, select_manifest
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference, parse_reference
from shiplap.store.blobs import Blobs, fault
from shiplap.store.index import now, seal
from shiplap.store.leases import BLOB
from shiplap.store.names import name_file


class Image(msgspec.Struct, frozen=True):
    """A named image: the digest of its manifest or index, and when it came here (seconds since the epoch).

    ``whole``: all its layers came here too. Of a base image they come only when a step needs them.
    """

    name: str
    digest: Digest
    media_type: str
    size: int
    created: float
    whole: bool = True
    seal: int = 0


prepare(Image)


class Resolved(msgspec.Struct, frozen=True):
    """One platform's manifest of an image, with its config."""

    digest: Digest
    media_type: str
    raw: bytes
    manifest: Manifest
    config: ImageConfig
    config_raw: bytes


class Images:
    """The names of a store. A name is a normalised reference, ``docker.io/library/busybox:latest``."""

    def __init__(self, directory: Path, blobs: Blobs) -> None:
        self.directory = directory
        self._blobs = blobs

    def put(self, name: str, digest: Digest, media_type: str, size: int, *, whole: bool = True) -> None:
        """Let ``name`` mean the manifest or index ``digest``, whose blobs are in the store (``whole``: its layers too)."""
        known = self.get(name)
        if known is not None and (known.digest, known.media_type, known.size) == (digest, media_type, size):
            if known.whole or not whole:
                return
            self.keep(msgspec.structs.replace(known, whole=True))
        else:
            self.keep(Image(name, digest, media_type, size, now(), whole))

    def keep(self, image: Image) -> None:
        """Write the file of a name."""
        data = msgspec.json.encode(msgspec.structs.replace(image, seal=_seal(image)))
        aside = self._blobs.temporary / f"{self._blobs.lease.begin()}-name-{os.urandom(6).hex()}"
        path = self.path(image.name)
        try:
            try:
                with aside.open("xb") as file:
                    file.write(data)
                    file.flush()
                    # All else here can be made again, this cannot: it must outlive a loss of power.
                    os.fsync(file.fileno())
                aside.rename(path)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise fault(error, path) from None

    def path(self, name: str) -> Path:
        """The file of the name."""
        return self.directory / name_file(name)

    def get(self, name: str) -> Image | None:
        image = self.read(self.path(name))
        return image if image is not None and image.name == name else None

    def read(self, path: Path) -> Image | None:
        """What the file of a name says; None if there is none, or if it is damaged."""
        try:
            image = msgspec.json.decode(path.read_bytes(), type=Image)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return image if image.seal == _seal(image) else None

    def all(self) -> list[Image]:
        found = (self.read(self.directory / name) for name in os.listdir(self.directory))
        return sorted((image for image in found if image is not None), key=lambda image: image.name)

    def remove(self, name: str) -> bool:
        """Forget the name; its blobs go with the next prune. False if there was none."""
        try:
            self.path(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def find(self, text: str) -> Image:
        """The image that a person means by ``text``: a reference, or the beginning of a digest (with or without ``sha256:``).

        Raises ImageError: no-such-image, ambiguous-image.
        """
        wanted = text.removeprefix("sha256:")
        reference = self._reference(text)
        if reference is not None:
            image = self.get(str(reference))
            if image is None and reference.digest:
                image = next((known for known in self.all() if known.digest == reference.digest), None)
            if image is not None:
                return image
        if len(wanted) >= 4 and all(char in "0123456789abcdef" for char in wanted):
            matches = {known.digest: known for known in self.all() if self._answers(known, wanted)}
            if len(matches) == 1:
                return next(iter(matches.values()))
            if matches:
                raise ImageError(f"{text} is the beginning of several digests", code="ambiguous-image")
        raise ImageError(f"no such image: {text}", code="no-such-image", hint="shiplap images lists what the store has")

    def resolve(self, digest: Digest, platform: Platform | None) -> Resolved:
        """The manifest (of ``platform``, in an index; None: the first) and config under ``digest``, from blobs of the store.

        Raises StoreError (blob-missing), ImageError (no-such-platform).
        """
        raw = self._blobs.read(digest)
        manifest = parse_manifest(raw, digest=digest)
        if isinstance(manifest, ImageIndex):
            first = next(iter(manifest.manifests), None)
            entry = select_manifest(manifest, platform) if platform is not None else first
            if entry is None:
                raise no_such_platform(digest, platform, offered_platforms(manifest))
            return self.resolve(entry.digest, None)
        # Who resolves an image is about to use it: its layers, where they are here, stay.
        self._blobs.lease.hold(BLOB, *(layer.digest for layer in manifest.layers))
        config_raw = self._blobs.read(manifest.config.digest)
        return Resolved(digest, manifest.media_type, raw, manifest, parse_config(config_raw), config_raw)

    def blobs_of(self, digest: Digest) -> set[Digest]:
        """Every blob that the manifest or index ``digest`` needs and that is here, itself included."""
        if not self._blobs.has(digest):
            return set()
        manifest = parse_manifest(self._blobs.read(digest), digest=digest)
        if isinstance(manifest, ImageIndex):
            return {digest}.union(*(self.blobs_of(entry.digest) for entry in manifest.manifests))
        return {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}

    def _reference(self, text: str) -> Reference | None:
        try:
            return parse_reference(text)
        except ImageError:
            return None

    def _answers(self, image: Image, wanted: str) -> bool:
        if image.digest.partition(":")[2].startswith(wanted):
            return True
        try:
            return self.resolve(image.digest, None).manifest.config.digest.partition(":")[2].startswith(wanted)
        except (ImageError, LookupError):
            return False


def _seal(image: Image) -> int:
    return seal(image.name, image.digest, image.media_type, image.size, image.created, image.whole)


def no_such_platform(name: str, platform: Platform | None, offered: list[str]) -> ImageError:
    """What is said of an image that has no manifest for ``platform``."""
    return ImageError(
        f"no match for platform {platform or 'of any kind'} in {name}: it offers {', '.join(offered) or 'none'}",
        code="no-such-platform",
        hint="ask for one of these with --platform",
    )
