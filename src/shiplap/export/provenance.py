"""Where an image comes from, as SLSA provenance 1 or 0.2 (slsa.dev/spec), laid out and worded as BuildKit's is."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from shiplap.errors import UsageError
from shiplap.export.steps import Steps, as_resolved, local_dockerfile
from shiplap.graph.node import Node, walk
from shiplap.graph.operations import GitSource, HttpSource, ImageSource, LocalSource, Run
from shiplap.oci.addresses import redacted
from shiplap.oci.manifest import Descriptor
from shiplap.oci.platform import Platform, parse_platform
from shiplap.oci.purl import package_url
from shiplap.oci.reference import parse_reference

PREDICATES = {"v1": "https://slsa.dev/provenance/v1", "v0.2": "https://slsa.dev/provenance/v0.2"}
_BUILD_TYPES = {
    "v1": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
    "v0.2": "https://mobyproject.org/buildkit@v1",
}
_COMPATIBILITY = 30
"""The version of BuildKit's behaviour that is reproduced (its solver/llbsolver/compat)."""
_FRONTEND = "1.26.0-dev"
"""The version of the Dockerfile frontend whose language this is."""
_NAMESPACE = "https://mobyproject.org/buildkit@v1"


class Wanted(msgspec.Struct, frozen=True):
    """``--provenance``: how much is told, and in which version of SLSA."""

    mode: str = "max"
    version: str = "v1"
    builder_id: str = ""
    reproducible: bool = False
    complete: bool = False
    """Refuse a build whose materials are not all known by a digest (``complete-materials``)."""

    def checked(self) -> Wanted:
        """Itself; UsageError if it asks for what is not known."""
        if self.mode not in ("min", "max"):
            raise UsageError(f'invalid mode "{self.mode}"', code="invalid-attestation", hint="mode=min or mode=max")
        if self.version not in PREDICATES:
            raise UsageError(
                f"invalid provenance SLSA version: {self.version}",
                code="invalid-attestation",
                hint="version=v1 or version=v0.2",
            )
        return self


class Origin(msgspec.Struct, frozen=True):
    """What is to be told of a build, of one platform."""

    target: Node | None
    dockerfile: bytes
    dockerfile_name: str
    arguments: Mapping[str, str]
    """What was asked for, as BuildKit's frontend calls it: ``build-arg:V``, ``label:l``, ``target``."""
    address: str = ""
    """Of the context, if it is not a directory of this machine; without credentials."""
    source: Node | None = None
    """Where the context was fetched from, then: it is among the materials, for the Dockerfile came with it."""
    version: Mapping[str, str] = {}
    """What git says of the context, if that is a directory of this machine: ``revision``, ``source``, ``localdir:NAME``."""
    images: Mapping[str, str] = {}
    """Digests by reference: of the index, where there is one."""
    pins: Mapping[str, str] = {}
    """Digest of the file or commit behind each remote source, by the digest of its node."""
    layers: Mapping[str, Sequence[Descriptor]] = {}
    """The packed layers of a step's result, by the digest of its node, bottom up."""
    builder: str = ""
    """The building machine's platform."""
    invocation: str = ""
    started: float = 0.0
    finished: float = 0.0


def provenance(origin: Origin, wanted: Wanted) -> dict[str, Any]:
    """The predicate. Values of secrets are not known here; names and passwords in addresses are left out.

    Raises UsageError (incomplete-materials) if ``wanted.complete`` and a directory of this machine took part.
    """
    account = _Account(origin, wanted)
    return account.version_1() if wanted.version == "v1" else account.version_02()


