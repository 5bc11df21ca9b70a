"""Images to move about: small, made by hand, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shiplap.oci import media_types
from shiplap.registry.memory import MemoryRegistry
from shiplap.settings import Settings, load


def layer_tar(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """A plain tar of regular files (path, content) or whatever a TarInfo says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size, info.mode = len(member[1]), 0o644
            archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def entry(name: str, kind: bytes, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Shelf:
    """Puts images into a registry in memory."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self.registry = registry

    def image(
        self, repository: str, tag: str, *layers: bytes, architecture: str = "amd64", **config: Any
    ) -> dict[str, Any]:
        """An image of these (plain tar) layers, which are compressed; its descriptor."""
        history = [{"created_by": f"step {number}"} for number, _ in enumerate(layers)]
        raw = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "history": history,
                **config,
                "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
            }
        ).encode()
        packed = [gzip.compress(layer, mtime=0) for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": self._blob(repository, raw, media_types.OCI_CONFIG),
            "layers": [self._blob(repository, layer, media_types.OCI_LAYER_GZIP) for layer in packed],
        }
        # Unusual white space: whoever writes it anew changes the digest.
        data = json.dumps(manifest, indent=3).encode() + b"\n\n"
        digest = self.registry.add_manifest(repository, tag, data, media_types.OCI_MANIFEST)
        platform = {"architecture": architecture, "os": "linux"}
        return {"mediaType": media_types.OCI_MANIFEST, "digest": digest, "size": len(data), "platform": platform}

    def index(self, repository: str, tag: str, *entries: dict[str, Any]) -> str:
        data = json.dumps(
            {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}, indent=1
        ).encode()
        return self.registry.add_manifest(repository, tag, data, media_types.OCI_INDEX)

    def place(self, repository: str, tag: str) -> str:
        return f"docker://{self.registry.host}/{repository}:{tag}"

    def _blob(self, repository: str, data: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": self.registry.add_blob(repository, data), "size": len(data)}


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with MemoryRegistry() as registry:
        yield Shelf(registry)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({}, root=str(tmp_path / "store"), home=str(tmp_path), etc=str(tmp_path))


@pytest.fixture
def multi(shelf: Shelf) -> str:
    """An index of two platforms, at ``docker://…/base:multi``; its digest."""
    amd64 = shelf.image("base", "amd64", layer_tar(("a", b"amd64")), layer_tar(("shared", b"s" * 3000)))
    arm64 = shelf.image(
        "base", "", layer_tar(("a", b"arm64")), layer_tar(("shared", b"s" * 3000)), architecture="arm64"
    )
    return shelf.index("base", "multi", amd64, arm64)
