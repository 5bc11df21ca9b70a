"""RUN: one process over a snapshot, in the sandbox; what it changed becomes a new layer."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from shiplap.errors import ImageError, StepError, TreeError, quote
from shiplap.events.facts import StepOutput
from shiplap.graph.node import Node
from shiplap.graph.operations import NO_INPUT, Mount, Run
from shiplap.ops.accounts import Accounts
from shiplap.ops.foreign import emulator_for
from shiplap.ops.rootfs import can_overlay, step_root
from shiplap.ops.workbench import Workbench
from shiplap.sandbox.spec import ProcessSpec, StepMount
from shiplap.store.locks import locked
from shiplap.store.room import full_disk
from shiplap.store.snapshots import EMPTY
from shiplap.trees.change import ChangeTree
from shiplap.trees.copy import Copier, CopyRule
from shiplap.trees.root import resolve
from shiplap.trees.select import not_found
from shiplap.trees.tree import Directory, Tree

TAIL_LINES = 20
TAIL_BYTES = 16 << 10
SECRET_LIMIT = 500 << 10
"""Largest secret, in bytes, as in BuildKit."""

OpenTree = Callable[[int], Tree]


def run_step(operation: Run, node: Node, inputs: Sequence[str], open_tree: OpenTree, bench: Workbench) -> str:
    """Run the process; the new snapshot. Raises StepError if it ended with a status other than 0."""
    parent = inputs[operation.rootfs] if operation.rootfs != NO_INPUT else EMPTY
    snapshots = bench.store.snapshots
    with ExitStack() as held, snapshots.draft(parent) as draft:
        if parent != EMPTY:
            snapshots.directories(parent)  # unpacks what never was on disk
        base = held.enter_context(snapshots.tree(parent)) if parent != EMPTY else None
        accounts = Accounts(base)
        command = quote(" ".join(operation.args))
        try:
            identity = accounts.identity(operation.user)
        except ImageError as error:
            error.message = f"process {command} did not complete successfully: {error.message}"
            raise
        secrets = _Secrets(bench)
        mounts = _Mounts(operation, inputs, open_tree, bench, secrets, held)
        root = held.enter_context(step_root(bench, parent, draft, base))
        spec = ProcessSpec(
            args=operation.args,
            env=_environment(operation, bench, secrets, accounts.home(identity.uid)),
            cwd=operation.cwd,
            rootfs=root.rootfs,
            identity=identity,
            mounts=mounts.all(),
            hostname=operation.hostname,
            network=operation.network,
            insecure=operation.security == "insecure",
            extra_hosts=operation.extra_hosts,
            shm_size=operation.shm_size,
            ulimits=dict(_ulimit(text) for text in operation.ulimits),
            owners=root.owners,
            emulator=emulator_for(operation.platform, bench),
        )
        if operation.network == "default":
            _tell_network(bench)
        tail = _Tail(node, bench)
        status = bench.runtime().run(spec, tail.take, bench.cancel)
        if status.code != 0:
            reason = " (killed: out of memory)" if status.out_of_memory else ""
            raise StepError(
                f"process {command} did not complete successfully: exit code: {status.code}{reason}",
                status=status.code,
                output=tail.lines(),
                step=node.about.name,
                where=node.about.place,
                hint=full_disk(bench.store.root) or _not_a_program(operation, tail.lines()),
            )
        root.keep(status)
        return draft.commit(about=node.about.name).id


def _not_a_program(operation: Run, said: tuple[str, ...]) -> str | None:
    """What may help where the kernel did not know what to do with the program."""
    if not said or not said[-1].startswith("exec ") or not said[-1].endswith(": exec format error"):
        return None
    return f"a program for {operation.platform} (see --platform and FROM --platform=), or a script that begins with #!"


def _tell_network(bench: Workbench) -> None:
    """Say so where steps share the machine's network for want of another."""
    program, reason = bench.runtime().outlet()
    if not program:
        bench.notice(f"RUN shares this machine's network and reaches what listens on its loopback ({reason})")


def _environment(operation: Run, bench: Workbench, secrets: _Secrets, home: str) -> tuple[str, ...]:
    names = {item.partition("=")[0] for item in operation.env}
    env = list(operation.env)
    env.extend(item for item in bench.proxies if item.partition("=")[0] not in names)
    if "HOME" not in names:
        env.append(f"HOME={home}")
    for mount in operation.mounts:
        if mount.kind == "secret" and mount.env:
            value = secrets.get(mount) or b""
            env = [item for item in env if not item.startswith(mount.env + "=")]
            env.append(f"{mount.env}={os.fsdecode(value)}")
    return tuple(env)


def _ulimit(text: str) -> tuple[str, tuple[int, int]]:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    return name, (int(soft), int(hard or soft))


