"""Media types of the OCI image specification 1.1 and of Docker's image manifest version 2, schema 2."""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

_DOCKER_OF = {
    OCI_INDEX: DOCKER_INDEX,
    OCI_MANIFEST: DOCKER_MANIFEST,
    OCI_CONFIG: DOCKER_CONFIG,
    OCI_LAYER: DOCKER_LAYER,
    OCI_LAYER_GZIP: DOCKER_LAYER_GZIP,
}
_OCI_OF = {docker: oci for oci, docker in _DOCKER_OF.items()}
_OCI_OF["application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"] = OCI_LAYER_GZIP
_OCI_OF["application/vnd.docker.image.rootfs.foreign.diff.tar"] = OCI_LAYER
_OCI_OF["application/vnd.oci.image.layer.nondistributable.v1.tar"] = OCI_LAYER
_OCI_OF["application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"] = OCI_LAYER_GZIP
_OCI_OF["application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"] = OCI_LAYER_ZSTD


def as_oci(media_type: str) -> str:
    """The OCI name of a media type; unknown ones are returned as they are."""
    return _OCI_OF.get(media_type, media_type)


def as_docker(media_type: str) -> str:
    """Docker's name of a media type; those it has no name for (zstd) are returned as they are."""
    return _DOCKER_OF.get(as_oci(media_type), media_type)
