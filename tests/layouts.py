"""OCI layouts with any layers, however wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_layout(
    path: Path,
    layers: Sequence[bytes],
    diff_ids: Sequence[str],
    compression: str = "gzip",
    config: Mapping[str, object] | None = None,
) -> None:
    """An image of these (compressed) layers, known as ``latest``. ``compression``: gzip, zstd, or nothing."""
    (path / "blobs/sha256").mkdir(parents=True)

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (path / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    suffix = f"+{compression}" if compression else ""
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(image).encode(), "config.v1+json"),
        "layers": [blob(layer, f"layer.v1.tar{suffix}") for layer in layers],
    }
    described = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    name = {"annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described | name]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
