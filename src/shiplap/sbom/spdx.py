"""Packages as an SPDX 2.3 document (spdx.github.io/spdx-spec), the predicate of an SBOM attestation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from shiplap.oci.platform import Platform
from shiplap.sbom.catalog import list_packages
from shiplap.sbom.package import Package
from shiplap.trees.tree import Tree

PREDICATE = "https://spdx.dev/Document"
_UNKNOWN = "NOASSERTION"
_ROOT = "SPDXRef-DocumentRoot"


def document(
    tree: Tree, platform: Platform, made: float, tool: str, check: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The packages of ``tree``, an image for ``platform``, as of ``made`` (seconds), listed by ``tool`` (name-version).

    The same tree gives the same document.
    """
    return describe(list_packages(tree, check), platform, made, tool)


def describe(packages: Sequence[Package], platform: Platform, made: float, tool: str) -> dict[str, Any]:
    """The document of ``packages``."""
    told = [_package(package) for package in packages]
    summary = hashlib.sha256(repr((packages, platform)).encode()).hexdigest()
    root = {
        "name": f"image for {platform}",
        "SPDXID": _ROOT,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
    }
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"image for {platform}",
        "documentNamespace": f"https://spdx.org/spdxdocs/shiplap-{summary}",
        "creationInfo": {
            "creators": [f"Tool: {tool}"],
            "created": datetime.fromtimestamp(int(made), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "packages": [root, *told],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relatedSpdxElement": _ROOT, "relationshipType": "DESCRIBES"},
            *(
                {"spdxElementId": _ROOT, "relatedSpdxElement": package["SPDXID"], "relationshipType": "CONTAINS"}
                for package in told
            ),
        ],
    }


def _package(package: Package) -> dict[str, Any]:
    name = hashlib.sha256(f"{package.url}\0{package.path}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    told = {
        "name": package.name,
        "SPDXID": f"SPDXRef-Package-{name}",
        "versionInfo": package.version,
        "supplier": _UNKNOWN,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "sourceInfo": f"acquired package info from /{package.path}",
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.url}
        ],
    }
    if package.license:
        # As the package words it, which need not be an SPDX expression: told, not asserted.
        told["licenseComments"] = package.license
    return told
