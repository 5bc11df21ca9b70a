"""What an image is made of, wherever it is: all manifests and blobs below its root, and what refers to those."""

from __future__ import annotations

from collections.abc import Sequence

from shiplap.errors import ImageError, Place, RegistryError
from shiplap.events.facts import Sink, Warned
from shiplap.images.choose import choose_manifest
from shiplap.images.place import MOST_MANIFESTS, Source, Transfer
from shiplap.oci.choose import DEEPEST_INDEX
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor, Index, parse_manifest
from shiplap.oci.platform import Platform


def survey(source: Source, platform: Platform | None = None, *, partial: bool = False) -> Transfer:
    """All that an image (for ``platform``, if one is given) is made of.

    ``partial``: manifests of an index that are not at the source are left out. Raises ImageError (incomplete-image).
    """
    descriptor, raw = source.root()
    if platform is not None:
        descriptor, raw, _ = choose_manifest(source, platform, descriptor, raw)
    return _below(source, descriptor, raw, partial, source.names)


def survey_referrers(source: Source, transfer: Transfer, sink: Sink) -> tuple[Transfer, ...]:
    """What refers to any manifest of ``transfer`` (each platform may be signed alone), each behind what it refers to.

    A listed manifest that is gone, or that has another subject, is left out and warned of: nothing keeps a list under a tag
    in step with what it lists. Raises ImageError (too-many-manifests).
    """
    found: list[Transfer] = []
    subjects = [descriptor.digest for descriptor, _ in reversed(transfer.manifests)]
    known = set(subjects)
    while subjects:
        subject = subjects.pop(0)
        for entry in source.referrers(subject):
            raw = None if entry.digest in known else _referrer(source, subject, entry, sink)
            if raw is None:
                continue
            found.append(_below(source, entry, raw, False, ()))
            new = [descriptor.digest for descriptor, _ in found[-1].manifests if descriptor.digest not in known]
            subjects += new
            known.update(new)
            if len(known) > MOST_MANIFESTS:
                raise ImageError(f"over {MOST_MANIFESTS} manifests refer to {source.title}", code="too-many-manifests")
    return tuple(found)


def incomplete(title: str, missing: Sequence[Descriptor], held: Sequence[Descriptor]) -> ImageError:
    """The error for an index of which ``missing`` are not at hand."""
    here = _platforms(held)
    only = f"only {here} of its platforms" if here else "none of its platforms"
    return ImageError(
        f"{title} has {only} here, not {_platforms(missing) or missing[0].digest}",
        code="incomplete-image",
        where=Place(blob=missing[0].digest),
        hint="--platform takes one that is here, alone; shiplap pull --platform brings one more; "
        "shiplap copy docker://… docker://… moves all from registry to registry",
    )


def _platforms(entries: Sequence[Descriptor]) -> str:
    named = dict.fromkeys(str(entry.platform.parsed()) for entry in entries if entry.platform is not None)
    # What is not for any platform is an attestation, which is there or not with the image that it is about.
    return ", ".join(name for name in named if name != "unknown/unknown")[:1000]


def _referrer(source: Source, subject: Digest, entry: Descriptor, sink: Sink) -> bytes | None:
    try:
        raw = source.manifest(entry)
    except RegistryError as error:
        if error.status != 404:
            raise
        sink(Warned(f"{source.title} lists {entry.digest} as referring to {subject}, but has it no more: left out"))
        return None
    named = parse_manifest(raw, entry.media_type, entry.digest).subject
    if named is None or named.digest != subject:
        sink(Warned(f"{source.title} lists {entry.digest} as referring to {subject}, but it does not: left out"))
        return None
    return raw


def _below(source: Source, descriptor: Descriptor, raw: bytes, partial: bool, names: tuple[str, ...]) -> Transfer:
    found = _Survey(source, partial)
    found.add(descriptor, raw, 0)
    return Transfer(descriptor, tuple(found.manifests.values()), tuple(found.blobs.values()), names)


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
                raise incomplete(self._source.title, [each for each in parsed.manifests if each not in held], held)
            for entry in held:
                if entry.digest not in self.manifests:
                    self.add(entry, self._source.manifest(entry), depth + 1)
        self.manifests.pop(descriptor.digest, None)
        self.manifests[descriptor.digest] = (descriptor, raw)
