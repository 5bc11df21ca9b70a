"""A build, from the request to the result: plan, solve, deliver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from shiplap.api.attesting import Attesting, read_attests
from shiplap.api.bases import BaseImages
from shiplap.api.context import Context, dockerfile_path, open_build_context
from shiplap.api.mending import Halt, Repairs, explaining
from shiplap.api.outcome import Built, Delivered, wants_nothing
from shiplap.api.planning import Planning
from shiplap.api.repeat import Question, Witnessed
from shiplap.api.request import Output, Request, Result, Secret, StageResult
from shiplap.dockerfile.options import Plan
from shiplap.dockerfile.parse import parse
from shiplap.errors import Interrupted, ShiplapError, StepError, StoreError, UsageError
from shiplap.events.facts import BuildFinished, BuildStarted, Fact, Sink, Warned
from shiplap.events.record import Record
from shiplap.oci.addresses import redacted
from shiplap.ops.driver import Driver
from shiplap.ops.foreign import check_platforms
from shiplap.ops.workbench import LocalContext, Workbench
from shiplap.settings import Settings, load
from shiplap.store.snapshots import EMPTY
from shiplap.store.store import Store


def build(
    context: str | Path | Request,
    *,
    target: str = "",
    tags: list[str] | tuple[str, ...] = (),
    build_args: Mapping[str, str | None] | None = None,
    output: str | Output | list[str | Output] | None = None,
    events: Sink | None = None,
    cancel: threading.Event | None = None,
    environ: Mapping[str, str] | None = None,
    question: Question | None = None,
    **fields: Any,
) -> Result:
    """Build an image and return what came of it.

    ``context`` is a directory, or a whole :class:`Request`; ``fields`` are further fields of Request. ``events`` takes
    every fact as it happens, from several threads. Set ``cancel`` to stop. ``question``: what was asked, if the same
    question shall be answered from a record next time (see ``api.repeat``). Raises ShiplapError.

    >>> shiplap.build(".", target="app", tags=["app:1"], build_args={"V": "2"}, output="type=oci,dest=app.tar").digest
    """
    if not isinstance(context, Request):
        listed = output if isinstance(output, list) else [] if output is None else [output]
        outputs = tuple(Output.parse(item) if isinstance(item, str) else item for item in listed)
        context = Request(
            context=context, target=target, tags=tuple(tags), build_args=build_args or {}, outputs=outputs, **fields
        )
    environ = os.environ if environ is None else environ
    settings = load(environ, root=str(context.root) if context.root is not None else None)
    sink = events or (lambda fact: None)
    return _Build(context, settings, environ, sink, cancel or threading.Event(), question).run()


_TARGET = "target:"
"""What the value of a named context begins with that is a stage of the same Dockerfile."""


class _Build:
    def __init__(
        self,
        request: Request,
        settings: Settings,
        environ: Mapping[str, str],
        sink: Sink,
        cancel: threading.Event,
        question: Question | None,
    ) -> None:
        self._request = request
        self._settings = settings
        self._environ = environ
        self._cancel = cancel
        self._halt = Halt(cancel)
        self._warnings: list[str] = []
        self._timings: dict[str, float] = {}
        self._driver: Driver | None = None
        self._ignore: tuple[str, ...] = ()
        self._log: Record | None = None
        self._witnessed = Witnessed(question, sink) if question is not None else None
        self._sink = sink if self._witnessed is None else self._witnessed.heard

    def run(self) -> Result:
        began = time.time()
        digest = fault = ""
        canceled = False
        try:
            self._request = self._with_results()
            result = self._until_sound(began)
            digest = result.digest
            return result
        except ShiplapError as error:
            fault, canceled = error.message, isinstance(error, Interrupted)
            self._name_log(error)
            raise
        except BaseException as error:
            fault, canceled = type(error).__name__, isinstance(error, KeyboardInterrupt)
            raise
        finally:
            ran = len(self._driver.ran) if self._driver is not None else 0
            reused = len(self._driver.reused) if self._driver is not None else 0
            ended = time.time()
            self._sink(BuildFinished(ended, ended - began, ran, reused, digest, fault, canceled))

    def _with_results(self) -> Request:
        """The request, its contexts that are themselves to be built replaced by the images they give."""
        request = self._request
        contexts = dict(request.build_contexts)

        def pass_on(fact: Fact) -> None:
            if not isinstance(fact, BuildStarted | BuildFinished):
                self._sink(fact)

        for name, value in request.build_contexts.items():
            if isinstance(value, Request):
                other = value
            elif value.startswith(_TARGET):
                others = {key: context for key, context in request.build_contexts.items() if key != name}
                other = msgspec.structs.replace(request, target=value.removeprefix(_TARGET), build_contexts=others)
            else:
                continue
            wanted = msgspec.structs.replace(
                other,
                outputs=(Output("image"),),
                tags=(),
                annotations=(),
                attests=(),
                push=False,
                load=False,
                describe="",
                root=request.root,
                platform=request.platform,
            )
            part = _Build(wanted, self._settings, self._environ, pass_on, self._cancel, None)
            contexts[name] = f"docker-image://localhost/target@{part.run().digest}"
        return msgspec.structs.replace(request, build_contexts=contexts)

    def _until_sound(self, began: float) -> Result:
        """Build. What turns out to be damaged has been removed by then: build again, and it is made or fetched anew."""
        repairs = Repairs()
        while True:
            try:
                with ExitStack() as held:
                    return self._run(held, began)
            except StoreError as error:
                streams = any(output.dest == "-" for output in self._request.outputs)
                if streams or not repairs.may_repeat(error):
                    raise
                self._sink(Warned(f"{error.message}; it is made anew"))
                self._halt = Halt(self._cancel)
                self._warnings = []
                if self._witnessed is not None:
                    self._witnessed.spoil()

    def _run(self, held: ExitStack, began: float) -> Result:
        request = self._request
        store = held.enter_context(Store(Path(self._settings.root)))
        if self._log is None:
            self._record(began)
        store.room.limit = request.max_used_space or self._settings.max_used_space
        store.room.stop = self._halt.set
        held.enter_context(explaining(store.root, store.room, self._cancel))
        held.enter_context(store.in_use(self._check))
        images = held.enter_context(BaseImages(store, self._settings, self._sink, pull=request.pull, cancel=self._halt))
        bench = self._bench(store, images)
        context = held.enter_context(open_build_context(request, self._settings, bench))
        context, request = self._versioned(context)
        images.layouts = context.layouts
        self._ignore = context.ignore
        planning = Planning(request, self._settings, self._environ, context, bench)
        if not wants_nothing(request):
            from shiplap.api.deliver import check_outputs

            check_outputs(request, planning.platforms())
        plans = planning.plans(parse(context.dockerfile, context.dockerfile_name), images)
        self._warn(plans)
        self._timings["plan"] = time.time() - began
        built = self._solve(plans, bench, context, planning)
        solved = time.time()
        self._timings["solve"] = solved - began - self._timings["plan"]
        attesting = self._attesting(context, planning, store, bench, images, began)
        delivered = self._deliver(request, built, store, attesting)
        self._timings["export"] = time.time() - solved
        described = [each for each in built if each.plan.target is not None] if request.describe else []
        told = {str(each.platform): attesting.summary(each.plan, time.time(), request.describe) for each in described}
        result = self._result(plans, delivered, told, began)
        if self._witnessed is not None:
            self._remember(self._witnessed, delivered, result, bench, images)
        return result

    def _deliver(self, request: Request, built: list[Built], store: Store, attesting: Attesting) -> Delivered:
        if wants_nothing(request):
            self._check()
            return Delivered()
        from shiplap.api.deliver import deliver

        return deliver(request, built, store, self._settings, self._sink, attesting, self._check, self._halt)

    def _versioned(self, context: Context) -> tuple[Context, Request]:
        """Both with what git says of a directory of this machine, if anybody wants to know."""
        request, asked = self._request, self._settings.versions
        told = asked.told and (
            request.describe or any(each.kind == "provenance" for each in read_attests(request.attests))
        )
        here = context.path is not None and request.context_data is None
        if not here or not (told or asked.labels):
            return context, request
        from shiplap.api.versions import version_of

        others = {name: str(path) for name, path in context.directories.items()}
        version = version_of(str(context.path), dockerfile_path(request), others, self._settings, self._check)
        if version.warning:
            self._warnings.append(version.warning)
            self._sink(Warned(version.warning))
        self._request = msgspec.structs.replace(request, labels={**request.labels, **version.labels})
        return msgspec.structs.replace(context, version=version.facts if told else {}), self._request

    def _remember(
        self,
        witnessed: Witnessed,
        delivered: Delivered,
        result: Result,
        bench: Workbench,
        images: BaseImages,
    ) -> None:
        """Keep what it takes to answer the same question again, if nothing came from elsewhere."""
        assert self._driver is not None
        if bench.fetched or any(line.startswith("!") for line in self._ignore):
            return  # asked anew each time; or a look into ignored directories, which nobody witnessed
        store = bench.store
        nodes = [*self._driver.ran, *self._driver.reused]
        told = msgspec.to_builtins(result)
        told["steps_reused"] = [*told["steps_run"], *told.pop("steps_reused")]
        told["steps_run"] = []
        witnessed.keep(
            told,
            [node.digest for node in nodes],
            {**images.names(), **delivered.stored},
            self._driver.used,
            [(dest, [_text(piece) for piece in pieces]) for dest, pieces in delivered.archives],
            {digest: store.blobs.size(digest) for digest in store.images.blobs_of(result.digest)}
            if result.digest
            else {},
            store.aside("repeat"),
        )

    def _attesting(
        self,
        context: Context,
        planning: Planning,
        store: Store,
        bench: Workbench,
        images: BaseImages,
        began: float,
    ) -> Attesting:
        assert self._driver is not None
        id = self._log.id if self._log is not None else ""
        return Attesting(self._request, context, planning.arguments, store, bench, images, self._driver, began, id)

    def _record(self, began: float) -> None:
        """From now on, facts go by way of the build's record."""
        request, settings = self._request, self._settings
        record = Record(Path(settings.logs), self._sink, builds=settings.log_builds, size=settings.log_size)
        self._sink = self._log = record
        context = "-" if request.context_data is not None else str(request.context)
        dockerfile = "-" if request.dockerfile_data is not None else str(request.dockerfile or "")
        record(BuildStarted(began, redacted(context), dockerfile, request.target, request.tags, record.id))

    def _name_log(self, error: ShiplapError) -> None:
        """Tell how to read all that the failed step wrote."""
        if self._log is None or not self._log.id or not isinstance(error, StepError) or error.hint:
            return
        number = self._log.failed(str(error))
        if number:
            from shlex import quote

            root = f"--root {quote(str(self._request.root))} " if self._request.root is not None else ""
            error.hint = f"shiplap {root}logs {self._log.id} --step {number} shows all of its output"

    def _check(self) -> None:
        if self._halt.is_set():
            raise Interrupted("build canceled")

    def _bench(self, store: Store, images: BaseImages) -> Workbench:
        """All but what is known only when the Dockerfile has been read."""
        from shiplap.api.isolation import runtime_for, single_id

        request, settings = self._request, self._settings
        return Workbench(
            store=store,
            runtime=runtime_for(request.isolation, settings, store.results),
            images=images,
            sink=self._sink,
            secrets={secret.id: _reader(secret, self._environ) for secret in request.secrets},
            ssh=request.ssh,
            web=settings.web,
            programs=settings.helper_path,
            cancel=self._halt,
            single_id=single_id(),
            copies=settings.snapshots == "copy",
        )

    def _solve(self, plans: list[Plan], bench: Workbench, context: Context, planning: Planning) -> list[Built]:
        request = self._request
        witness = self._witnessed.saw if self._witnessed is not None else None
        contexts = {"context": LocalContext(context.path, witness)} if context.path is not None else {}
        contexts.update({name: LocalContext(path) for name, path in context.directories.items()})
        bench.contexts = contexts
        bench.proxies = tuple(f"{k}={v}" for k, v in planning.proxies().items())
        bench.epoch = plans[0].epoch
        targets = [node for plan in plans for node in (*plan.also, plan.target) if node is not None]
        parallel = request.parallel or max(16, 4 * (os.cpu_count() or 1))
        check_platforms(targets, bench)
        self._driver = Driver(targets, bench, 1 if planning.every_stage else parallel)
        self._driver.solve()
        return [Built(plan, self._driver.result(plan.target) if plan.target is not None else EMPTY) for plan in plans]

    def _warn(self, plans: list[Plan]) -> None:
        """Tell what was remarked on, once if it is so on every platform."""
        said = {(each.rule, each.message, str(each.where)): each for plan in plans for each in plan.warnings}
        for remark in said.values():
            self._warnings.append(f"{remark.rule}: {remark.message}")
            place = remark.where
            self._sink(Warned(remark.message, remark.rule, place.file or "", place.line or 0, remark.url))
        platforms = [str(plan.config.platform) for plan in plans]
        for repeated in sorted({text for text in platforms if platforms.count(text) > 1}):
            message = f'Duplicate platform result requested "{repeated}"'
            self._warnings.append(message)
            self._sink(Warned(message))

    def _result(self, plans: list[Plan], delivered: Delivered, told: Mapping[str, Any], began: float) -> Result:
        assert self._driver is not None
        return Result(
            digest=delivered.digest,
            config_digest=delivered.config_digest,
            size=delivered.size,
            image_size=delivered.image_size,
            media_type=delivered.media_type,
            annotations=delivered.annotations,
            platform=",".join(str(plan.config.platform) for plan in plans),
            images=delivered.images,
            names=delivered.names,
            stages=tuple(
                StageResult(same[0].index, same[0].name, any(stage.needed for stage in same))
                for same in zip(*(plan.stages for plan in plans), strict=True)
            ),
            steps_run=tuple(node.about.name for node in self._driver.ran),
            steps_reused=tuple(node.about.name for node in self._driver.reused),
            warnings=tuple(self._warnings),
            id=self._log.id if self._log is not None else "",
            provenance=told,
            seconds=time.time() - began,
            timings=dict(self._timings),
            outputs=delivered.written,
        )


def _text(piece: bytes | tuple[str, int]) -> str | tuple[str, int]:
    return piece.decode("latin-1") if isinstance(piece, bytes) else piece


def _reader(secret: Secret, environ: Mapping[str, str]) -> Callable[[], bytes]:
    def read() -> bytes:
        if secret.value is not None:
            return secret.value
        name = secret.env or ("" if secret.source else secret.id)
        if name and (name in environ or secret.env):
            if name not in environ:
                raise UsageError(f"secret {secret.id}: the variable {name} is not set", code="secret-not-found")
            return os.fsencode(environ[name])
        path = secret.source or secret.id
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise UsageError(
                f"secret {secret.id}: cannot read {path}: {error.strerror}", code="secret-not-found"
            ) from None

    return read
