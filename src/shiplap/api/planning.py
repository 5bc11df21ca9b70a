"""From a request and a Dockerfile to plans: one for each platform that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shiplap.api.bases import BaseImages
from shiplap.api.context import Context
from shiplap.api.request import Request
from shiplap.dockerfile.instructions import Dockerfile
from shiplap.dockerfile.lower import Lowering
from shiplap.dockerfile.options import LowerOptions, NamedContext, Plan
from shiplap.errors import ShiplapError, UsageError
from shiplap.oci.platform import Platform, native_platform, parse_platform
from shiplap.ops.workbench import Workbench
from shiplap.settings import Settings

REPRODUCIBLE_EPOCH = 315_532_800
"""1980-01-01, the earliest time that zip archives know: programs that pack what is in an image go on working."""


class Planning:
    """Lowers a Dockerfile for every platform of a request. Stages that are the same for several are the same nodes."""

    def __init__(
        self, request: Request, settings: Settings, environ: Mapping[str, str], context: Context, bench: Workbench
    ) -> None:
        self._request = request
        self._settings = settings
        self._context = context
        self._bench = bench
        self._native = native_platform()
        self.arguments = _arguments(request.build_args, environ)
        """The build arguments, with the values that the environment gives."""
        if settings.source_date_epoch is not None:
            self.arguments.setdefault("SOURCE_DATE_EPOCH", str(settings.source_date_epoch))
        if request.reproducible:
            self.arguments.setdefault("SOURCE_DATE_EPOCH", str(REPRODUCIBLE_EPOCH))

    @property
    def every_stage(self) -> bool:
        """Whether all stages up to the target are built, one after the other."""
        every = self._request.every_stage
        return self._settings.docker_buildkit is False if every is None else every

    def platforms(self) -> list[Platform]:
        """Those asked for, in order, a repeated one as often as it was named; this machine's if none was."""
        named = self._request.platforms or tuple(filter(None, self._settings.default_platform.split(",")))
        return [parse_platform(text, self._native) for text in named] or [self._native]

    def plans(self, dockerfile: Dockerfile, images: BaseImages) -> list[Plan]:
        """A plan for each of ``platforms``, which is told of by its config. Raises what ``lower`` raises."""
        moments = self._moments()
        platforms = self.platforms()
        options = [self._options(platform, len(platforms) > 1, moments) for platform in platforms]
        lowerings = {each.target_platform: Lowering(dockerfile, each) for each in options}
        images.prefetch(list(dict.fromkeys(base for each in lowerings.values() for base in each.base_images())))
        plans = {}
        for platform, lowering in lowerings.items():
            try:
                plans[platform] = lowering.lower(images)
            except ShiplapError as error:
                error.platform = str(platform) if len(lowerings) > 1 else ""
                raise
        return [plans[platform] for platform in platforms]

    def proxies(self) -> dict[str, str]:
        """Proxy variables for RUN: those given as build arguments, else docker's configuration; in both cases of letters."""
        found = self._settings.build_proxies()
        for name, value in self.arguments.items():
            if name.lower() in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"):
                found[name.lower()] = found[name.upper()] = value
        return found

    def _options(self, platform: Platform, several: bool, moments: Callable[[Any], int | None]) -> LowerOptions:
        request, context, args = self._request, self._context, self.arguments
        return LowerOptions(
            target=request.target,
            build_args=args,
            labels=dict(request.labels),
            target_platform=platform,
            build_platform=self._native,
            explicit_platform=bool(request.platforms or self._settings.default_platform),
            multi_platform=several,
            no_cache=request.no_cache,
            no_cache_filter=request.no_cache_filter,
            network=request.network,
            extra_hosts=tuple(_host(text) for text in request.add_hosts),
            shm_size=request.shm_size,
            ulimits=request.ulimits,
            contexts={name: named for name, named in context.named.items() if isinstance(named, NamedContext)},
            context=context.source,
            ignore=context.ignore,
            every_stage=self.every_stage,
            moments=moments,
            cache_namespace=args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
            hostname=args.get("BUILDKIT_SANDBOX_HOSTNAME", ""),
            allow=frozenset(request.allow) | ({"network.host"} if request.network == "host" else frozenset()),
        )

    def _moments(self) -> Callable[[Any], int | None]:
        """The time of a source that SOURCE_DATE_EPOCH names, fetched once."""
        known: dict[Any, int | None] = {}

        def ask(source: Any) -> int | None:
            from shiplap.api.remote import moment_of

            if source not in known:
                archive = self._context.path if self._request.context_data is not None else None
                known[source] = moment_of(source, archive, self._bench)
            return known[source]

        return ask


def _arguments(given: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    args = {}
    for name, value in given.items():
        value = environ.get(name) if value is None else value
        if value is not None:
            args[name] = value
    return args


def _host(text: str) -> str:
    name, separator, address = text.partition("=") if "=" in text else text.partition(":")
    if not separator or not name or not address:
        raise UsageError(f"invalid host {text!r}", code="invalid-host", hint="--add-host NAME=ADDRESS")
    return f"{name}={'127.0.0.1' if address == 'host-gateway' else address.strip('[]')}"
