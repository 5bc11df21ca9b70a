"""From place to place: what an image is made of is surveyed, then its blobs go over as streams, its bytes unchanged."""

from __future__ import annotations

from shiplap.errors import ImageError, Place
from shiplap.events.facts import Sink
from shiplap.images.choose import choose_manifest
from shiplap.images.place import MOST_MANIFESTS, Source, Target, Transfer
from shiplap.oci.choose import DEEPEST_INDEX
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Index, parse_manifest
from shiplap.oci.platform import Platform, native_platform
from shiplap.ops.workbench import telling


def copy(
    source: Source, target: Target, sink: Sink, platform: Platform | None = None, everything: bool = False
) -> Descriptor:
    """Put the image of ``source`` at ``target``; the descriptor of what is there now.

    With ``platform`` only its manifest, else all platforms; a target that is meant for one platform's image takes this
    machine's unless ``everything`` is asked for.
    """
    if platform is None and target.one_platform and not everything:
        platform = native_platform()
    step = f"copy {source.title} {target.title}"
    with telling(sink, step, f"copying {source.title} to {target.title}"):
        transfer = survey(source, platform, partial=target.partial)
        target.write(transfer, source, step)
    return transfer.root


def survey(source: Source, platform: Platform | None = None, *, partial: bool = False) -> Transfer:
    """All that an image (for ``platform``, if one is given) is made of.

    ``partial``: manifests of an index that are not at the source are left out. Raises ImageError (incomplete-image).
    """
    descriptor, raw = source.root()
    if platform is not None:
        descriptor, raw, _ = choose_manifest(source, platform, descriptor, raw)
    found = _Survey(source, partial)
    found.add(descriptor, raw, 0)
    return Transfer(descriptor, tuple(found.manifests.values()), tuple(found.blobs.values()), source.names)


class _Survey:
    def __init__(self, source: Source, partial: bool) -> None:
        self._source = source
        self._partial = partial
        self.manifests: dict[Digest, tuple[Descriptor, bytes]] = {}
        self.blobs: dict[Digest, Descriptor] = {}

    def add(self, descriptor: Descriptor, raw: bytes, depth: int) -> None:
        if len(self.manifests) >= MOST_MANIFESTS:
            raise ImageError(
                f"{self._source.title} has more than {MOST_MANIFESTS} manifests", code="too-many-manifests"
            )
        parsed = parse_manifest(raw, descriptor.media_type, descriptor.digest)
        if not isinstance(parsed, Index):
            for blob in (parsed.config, *parsed.layers):
                self.blobs.setdefault(blob.digest, blob)
        else:
            if depth > DEEPEST_INDEX:
                raise ImageError(f"{self._source.title}: indexes more than {DEEPEST_INDEX} deep", code="index-too-deep")
            held = [entry for entry in parsed.manifests if self._source.holds(entry)]
            if len(held) < len(parsed.manifests) and not (self._partial and held):
                missing = next(entry for entry in parsed.manifests if entry not in held)
                raise self._incomplete(missing)
            for entry in held:
                if entry.digest not in self.manifests:
                    self.add(entry, self._source.manifest(entry), depth + 1)
        self.manifests.pop(descriptor.digest, None)
        self.manifests[descriptor.digest] = (descriptor, raw)

    def _incomplete(self, missing: Descriptor) -> ImageError:
        platform = f" ({missing.platform.parsed()})" if missing.platform is not None else ""
        return ImageError(
            f"{self._source.title} has only some of its platforms here: {missing.digest}{platform} is missing",
            code="incomplete-image",
            where=Place(blob=missing.digest),
            hint="copy one with --platform, or copy it from its registry: docker://NAME",
        )
