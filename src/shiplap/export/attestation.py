"""Attestations beside images: in-toto statements (in-toto.io/Statement/v1) in a manifest that points to the image.

BuildKit's layout: one attestation manifest for each image, behind the images in the index, for the platform
``unknown/unknown``; or, on request, as referrers of the image (distribution-spec 1.1), outside of any index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import file_digest
from typing import Any

import msgspec

from shiplap.oci import media_types
from shiplap.oci.manifest import Descriptor, Manifest, PlatformFields, encode_json, encode_manifest
from shiplap.store.store import Store
from shiplap.trees.descent import flatten
from shiplap.trees.tree import Directory, Tree

STATEMENT = "https://in-toto.io/Statement/v1"
IN_TOTO = "application/vnd.in-toto+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_NOTHING = b"{}"


class Attestation(msgspec.Struct, frozen=True):
    """A predicate and its type (a URL), and what it is called beside files."""

    predicate_type: str
    predicate: dict[str, Any]
    filename: str


def statement(attestation: Attestation, subjects: Sequence[tuple[str, str]]) -> bytes:
    """The statement that ``attestation`` holds for ``subjects``: what each is called, and its digest."""
    told = [{"name": name, "digest": dict([digest.split(":")])} for name, digest in subjects]
    return encode_json(
        {
            "_type": STATEMENT,
            "predicateType": attestation.predicate_type,
            "subject": told,
            "predicate": attestation.predicate,
        }
    )


def statement_of_files(attestation: Attestation, tree: Tree, check: Callable[[], None] = lambda: None) -> bytes:
    """The statement that ``attestation`` holds for every file of ``tree``, indented as BuildKit writes it beside files.

    ``check`` is called in every directory.
    """
    subjects = list(flatten(_files(tree.root(), check)))
    return msgspec.json.format(statement(attestation, subjects), indent=2)


def _files(directory: Directory, check: Callable[[], None]) -> Iterator[Any]:
    check()
    for entry in directory.entries():
        if entry.is_dir:
            with closing(directory.child(entry)) as below:
                yield _files(below, check)
        elif entry.is_file:
            with open(directory.open_file(entry), "rb") as file:
                yield directory.where(entry.name), f"sha256:{file_digest(file, 'sha256').hexdigest()}"


def write_attestations(
    store: Store, image: Descriptor, attestations: Sequence[Attestation], subjects: Sequence[str], artifact: bool = True
) -> Descriptor:
    """Write the attestation manifest of ``image`` into the store's blobs; the entry for its index.

    ``artifact``: with an artifact type and a subject, as image-spec 1.1 has it; else with a config, for older registries.
    """
    layers = []
    for attestation in attestations:
        raw = statement(attestation, [(name, image.digest) for name in subjects])
        kept = {PREDICATE_TYPE: attestation.predicate_type}
        layers.append(Descriptor(IN_TOTO, store.blobs.write(raw), len(raw), annotations=kept))
    if artifact:
        config = Descriptor(_EMPTY, store.blobs.write(_NOTHING), len(_NOTHING), data="e30=")
        manifest = Manifest(
            media_type=media_types.OCI_MANIFEST,
            artifact_type=ARTIFACT,
            config=config,
            layers=tuple(layers),
            subject=Descriptor(image.media_type, image.digest, image.size),
        )
    else:
        raw = encode_json(
            {
                "architecture": "unknown",
                "os": "unknown",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            }
        )
        config = Descriptor(media_types.OCI_CONFIG, store.blobs.write(raw), len(raw))
        manifest = Manifest(media_type=media_types.OCI_MANIFEST, config=config, layers=tuple(layers))
    raw = encode_manifest(manifest)
    return Descriptor(
        manifest.media_type,
        store.blobs.write(raw),
        len(raw),
        annotations={"vnd.docker.reference.digest": image.digest, "vnd.docker.reference.type": "attestation-manifest"},
        platform=PlatformFields("unknown", "unknown"),
    )
