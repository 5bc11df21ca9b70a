"""ADD of an archive: unpacked where it would be copied to."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from shiplap.errors import ImageError
from shiplap.layers.compression import Decompressed
from shiplap.layers.reader import TarReader
from shiplap.layers.unpack import UnpackRule, unpack
from shiplap.ops.workbench import Workbench
from shiplap.trees.change import ChangeTree, Spot
from shiplap.trees.select import Selected


def extract(
    match: Selected, make: Callable[[], Spot], target: ChangeTree, owner: tuple[int, int] | None, bench: Workbench
) -> bool:
    """Unpack ``match`` into the directory that ``make`` gives if it is an archive, by its content; whether it was one."""
    if not _is_archive(match):
        return False
    with _open(match) as file:
        unpack(Decompressed(file), target, UnpackRule(whiteouts=False, owner=owner, check=bench.check), make())
    return True


def _is_archive(match: Selected) -> bool:
    with _open(match) as file:
        try:
            return next(iter(TarReader(Decompressed(file))), None) is not None
        except ImageError:
            return False


def _open(match: Selected) -> BinaryIO:
    return open(match.found.parent.open_file(match.entry), "rb")