class _Secrets:
    """Secret values of one step, each read once."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench

    def get(self, mount: Mount) -> bytes | None:
        """The value; None if it was not given and need not be."""
        provider = self._bench.secrets.get(mount.id)
        if provider is None:
            if mount.required:
                raise StepError(
                    f"secret {mount.id}: not found",
                    status=1,
                    code="secret-not-found",
                    hint=f"give it with --secret id={mount.id},src=FILE or --secret id={mount.id},env=NAME",
                )
            return None
        value = provider()
        if len(value) > SECRET_LIMIT:
            raise StepError(f"secret {mount.id} is over {SECRET_LIMIT} bytes", status=1, code="secret-too-large")
        return value


class _Mounts:
    """Turns the mounts of a RUN into mounts of the sandbox; what they need is held until the step has ended."""

    def __init__(
        self,
        operation: Run,
        inputs: Sequence[str],
        open_tree: OpenTree,
        bench: Workbench,
        secrets: _Secrets,
        held: ExitStack,
    ) -> None:
        self._operation = operation
        self._inputs = inputs
        self._open_tree = open_tree
        self._bench = bench
        self._secrets = secrets
        self._held = held
        self._chosen: dict[tuple[str, str], Path] = {}
        """Directories of cache mounts, by what they are shared as: two mounts of a step that are alike are one."""

    def all(self) -> tuple[StepMount, ...]:
        self._lock_caches()
        found: list[StepMount] = []
        for mount in self._operation.mounts:
            made = getattr(self, f"_{mount.kind}")(mount)
            if made is not None:
                found.append(made)
        if self._operation.files:
            directory = self._held.enter_context(self._bench.store.scratch("heredoc"))
            directory = directory / "pipes"  # one mount for all, as in BuildKit, that every user can look into
            directory.mkdir()
            directory.chmod(0o755)
            for inline in self._operation.files:
                file = directory / inline.name
                file.write_bytes(inline.data)
                file.chmod(inline.mode)
            found.append(StepMount("bind", "/dev/pipes", source=str(directory)))
        return tuple(found)

    def _bind(self, mount: Mount) -> StepMount:
        # A stage without layers is an empty directory.
        tree = self._held.enter_context(self._open_tree(mount.input) if mount.input != NO_INPUT else Tree(()))
        if tree.live:
            tree = self._copied(tree, mount.source)
        found = resolve(tree, mount.source)
        if found.entry is None and found.name:
            raise not_found(mount.source)
        if found.entry is not None and found.name and not found.entry.is_dir:
            if mount.readonly:
                return StepMount("bind", mount.target, source=found.parent.host_path(found.entry))
            parts = tuple(found.parent.host_parts())
            if not can_overlay(self._bench, len(parts)):
                copy = self._spare(found.parent, found.name)
                return StepMount("bind", mount.target, source=copy, subpath=found.name, readonly=False)
            return StepMount("overlay", mount.target, lowers=parts, subpath=found.name, readonly=False)
        parts = tuple(found.directory().host_parts()) if tree.layers else ()
        if mount.readonly and len(parts) == 1:
            return StepMount("bind", mount.target, source=parts[0])
        if parts and not can_overlay(self._bench, len(parts)):
            copy = self._spare(found.directory())
            return StepMount("bind", mount.target, source=copy, readonly=mount.readonly)
        return StepMount("overlay", mount.target, lowers=parts, readonly=mount.readonly)

    def _spare(self, directory: Directory, only: str = "") -> str:
        from shiplap.ops.copied import spare_copy

        return self._held.enter_context(spare_copy(self._bench, directory, only))

    def _copied(self, tree: Tree, source: str) -> Tree:
        """The part of a context that a step may see, copied: through the ignore file, and as root's, as COPY has it."""
        directory = self._held.enter_context(self._bench.store.scratch("context")) / "diff"
        directory.mkdir()
        found = resolve(tree, source)
        if found.entry is None and found.name:
            raise not_found(source)
        with ChangeTree(str(directory), None) as target:
            copier = Copier(tree, target, CopyRule(owner=(0, 0), check=self._bench.check), time.time_ns())
            copier.copy(source, (found.path and f"/{found.path}") or "/")
        return self._held.enter_context(Tree((str(directory),)))

    def _lock_caches(self) -> None:
        """Lock the cache mounts that one step at a time may have: in one order for all, lest two wait for each other."""
        wanted = {
            self._cache_name(mount)
            for mount in self._operation.mounts
            if (mount.kind, mount.sharing) == ("cache", "locked")
        }
        for name in sorted(wanted):
            directory = self._bench.store.cache_mount(name)
            self._held.enter_context(locked(f"{directory}.lock", check=self._bench.check))

    def _cache(self, mount: Mount) -> StepMount:
        directory = self._bench.store.cache_mount(self._cache_name(mount))
        chosen = (directory.name, mount.sharing)
        if chosen not in self._chosen:
            self._chosen[chosen] = self._free(directory, mount.sharing)
        directory = self._chosen[chosen]
        with self._bench.store.once(f"mount {directory.name}", self._bench.check):
            if not directory.exists():
                self._make_cache(mount, directory.name)
        path = str(directory / "diff")
        with Tree((path,)) as tree:
            found = resolve(tree, mount.source) if mount.input == NO_INPUT else None
            if found is not None and found.name and (found.entry is None or not found.entry.is_dir):
                raise TreeError(f"cache mount has no directory {mount.source}", code="not-found")
            subpath = found.path if found is not None else ""
        return StepMount("bind", mount.target, source=path, subpath=subpath, readonly=mount.readonly)

    def _free(self, directory: Path, sharing: str) -> Path:
        """``directory``, or one beside it if it is taken: ``private`` wants one for itself, the others share with theirs."""
        number, here = 0, directory
        while not self._held.enter_context(
            locked(
                f"{here}.use.lock",
                shared=sharing != "private",
                wait=sharing == "locked",
                check=self._bench.check,
            )
        ):
            number += 1
            here = directory.with_name(f"{directory.name}.{number}")
        return here

    def _cache_name(self, mount: Mount) -> str:
        """What the contents are shared by: the id, and what a new one begins with, as in BuildKit."""
        if _asks_for_owner(mount):
            return f"{mount.id}\0{mount.uid}:{mount.gid}:{mount.mode}"
        if mount.input != NO_INPUT:
            return f"{mount.id}\0{self._inputs[mount.input]}\0{mount.source}"
        return mount.id

    def _make_cache(self, mount: Mount, name: str) -> None:
        with self._bench.store.scratch("mount") as scratch:
            directory = scratch / "made"
            (directory / "diff").mkdir(parents=True)
            seeded = mount.input != NO_INPUT and not _asks_for_owner(mount)
            source = self._open_tree(mount.input) if seeded else None
            with source or nullcontext(), ChangeTree(str(directory / "diff"), None) as target:
                uid, gid, mode = mount.uid, mount.gid, 0o755 if mount.mode is None else mount.mode
                if source is not None:
                    Copier(source, target, CopyRule(check=self._bench.check), time.time_ns()).copy(mount.source, "/")
                    top = resolve(source, mount.source).entry
                    uid, gid, mode = (top.uid, top.gid, top.permissions) if top is not None else (0, 0, 0o755)
                target.root().set_entry(uid, gid, mode)
            directory.rename(self._bench.store.root / "mounts" / name)

    def _tmpfs(self, mount: Mount) -> StepMount:
        return StepMount("tmpfs", mount.target, size=mount.size, readonly=False)

    def _secret(self, mount: Mount) -> StepMount | None:
        value = self._secrets.get(mount)
        if value is None or not mount.as_file:
            return None
        mode = 0o400 if mount.mode is None else mount.mode
        return StepMount("secret", mount.target, data=value, mode=mode, uid=mount.uid, gid=mount.gid)

    def _ssh(self, mount: Mount) -> StepMount | None:
        socket = self._bench.ssh.get(mount.id)
        if socket is None:
            if mount.required:
                raise StepError(
                    f'no SSH key "{mount.id}" forwarded from the client',
                    status=1,
                    code="ssh-not-forwarded",
                    hint="give it with --ssh",
                )
            return None
        from shiplap.ops.agent import relay

        directory = self._held.enter_context(self._bench.store.scratch("agent"))
        directory.chmod(0o711)
        mode = 0o600 if mount.mode is None else mount.mode
        path = self._held.enter_context(relay(directory, socket, mode, (mount.uid, mount.gid)))
        return StepMount("bind", mount.target, source=str(path), readonly=False)


def _asks_for_owner(mount: Mount) -> bool:
    """Whether a cache mount is a new directory of its own owner or mode; BuildKit leaves them out where it has a source."""
    return mount.source in ("", "/") and (mount.mode is not None or bool(mount.uid or mount.gid))


class _Tail:
    """Passes a step's output on and keeps its last lines."""

    def __init__(self, node: Node, bench: Workbench) -> None:
        self._node = node
        self._sink = bench.sink
        self._kept: deque[bytes] = deque()
        self._size = 0

    def take(self, stream: int, data: bytes) -> None:
        self._sink(StepOutput(self._node.digest, stream, data, time.time()))
        self._kept.append(data[-TAIL_BYTES:])
        self._size += len(self._kept[-1])
        while self._size - len(self._kept[0]) > TAIL_BYTES:
            self._size -= len(self._kept.popleft())

    def lines(self) -> tuple[str, ...]:
        text = b"".join(self._kept).decode("utf-8", "replace")
        return tuple(text.splitlines()[-TAIL_LINES:])
