"""The root file system of a step: layers under an overlay, or one directory with all of it where no overlay can be.

So few layers are over the limit of one overlay (500) that the sandbox, which stacks two, has the word up to 999; beyond, the
copy costs time and not the build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shiplap.ops.record import on_record, put_on_record
from shiplap.ops.workbench import Workbench
from shiplap.sandbox.spec import MOST_LOWERS, ExitStatus, FileOwner, Rootfs
from shiplap.store.snapshots import EMPTY, Draft
from shiplap.trees.owners import Owners
from shiplap.trees.tree import Tree


class StepRoot:
    """Give ``rootfs`` and ``owners`` to the sandbox, then ``keep`` what the step changed."""

    def __init__(self, bench: Workbench, draft: Draft, base: Tree | None) -> None:
        self._bench = bench
        self._draft = draft
        self._base = base
        self.rootfs = Rootfs(
            tuple(layer.path for layer in base.layers) if base is not None else (), draft.diff, draft.work
        )
        self.owners: Mapping[str, FileOwner] = on_record(base) if base is not None else {}

    def keep(self, status: ExitStatus) -> None:
        """Have the draft's layer be what the step, which ended with ``status``, made of the base."""
        if status.owners is not None:
            put_on_record(status.owners, self._draft.diff)
        elif self._bench.single_id and self._base is not None:
            _keep_owners(self._draft.diff, self._base)


@contextmanager
def step_root(bench: Workbench, parent: str, draft: Draft, base: Tree | None) -> Iterator[StepRoot]:
    """The root of a step over the snapshot ``parent``, whose tree ``base`` is (None: scratch), all of it on disk."""
    if base is None or parent == EMPTY or can_overlay(bench, len(base.layers)):
        yield StepRoot(bench, draft, base)
        return
    from shiplap.ops.copied import CopiedRoot

    with bench.store.scratch("root") as directory:
        yield CopiedRoot(bench, draft, base, directory)


def can_overlay(bench: Workbench, layers: int) -> bool:
    """Whether so many layers can be mounted here as one; tells the user if not, for what a step does then takes longer."""
    if not bench.runtime().overlay:
        if not bench.copies:
            bench.notice(
                "no overlay can be mounted here: each step works on a copy of its root, which takes longer; "
                "shiplap doctor says why"
            )
        return False
    if layers > MOST_LOWERS:
        bench.notice(
            f"an overlay takes {MOST_LOWERS} layers: each step over more works on a copy of its root, which takes longer"
        )
        return False
    return True


def _keep_owners(diff: str, base: Tree) -> None:
    """With one mapped id, what overlayfs copied up lost its recorded owner: carry it on."""
    from shiplap.layers.difference import inherit_owners

    with Tree((diff,)) as layer:
        inherited = inherit_owners(layer, base)
    if inherited:
        owners = Owners.load(diff)
        for path, owner in inherited.items():
            owners.record(path, owner)
        owners.save(diff)
