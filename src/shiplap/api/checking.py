"""What can be said of a Dockerfile without building it: remarks, their fixes, its outline, its targets."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import msgspec

from shiplap.api.bases import BaseImages
from shiplap.api.context import open_build_context
from shiplap.api.drawing import Unasked
from shiplap.api.request import Request
from shiplap.dockerfile.checks import RULES, CheckConfig, Remark, parse_check
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.graph_checks import GRAPH_RULES, check_graph
from shiplap.dockerfile.instructions import Dockerfile
from shiplap.dockerfile.lower import check, lower
from shiplap.dockerfile.mend import Edit, edits, mended
from shiplap.dockerfile.options import ImageResolver, LowerOptions, ResolvedImage
from shiplap.dockerfile.outline import outline, targets
from shiplap.dockerfile.parse import parse
from shiplap.errors import ContextError, DockerfileError, ExportError, ImageError, RegistryError, ShiplapError
from shiplap.oci.platform import Platform, native_platform, parse_platform
from shiplap.oci.reference import Reference
from shiplap.settings import Settings
from shiplap.store.store import Store

_MOST_FIXES = 10_000


class Finding(msgspec.Struct, frozen=True):
    """A remark. Lines are 1-based; ``fix`` says what would be put in the place of the line, if it can be mended."""

    rule: str
    description: str
    url: str
    detail: str
    file: str
    line: int
    end_line: int
    fix: str | None = None


class Checked(msgspec.Struct, frozen=True):
    """``error`` ended the search early, if there is one. ``source`` is the Dockerfile's text, ``name`` its name."""

    findings: tuple[Finding, ...]
    error: ShiplapError | None
    source: bytes
    name: str
    mended: int = 0


def check_dockerfile(
    request: Request, settings: Settings, *, graph: bool = True, ask: bool = False, fix: bool = False
) -> Checked:
    """The remarks on all stages, or on those that ``request.target`` needs.

    ``graph``: with the rules that no builder has. ``ask``: base images that the store does not have are looked for in their
    registries. ``fix``: mend the file where that changes nothing of what is built. Raises ContextError.
    """
    with _opened(request, settings, ask) as held:
        checked = held.check(graph)
        if not fix:
            return checked
        count = 0
        path = _file_of(request)
        while count < _MOST_FIXES:
            better = held.mended(checked)
            if better is None:
                break
            count += 1
            held.data = better
            checked = held.check(graph)
        if count:
            try:
                path.write_bytes(held.data)
            except OSError as error:
                raise ExportError(f"cannot write {path}: {error.strerror}", code="cannot-write") from None
        return msgspec.structs.replace(checked, mended=count)


def outline_of(request: Request, settings: Settings) -> Mapping[str, Any]:
    """Arguments, secrets and agents that the target takes, in the form of BuildKit's ``outline`` subrequest."""
    with _opened(request, settings, ask=False) as held:
        dockerfile = held.sound()
        return {**outline(dockerfile, held.options), "sources": [base64.b64encode(held.data).decode()]}


def targets_of(request: Request, settings: Settings) -> Mapping[str, Any]:
    """The stages, in the form of BuildKit's ``targets`` subrequest."""
    with _opened(request, settings, ask=False) as held:
        return {**targets(parse(held.data, held.name)), "sources": [base64.b64encode(held.data).decode()]}


