"""Roots and mounts of a step that are copies: where no overlay can be mounted, and where changes are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.ops.record import on_record, put_on_record
from shiplap.ops.rootfs import StepRoot
from shiplap.ops.workbench import Workbench
from shiplap.sandbox.spec import ExitStatus, Rootfs
from shiplap.store.snapshots import Draft
from shiplap.trees.flat import lay_flat, take_changes
from shiplap.trees.tree import Directory, Tree


class CopiedRoot(StepRoot):
    """A copy of all that the base holds; what a step changed in it becomes the layer."""

    def __init__(self, bench: Workbench, draft: Draft, base: Tree, directory: Path) -> None:
        super().__init__(bench, draft, None)
        self._whole = base
        self._path = str(directory / "root")
        Path(self._path).mkdir(mode=0o755)
        self._since = lay_flat(base.root(), base.root_entry(), self._path, bench.check)
        self.rootfs = Rootfs((), self._path, draft.work)
        with Tree((self._path,)) as flat:
            self.owners = on_record(flat)

    def keep(self, status: ExitStatus) -> None:
        if status.owners is not None:
            put_on_record(status.owners, self._path)
        take_changes(self._path, self._whole, self._since, self._draft.diff)


@contextmanager
def spare_copy(bench: Workbench, source: Directory, only: str = "") -> Iterator[str]:
    """A directory with a copy of what ``source`` shows (or of ``only`` in it), for a mount whose changes are dropped."""
    with bench.store.scratch("view") as directory:
        path = directory / "copy"
        path.mkdir(mode=0o755)
        lay_flat(source, None, str(path), bench.check, only)
        yield str(path)
