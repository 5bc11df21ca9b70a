"""Variables of FROM lines: platform arguments and the ARGs before the first FROM (reference 2.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shiplap.dockerfile.fault import Fault, Source
from shiplap.dockerfile.instructions import Arg
from shiplap.dockerfile.words import Lexer
from shiplap.oci.platform import Platform


def platform_args(build: Platform, target: Platform, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    """The automatic ARGs; build arguments of the same name win. ``stage`` is the target as typed, or its name."""
    args: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        args[f"{prefix}PLATFORM"] = platform.full
        args[f"{prefix}OS"] = platform.os
        args[f"{prefix}OSVERSION"] = platform.os_version
        args[f"{prefix}ARCH"] = platform.architecture
        args[f"{prefix}VARIANT"] = platform.variant
    args["TARGETSTAGE"] = stage or "default"
    return {name: given.get(name, value) for name, value in args.items()}


def global_args(
    automatic: Mapping[str, str], declared: Iterable[Arg], given: Mapping[str, str], lexer: Lexer, source: Source
) -> dict[str, str]:
    """Automatic and declared global ARGs with their values; those without one are left out. Raises DockerfileError."""
    values = dict(automatic)
    for arg in declared:
        for item in arg.items:
            value = given.get(item.name)
            if value is None and item.default is not None:
                try:
                    value = lexer.expand(item.default, values)
                except Fault as fault:
                    raise source.error(fault, arg.line, arg.end_line) from None
            if value is not None:
                values.pop(item.name, None)
                values[item.name] = value
    return values