class _Account:
    def __init__(self, origin: Origin, wanted: Wanted) -> None:
        self._origin = origin
        self._wanted = wanted
        self._steps = Steps(origin.target, origin.images)
        operations = [node.operation for node in self._steps.nodes]
        self._runs = [operation for operation in operations if isinstance(operation, Run)]
        here = set() if origin.address else {"context", "dockerfile"}
        self._locals = sorted(here | {operation.name for operation in operations if isinstance(operation, LocalSource)})
        fetched = list(walk([origin.source])) if origin.source is not None else []
        self._materials = _materials([*self._steps.nodes, *fetched], origin)
        if wanted.complete and self._locals:
            raise UsageError(
                "provenance complete-materials requested but materials are incomplete: "
                + ", ".join(f"local source {name}" for name in self._locals),
                code="incomplete-materials",
                hint="build from a git repository or an archive, or leave out complete-materials",
            )

    def version_1(self) -> dict[str, Any]:
        origin, wanted = self._origin, self._wanted
        internal: dict[str, Any] = {}
        if config := self._build_config():
            internal["buildConfig"] = config
        internal.update(builderPlatform=origin.builder, dockerfileVersion=_FRONTEND)
        metadata = {
            "invocationId": origin.invocation,
            "startedOn": _time(origin.started),
            "finishedOn": _time(origin.finished),
            "buildkit_metadata": self._metadata(),
            **({"buildkit_hermetic": True} if self._hermetic() else {}),
            "buildkit_completeness": {"request": self._told_all(), "resolvedDependencies": not self._locals},
            **({"buildkit_reproducible": True} if wanted.reproducible else {}),
        }
        definition: dict[str, Any] = {"buildType": _BUILD_TYPES["v1"]}
        if self._materials:
            definition["resolvedDependencies"] = self._materials
        definition["externalParameters"] = {"configSource": self._source("path"), "request": self._request()}
        definition["internalParameters"] = internal
        return {
            "buildDefinition": definition,
            "runDetails": {"builder": {"id": wanted.builder_id}, "metadata": metadata},
        }

    def version_02(self) -> dict[str, Any]:
        origin, wanted = self._origin, self._wanted
        told: dict[str, Any] = {"builder": {"id": wanted.builder_id}, "buildType": _BUILD_TYPES["v0.2"]}
        if self._materials:
            told["materials"] = self._materials
        told["invocation"] = {
            "configSource": self._source("entryPoint"),
            "parameters": self._request(),
            "environment": {"dockerfileVersion": _FRONTEND, "platform": origin.builder},
        }
        if config := self._build_config():
            told["buildConfig"] = config
        told["metadata"] = {
            "buildInvocationID": origin.invocation,
            "buildStartedOn": _time(origin.started),
            "buildFinishedOn": _time(origin.finished),
            "completeness": {"parameters": self._told_all(), "environment": True, "materials": not self._locals},
            "reproducible": wanted.reproducible,
            f"{_NAMESPACE}#metadata": self._metadata(),
            **({f"{_NAMESPACE}#hermetic": True} if self._hermetic() else {}),
        }
        return told

    # -- parts of both

    def _source(self, path: str) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self._origin.address:
            told["uri"] = self._origin.address
            # The directory within a repository is no part of its name among the materials.
            url, _, fragment = self._origin.address.partition("#")
            targets = (f"{url}#{fragment.partition(':')[0]}".rstrip("#"), url)
            found = [item["digest"] for item in self._materials if item["uri"] in targets and "digest" in item]
            if found:
                told["digest"] = found[0]
        told[path] = self._origin.dockerfile_name
        return told

    def _request(self) -> dict[str, Any]:
        told: dict[str, Any] = {"frontend": "dockerfile.v0"}
        arguments = dict(sorted(self._origin.arguments.items()))
        if self._wanted.mode == "min":
            arguments = {key: value for key, value in arguments.items() if not _private(key)}
        if arguments:
            told["args"] = arguments
        if self._wanted.mode == "max":
            for name, kind in (("secrets", "secret"), ("ssh", "ssh")):
                if found := self._lent(kind):
                    told[name] = found
        if self._locals:
            told["locals"] = [{"name": name} for name in self._locals]
        version = {f"vcs:{name}": value for name, value in self._origin.version.items()}
        if self._origin.arguments or version:
            args = dict(sorted({**arguments, **version}.items()))
            request = {"args": args} if args else {}
            told["root"] = {"configSource": self._source("path"), "request": request}
        return {**told, "compatibilityVersion": _COMPATIBILITY}

    def _lent(self, kind: str) -> list[dict[str, Any]]:
        """Secrets or agents that steps ask for; one that any step requires is not optional."""
        found: dict[str, bool] = {}
        for run in self._runs:
            for mount in run.mounts:
                if mount.kind == kind:
                    found[mount.id] = found.get(mount.id, True) and not mount.required
        return [{"id": id, **({"optional": True} if optional else {})} for id, optional in sorted(found.items())]

    def _told_all(self) -> bool:
        return self._wanted.mode == "max" or not any(map(_private, self._origin.arguments))

    def _hermetic(self) -> bool:
        return not self._locals and all(run.network == "none" for run in self._runs)

    def _build_config(self) -> dict[str, Any]:
        return self._steps.definition() if self._wanted.mode == "max" else {}

    def _metadata(self) -> dict[str, Any]:
        told: dict[str, Any] = {"vcs": dict(sorted(self._origin.version.items()))} if self._origin.version else {}
        if self._wanted.mode == "min" or not self._steps.nodes:
            return told
        source = {
            "locations": self._steps.locations(),
            "infos": [
                {
                    "filename": self._origin.dockerfile_name,
                    "language": "Dockerfile",
                    "data": b64encode(self._origin.dockerfile).decode(),
                    **({} if self._origin.address else local_dockerfile(self._origin.dockerfile_name)),
                }
            ],
        }
        layers = {
            f"{self._steps.ids[digest]}:0": [[_layer(item) for item in chain]]
            for digest, chain in self._origin.layers.items()
            if chain and digest in self._steps.ids
        }
        return {**told, "source": source, **({"layers": dict(sorted(layers.items()))} if layers else {})}


def _private(argument: str) -> bool:
    return argument.startswith(("build-arg:", "label:"))


def _layer(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _materials(nodes: Sequence[Node], origin: Origin) -> list[dict[str, Any]]:
    """Images, repositories and files, each kind by its name: what went in, by digest."""
    images: dict[str, str] = {}
    others: dict[type, dict[str, str]] = {GitSource: {}, HttpSource: {}}
    for node in nodes:
        operation = node.operation
        if isinstance(operation, ImageSource):
            reference, digest = as_resolved(operation, origin.images)
            images[image_url(reference, parse_platform(operation.platform))] = digest
        elif isinstance(operation, HttpSource | GitSource):
            others[type(operation)][_address(operation)] = origin.pins.get(node.digest, operation.checksum)
    found = [item for kind in (images, *others.values()) for item in sorted(kind.items())]
    return [{"uri": uri, **({"digest": _digest_set(pin)} if pin else {})} for uri, pin in found]


def _digest_set(pin: str) -> dict[str, str]:
    algorithm, colon, value = pin.partition(":")
    return {algorithm: value} if colon else {"sha1": pin}


def _address(source: HttpSource | GitSource) -> str:
    """What BuildKit calls a remote source: its address, of a repository with the ref that was asked for."""
    ref = source.ref if isinstance(source, GitSource) else ""
    return redacted(source.url) + (f"#{ref}" if ref else "")


def image_url(reference: str, platform: Platform | None) -> str:
    """A reference as a package URL: ``pkg:docker/busybox@latest?platform=linux%2Famd64``."""
    parsed = parse_reference(reference)
    name = parsed._replace(tag="", digest="").familiar()
    qualifiers = {"digest": parsed.digest, "platform": str(platform) if platform is not None else ""}
    return package_url("docker", name, parsed.tag, qualifiers)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
