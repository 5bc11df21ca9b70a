"""A small image, a client that does not wait, and shorthands."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pytest

from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor, Manifest, encode_manifest
from shiplap.oci.reference import Reference, parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.connection import Timing
from shiplap.registry.memory import MemoryRegistry
from shiplap.settings import Network

QUICK = Timing(backoff=0.001, longest_backoff=0.002, connect=2.0, read=2.0, patience=10.0)


@dataclass(frozen=True)
class SmallImage:
    manifest: Manifest
    raw: bytes
    config: bytes
    layers: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.raw)


def make_image(*layers: bytes, platform: str = "linux/amd64", note: str = "") -> SmallImage:
    system, architecture, *variant = platform.split("/")
    fields: dict[str, Any] = {"architecture": architecture, "os": system, "author": note}
    fields["rootfs"] = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    if variant:
        fields["variant"] = variant[0]
    config = json.dumps(fields).encode()
    manifest = Manifest(
        schema_version=2,
        media_type=media_types.OCI_MANIFEST,
        config=blob_descriptor(config, media_types.OCI_CONFIG),
        layers=tuple(blob_descriptor(layer) for layer in layers),
    )
    return SmallImage(manifest, encode_manifest(manifest), config, layers)


def blob_descriptor(data: bytes, media_type: str = media_types.OCI_LAYER) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))


def put_image(server: MemoryRegistry, path: str, tag: str, image: SmallImage) -> Reference:
    for data in (image.config, *image.layers):
        server.add_blob(path, data)
    server.add_manifest(path, tag, image.raw, media_types.OCI_MANIFEST)
    return parse_reference(f"{server.host}/{path}:{tag or 'none'}")


def opener_of(data: bytes) -> Callable[[int], BinaryIO]:
    return lambda offset: io.BytesIO(data[offset:])


@dataclass
class Kit:
    """What tests of this room share."""

    quick = QUICK
    make_image = staticmethod(make_image)
    put_image = staticmethod(put_image)
    descriptor = staticmethod(blob_descriptor)
    opener = staticmethod(opener_of)


@pytest.fixture
def kit() -> Kit:
    return Kit()


@pytest.fixture
def server() -> Iterator[MemoryRegistry]:
    with MemoryRegistry() as running:
        yield running


@pytest.fixture
def client() -> Iterator[Registry]:
    with Registry(Network(), lambda fact: None, timing=QUICK) as registry:
        yield registry
