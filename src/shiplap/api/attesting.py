"""Attestations of a build: what was asked for, and the facts they are written from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from os.path import basename
from typing import TYPE_CHECKING, Any

import msgspec

from shiplap.api.context import Context
from shiplap.api.request import Request, boolean, parse_fields
from shiplap.errors import UsageError
from shiplap.oci.platform import native_platform
from shiplap.store.store import Store

if TYPE_CHECKING:
    from shiplap.api.bases import BaseImages
    from shiplap.dockerfile.options import NamedContext, Plan
    from shiplap.export.attestation import Attestation
    from shiplap.export.image import Packing
    from shiplap.export.provenance import Origin, Wanted
    from shiplap.oci.manifest import Descriptor
    from shiplap.ops.driver import Driver
    from shiplap.ops.workbench import Workbench

FILES = {"provenance": "provenance.json", "sbom": "sbom.spdx.json"}
"""What attestations are called beside files (``local`` and ``tar`` outputs)."""
_KNOWN = {
    "provenance": {
        "mode", "version", "builder-id", "reproducible", "complete-materials", "inline-only", "filename", "disabled"
    },
    "sbom": {"filename", "disabled", "generator"},
}  # fmt: skip


class Attest(msgspec.Struct, frozen=True):
    """An ``--attest``: ``provenance`` or ``sbom``, with its parameters."""

    kind: str
    parameters: Mapping[str, str] = {}

    @property
    def filename(self) -> str:
        """Its name beside files."""
        return basename(self.parameters.get("filename", "")) or FILES[self.kind]


def read_attests(texts: Iterable[str]) -> tuple[Attest, ...]:
    """``type=provenance,mode=max`` and so on; of two of a type the later counts. Raises UsageError(invalid-attestation)."""
    found: dict[str, Attest] = {}
    for text in texts:
        fields = parse_fields(text)
        kind = fields.pop("type", "")
        if kind not in _KNOWN:
            raise UsageError(
                f"unknown attestation type {kind!r}", code="invalid-attestation", hint="type=provenance or type=sbom"
            )
        if unknown := sorted(set(fields) - _KNOWN[kind]):
            raise UsageError(
                f"{kind} has no parameter {unknown[0]!r}",
                code="invalid-attestation",
                hint="one of " + ", ".join(sorted(_KNOWN[kind])),
            )
        if fields.pop("generator", ""):
            raise UsageError(
                "SBOMs are made by shiplap itself, not by a generator image",
                code="invalid-attestation",
                hint="leave out generator=",
            )
        found.pop(kind, None)
        if basename(fields.get("filename", "")) in (".", ".."):
            raise UsageError(
                f"{fields['filename']} is no name of a file", code="invalid-attestation", hint=f"filename={FILES[kind]}"
            )
        if not boolean(fields.pop("disabled", ""), False, "disabled"):
            found[kind] = Attest(kind, fields)
    for attest in found.values():
        if attest.kind == "provenance":
            wanted_provenance(attest)
    return tuple(found.values())


def wanted_provenance(attest: Attest) -> Wanted:
    """What is asked of a provenance. Raises UsageError."""
    from shiplap.export.provenance import Wanted

    given = attest.parameters
    return Wanted(
        mode="max" if given.get("mode", "max") == "full" else given.get("mode", "max"),
        version=given.get("version", "v1"),
        builder_id=given.get("builder-id", ""),
        reproducible=boolean(given.get("reproducible", ""), False, "reproducible"),
        complete=boolean(given.get("complete-materials", ""), False, "complete-materials"),
    ).checked()


class Attesting:
    """Makes the attestations of what was built."""

    def __init__(
        self,
        request: Request,
        context: Context,
        arguments: Mapping[str, str],
        store: Store,
        bench: Workbench,
        images: BaseImages,
        driver: Driver,
        began: float,
        invocation: str,
    ) -> None:
        self.asked = read_attests(request.attests)
        self._request = request
        self._context = context
        self._arguments = arguments
        self._store = store
        self._bench = bench
        self._images = images
        self._driver = driver
        self._began = began
        self._invocation = invocation

    def attestations(
        self, plan: Plan, snapshot: str, packing: Packing, now: float, check: Callable[[], None]
    ) -> list[Attestation]:
        """What was asked for, of the image for one platform, whose layers are packed as ``packing``; ``now``: seconds.

        ``check`` is called often, and raises if the build was cancelled.
        """
        from shiplap.export.attestation import Attestation
        from shiplap.export.provenance import PREDICATES, provenance

        made = []
        for attest in self.asked:
            if attest.kind == "provenance":
                if plan.target is None:
                    continue  # nothing was done: BuildKit has nothing to say of it either
                wanted = wanted_provenance(attest)
                predicate = provenance(self._origin(plan, packing, now), wanted)
                made.append(Attestation(PREDICATES[wanted.version], predicate, attest.filename))
            else:
                from shiplap import __version__
                from shiplap.sbom.spdx import PREDICATE, document

                tool = f"shiplap-{__version__}"
                with self._store.snapshots.tree(snapshot) as tree:
                    told = document(tree, plan.config.platform, now, tool, check)
                made.append(Attestation(PREDICATE, told, attest.filename))
        return made

    def summary(self, plan: Plan, now: float, mode: str) -> dict[str, Any]:
        """``buildx.build.provenance`` of the metadata file. ``mode``: ``min`` leaves out the steps and their times."""
        from shiplap.export.image import Packing
        from shiplap.export.provenance import Wanted, provenance

        asked = next((wanted_provenance(attest) for attest in self.asked if attest.kind == "provenance"), Wanted())
        wanted = Wanted(version="v0.2", builder_id=asked.builder_id, reproducible=asked.reproducible)
        told = provenance(self._origin(plan, Packing(), now), wanted)
        if mode != "max":
            told.pop("buildConfig", None)
            told.pop("metadata", None)
        return told

    def _origin(self, plan: Plan, packing: Packing, now: float) -> Origin:
        from shiplap.export.provenance import Origin
        from shiplap.oci.addresses import redacted

        request, context = self._request, self._context
        remote = context.source is not None
        return Origin(
            target=plan.target,
            dockerfile=context.dockerfile,
            dockerfile_name=basename(context.dockerfile_name) if not remote else context.dockerfile_name,
            arguments=_told(request, self._arguments, context.named),
            address=redacted(str(request.context)) if remote else "",
            source=context.source,
            version=context.version,
            images=self._images.names(),
            pins={digest: found.pin for digest, found in self._bench.fetched.items()},
            layers=dict(self._layers(packing)),
            builder=str(native_platform()),
            # A reproducible build has no other times than the image's, and no name of its own.
            invocation=self._invocation if not request.reproducible else "",
            started=self._began if not request.reproducible else now,
            finished=now,
        )

    def _layers(self, packing: Packing) -> Iterable[tuple[str, list[Descriptor]]]:
        """The layers of each step whose result is packed as a whole."""
        from shiplap.export.image import packed_layers

        for digest, snapshot in self._driver.results().items():
            found = packed_layers(self._store, snapshot, packing)
            if found:
                yield digest, found


def _told(request: Request, arguments: Mapping[str, str], named: Mapping[str, NamedContext]) -> dict[str, str]:
    """The request as BuildKit's frontend has it (frontend/dockerui/config.go)."""
    from shiplap.oci.addresses import redacted

    told = {f"build-arg:{name}": value for name, value in arguments.items()}
    for name, value in arguments.items():
        # Proxies alone of all arguments are addresses by trade, and may lack the scheme.
        if name.lower().endswith("_proxy"):
            told[f"build-arg:{name}"] = redacted(value) if "://" in value else redacted(f"//://{value}")[5:]
    told.update({f"label:{name}": value for name, value in request.labels.items()})
    told.update(
        (f"context:{name}", f"local:{named[name].value}" if named[name].kind == "local" else redacted(str(value)))
        for name, value in request.build_contexts.items()
    )
    if request.target:
        told["target"] = request.target
    if request.no_cache or request.no_cache_filter:
        told["no-cache"] = ",".join(request.no_cache_filter) if not request.no_cache else ""
    if request.add_hosts:
        told["add-hosts"] = ",".join(re.sub("[:=]", "=", text, count=1) for text in request.add_hosts)
    if request.shm_size:
        told["shm-size"] = str(request.shm_size)
    if request.ulimits:
        told["ulimit"] = ",".join(request.ulimits)
    if request.network != "default":
        told["force-network-mode"] = request.network
    return told
