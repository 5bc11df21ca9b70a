"""The images that ``imagetools`` is recorded with: two platforms with and without attestations, Docker's types, a lone one."""

from __future__ import annotations

import json
from typing import Any

from shiplap.registry.memory import MemoryRegistry

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker.distribution.manifest."
PREDICATES = {
    "https://slsa.dev/provenance/v0.2": {
        "buildType": "https://example.invalid/<type>",
        "metadata": {"z": 1, "a": [True]},
    },
    "https://spdx.dev/Document": {"spdxVersion": "SPDX-2.3", "packages": [{"name": "busybox"}]},
}


def encode(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode()


class Images:
    """Fills a registry, the same bytes each time."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry

    def fill(self) -> dict[str, str]:
        """Put all images; digests by name, for arguments of cases."""
        amd64, arm64 = self.image("a", "amd64"), self.image("a", "arm64", "v8")
        plain = self.index("a", "plain", [amd64, arm64])
        attested = [
            amd64,
            arm64,
            self.attestation("a", amd64["digest"]),
            self.attestation("a", arm64["digest"], sbom=False),
        ]
        self.index("a", "attested", attested, annotations={"org.example.index": "yes & <no>"})
        self.tag("a", "single", amd64)
        noted = {**self.image("a", "arm", "v7"), "annotations": {"only": "one"}, "urls": ["https://example.invalid/x"]}
        self.index(
            "a",
            "noted",
            [
                noted,
                {
                    **amd64,
                    "platform": {
                        "architecture": "amd64",
                        "os": "windows",
                        "os.version": "10.0",
                        "os.features": ["win32k"],
                    },
                },
            ],
        )
        docker = self.image("d", "amd64", docker=True), self.image("d", "s390x", docker=True)
        self.index("d", "list", list(docker), docker=True)
        self.tag("d", "single", docker[0])
        other = self.image("b", "riscv64")
        self.tag("b", "riscv", other)
        return {
            "AMD64": amd64["digest"],
            "ARM64": arm64["digest"],
            "PLAIN": plain,
            "RISCV": other["digest"],
            "AMD64_SIZE": str(amd64["size"]),
        }

    def image(self, repository: str, architecture: str, variant: str = "", docker: bool = False) -> dict[str, Any]:
        """A manifest with config and layer; its descriptor."""
        config = {
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": "linux",
            "created": "2026-01-02T03:04:05.120Z",
            "author": "somebody",
            "config": {
                "Env": ["PATH=/bin", "A=<b>"],
                "Cmd": ["sh"],
                "Labels": {"z": "1", "a": "2 & 3"},
                "Healthcheck": {"Test": ["NONE"]},
                "ExposedPorts": {"80/tcp": {}},
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]},
            "history": [
                {"created": "2026-01-02T03:04:05Z", "created_by": "ADD x", "comment": "c"},
                {"created_by": "ENV A", "empty_layer": True},
            ],
        }
        layer = f"layer of {architecture}".encode()
        kinds = (
            (
                DOCKER + "v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
            if docker
            else (OCI + "manifest.v1+json", OCI + "config.v1+json", OCI + "layer.v1.tar+gzip")
        )
        manifest = {
            "schemaVersion": 2,
            "mediaType": kinds[0],
            "config": self._blob(repository, encode(config), kinds[1]),
            "layers": [self._blob(repository, layer, kinds[2])],
        }
        platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
        return {**self._manifest(repository, manifest, kinds[0]), "platform": platform}

    def attestation(self, repository: str, subject: str, sbom: bool = True) -> dict[str, Any]:
        """An attestation manifest as BuildKit writes it; its descriptor."""
        layers = []
        for kind, predicate in PREDICATES.items():
            if sbom or "slsa" in kind:
                statement = {
                    "_type": "https://in-toto.io/Statement/v0.1",
                    "predicateType": kind,
                    "predicate": predicate,
                }
                blob = self._blob(repository, encode(statement), "application/vnd.in-toto+json")
                layers.append({**blob, "annotations": {"in-toto.io/predicate-type": kind}})
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": self._blob(repository, b"{}" + b" " * len(layers), OCI + "config.v1+json"),
            "layers": layers,
            "annotations": {"about": subject},
        }
        return {
            **self._manifest(repository, manifest, OCI + "manifest.v1+json"),
            "annotations": {
                "vnd.docker.reference.digest": subject,
                "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": {"architecture": "unknown", "os": "unknown"},
        }

    def index(
        self,
        repository: str,
        tag: str,
        manifests: list[dict[str, Any]],
        docker: bool = False,
        annotations: dict[str, str] | None = None,
    ) -> str:
        kind = DOCKER + "list.v2+json" if docker else OCI + "index.v1+json"
        index: dict[str, Any] = {"schemaVersion": 2, "mediaType": kind, "manifests": manifests}
        if annotations:
            index["annotations"] = annotations
        return self._registry.add_manifest(repository, tag, encode(index), kind)

    def tag(self, repository: str, tag: str, descriptor: dict[str, Any]) -> None:
        self._registry.repository(repository).tags[tag] = descriptor["digest"]

    def _blob(self, repository: str, data: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": self._registry.add_blob(repository, data), "size": len(data)}

    def _manifest(self, repository: str, manifest: dict[str, Any], kind: str) -> dict[str, Any]:
        raw = encode(manifest)
        return {"mediaType": kind, "digest": self._registry.add_manifest(repository, "", raw, kind), "size": len(raw)}