class _opened:
    """A Dockerfile with what is needed to check it."""

    def __init__(self, request: Request, settings: Settings, ask: bool) -> None:
        self._request = request
        self._settings = settings
        self._ask = ask
        self._held = ExitStack()

    def __enter__(self) -> _opened:
        request = self._request
        with self._held as held:
            context = held.enter_context(open_build_context(request, self._settings))
            self.data, self.name = context.dockerfile, context.dockerfile_name
            native = native_platform()
            self.options = LowerOptions(
                target=request.target,
                build_args={name: value for name, value in request.build_args.items() if value is not None},
                target_platform=parse_platform(request.platforms[0]) if request.platforms else native,
                build_platform=native,
                explicit_platform=bool(request.platform),
                ignore=context.ignore,
                contexts=context.named,
                allow=frozenset(request.allow) | {"network.host", "security.insecure"},
            )
            store = held.enter_context(Store(Path(self._settings.root)))
            images = held.enter_context(
                BaseImages(store, self._settings, lambda fact: None, pull=False, cancel=Event())
            )
            images.layouts = context.layouts
            self._images: ImageResolver = _Lenient(images, self._ask)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def check(self, graph: bool) -> Checked:
        try:
            dockerfile = parse(self.data, self.name)
        except ShiplapError as fault:
            return Checked((), fault, self.data, self.name)
        remarks, error = check(dockerfile, self.options, self._images)
        if graph:
            remarks = (*remarks, *check_graph(dockerfile, self._config(dockerfile)))
        found = list(zip(remarks, edits(dockerfile, remarks), strict=True))
        if graph:
            found.sort(key=lambda pair: pair[0].where.line or 0)
        findings = tuple(_finding(remark, edit, self.name) for remark, edit in found)
        if error is None and findings and not graph and self._config(dockerfile).error:
            rules = ", ".join(sorted({finding.rule for finding in findings}))
            error = DockerfileError(f"lint violation found for rules: {rules}", code="check-failed")
        return Checked(findings, error, self.data, self.name)

    def sound(self) -> Dockerfile:
        """The Dockerfile; raises what a build of it would raise before its first step."""
        dockerfile = parse(self.data, self.name)
        lower(dockerfile, self.options, self._images)
        return dockerfile

    def mended(self, checked: Checked) -> bytes | None:
        """The text with the first fix that changes nothing of the plan; None if there is none."""
        before = self._plan(self.data)
        lines = self.data.decode("utf-8", "surrogateescape").splitlines(keepends=True)
        for finding in checked.findings:
            if finding.fix is not None:
                text = "".join(mended(lines, Edit(finding.line, finding.line, finding.fix)))
                data = text.encode("utf-8", "surrogateescape")
                if data != self.data and self._plan(data) == before:
                    return data
        return None

    def _plan(self, data: bytes) -> object:
        try:
            plan = lower(parse(data, self.name), self.options, self._images)
        except ShiplapError as error:
            return error.message
        return plan.target.digest if plan.target is not None else "", plan.config

    def _config(self, dockerfile: Dockerfile) -> CheckConfig:
        text = self.options.build_args.get("BUILDKIT_DOCKERFILE_CHECK", dockerfile.check or "")
        try:
            return parse_check(text)
        except Fault:
            return CheckConfig()  # ``check`` has said so


class _Lenient:
    """Gives the config of a base image if that can be had, else an empty one: a check must not need a network."""

    def __init__(self, images: BaseImages, ask: bool) -> None:
        self._images = images
        self._unasked = Unasked()
        self._resolve: Callable[[Reference, Platform], ResolvedImage | None] = (
            images.resolve if ask else images.resolve_at_home
        )

    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        try:
            found = self._resolve(reference, platform)
        except (RegistryError, ImageError):
            found = None
        return found or self._unasked.resolve(reference, platform)


def _finding(remark: Remark, edit: Edit | None, name: str) -> Finding:
    where = remark.where
    own = remark.rule in GRAPH_RULES
    description = GRAPH_RULES[remark.rule] if own else RULES[remark.rule]
    url = "" if own else remark.url
    line = where.line or 1
    return Finding(
        remark.rule, description, url, remark.message, name, line, where.end_line or line, edit.text if edit else None
    )


def _file_of(request: Request) -> Path:
    if request.context_data is not None or request.dockerfile_data is not None:
        raise ContextError("what comes on standard input cannot be mended", code="no-file", hint="name the file")
    if request.dockerfile is not None and Path(request.dockerfile).is_file():
        return Path(request.dockerfile)
    path = Path(request.context) / (request.dockerfile or "Dockerfile")
    return path if path.is_file() else Path(request.context) / "dockerfile"


def rules() -> Sequence[tuple[str, str]]:
    """Every rule: its name and what it is about."""
    return [*RULES.items(), *GRAPH_RULES.items()]
