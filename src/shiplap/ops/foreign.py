"""RUN for platforms that are not the machine's own: what it takes, found out before the first step of a build runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from shiplap.errors import SandboxError
from shiplap.graph.node import Node, walk
from shiplap.graph.operations import Run
from shiplap.oci.platform import native_platform, parse_platform
from shiplap.ops.driver import Driver
from shiplap.ops.workbench import Workbench

if TYPE_CHECKING:
    from shiplap.sandbox.spec import Emulator


def emulator_for(platform: str, bench: Workbench) -> Emulator | None:
    """What a process for ``platform`` needs as its emulator; None if it runs as it is.

    Raises SandboxError (no-emulator), saying what to install.
    """
    if not _foreign(platform):
        return None
    from shiplap.sandbox.emulation import require

    return require(platform, bench.runtime(), str(bench.store.root), bench.programs)


def check_platforms(targets: Iterable[Node], bench: Workbench) -> None:
    """Raise what ``emulator_for`` would, of the first RUN in the way of ``targets`` that has to run and cannot.

    Nothing is tried out while an emulator seems to be there: the step that needs it finds out. One that has no need to
    run, since its result is known, needs no emulator either.
    """
    targets = list(targets)
    runs = [node for node in walk(targets) if isinstance(node.operation, Run)]
    refused: dict[str, SandboxError] = {}
    for platform in {node.operation.platform for node in runs if isinstance(node.operation, Run)}:
        if not _foreign(platform):
            continue
        from shiplap.sandbox.emulation import likely

        if not likely(platform, bench.programs):
            try:
                emulator_for(platform, bench)
            except SandboxError as fault:
                refused[platform] = fault
    if not refused:
        return
    unknown = {node.digest for node in Driver(targets, bench, 1).unmade()}
    for node in runs:
        if isinstance(node.operation, Run) and node.operation.platform in refused and node.digest in unknown:
            error = refused[node.operation.platform]
            error.where = node.about.place
            raise error


def _foreign(platform: str) -> bool:
    wanted = parse_platform(platform)
    return wanted.os == "linux" and wanted.architecture != native_platform().architecture
