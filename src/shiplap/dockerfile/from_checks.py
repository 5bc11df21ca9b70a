"""Checks of FROM lines: undeclared arguments, defaults that name no image, platforms (reference 6.6)."""

from __future__ import annotations

from collections.abc import Mapping

from shiplap.dockerfile.checks import Checks
from shiplap.dockerfile.fault import Fault
from shiplap.dockerfile.globals import global_args
from shiplap.dockerfile.instructions import Dockerfile, From
from shiplap.dockerfile.suggest import did_you_mean
from shiplap.dockerfile.words import Lexer
from shiplap.errors import DockerfileError, ImageError, UsageError
from shiplap.oci.platform import parse_platform
from shiplap.oci.reference import parse_reference


def check_from_args(checks: Checks, dockerfile: Dockerfile, automatic: Mapping[str, str], lexer: Lexer) -> None:
    """InvalidDefaultArgInFrom: a base that is no image name when no build argument is given."""
    try:
        values = global_args(automatic, dockerfile.args, {}, lexer, dockerfile.source)
        for stage in dockerfile.stages:
            origin = stage.origin
            name = lexer.expand(origin.base, values)
            try:
                parse_reference(name)
            except ImageError:
                text = f"Default value for ARG {origin.base} results in empty or invalid base image name"
                checks.add("InvalidDefaultArgInFrom", text, origin.line, origin.end_line, (), origin.base)
    except (Fault, DockerfileError):
        return  # The same fault is told when the stages are read.


def check_platform(
    checks: Checks,
    dockerfile: Dockerfile,
    origin: From,
    unmatched: set[str],
    values: Mapping[str, str],
    platform: str | None = None,
    matched: set[str] | None = None,
) -> None:
    """UndefinedArgInFrom for names a FROM used; for a platform also RedundantTargetPlatform and
    FromPlatformFlagConstDisallowed.
    """
    known = {item.name for arg in dockerfile.args for item in arg.items} | values.keys()
    where = (origin.line, origin.end_line, origin.comments)
    for name in sorted(unmatched - known):
        text = f"FROM argument '{name}' is not declared{did_you_mean(name, sorted(known))}"
        checks.add("UndefinedArgInFrom", text, *where, f"${name}")
    if platform is None:
        return
    if matched == {"TARGETPLATFORM"} and not unmatched and platform == values.get("TARGETPLATFORM"):
        text = f"Setting platform to predefined {origin.platform} in FROM is redundant as this is the default behavior"
        checks.add("RedundantTargetPlatform", text, *where, origin.platform)
    if matched or unmatched:
        return
    try:
        parsed = parse_platform(platform)
    except UsageError:
        return
    if parsed.os not in origin.name and parsed.architecture not in origin.name:
        text = f'FROM --platform flag should not use constant value "{platform}"'
        checks.add("FromPlatformFlagConstDisallowed", text, *where, platform)
