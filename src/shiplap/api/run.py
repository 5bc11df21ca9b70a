"""Running a built image in the sandbox of its build: for a look, a test, a demonstration. Nothing it writes is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from shiplap.api.isolation import runtime_for
from shiplap.errors import ImageError, UsageError
from shiplap.events.facts import Sink
from shiplap.graph.operations import ImageSource
from shiplap.oci.config import DEFAULT_PATH
from shiplap.oci.digest import Digest
from shiplap.oci.platform import fitting_platforms, native_platform, parse_platform
from shiplap.ops.accounts import Accounts
from shiplap.ops.foreign import emulator_for
from shiplap.ops.image import make_image
from shiplap.ops.rootfs import step_root
from shiplap.ops.workbench import Workbench
from shiplap.sandbox.spec import ProcessSpec, StepMount
from shiplap.settings import Settings
from shiplap.store.images import Resolved, no_such_platform
from shiplap.store.results import built_key
from shiplap.store.snapshots import EMPTY
from shiplap.store.store import Store
from shiplap.trees.tree import Tree


def run_image(
    text: str,
    command: Sequence[str],
    settings: Settings,
    output: Callable[[int, bytes], None],
    *,
    env: Sequence[str] = (),
    workdir: str = "",
    user: str = "",
    entrypoint: str | None = None,
    network: str = "host",
    volumes: Sequence[str] = (),
    isolation: str = "auto",
    platform: str = "",
    cancel: threading.Event | None = None,
    sink: Sink = lambda fact: None,
) -> int:
    """Run ``command`` (default: the image's own) in the image ``text`` of the store; its exit status.

    ``platform``: which of an index; without, this machine's if there is one, else the first.
    """
    with Store(Path(settings.root)) as store, store.in_use():
        image = store.images.find(text)
        resolved = _resolve(store, image.digest, platform)
        config = resolved.config.config
        runtime = runtime_for(isolation, settings, store.results)
        bench = Workbench(store=store, runtime=runtime, images=_AtHome(), sink=sink, cancel=cancel or threading.Event())
        bench.programs = settings.helper_path
        built = store.results.get(built_key(resolved.digest))
        if built is not None and (built.snapshot == EMPTY or store.snapshots.whole(built.snapshot)):
            snapshot = built.snapshot
        else:
            source = ImageSource(image.name, resolved.digest, str(resolved.config.platform))
            snapshot = make_image(source, "run", bench)
        args = (
            *((entrypoint,) if entrypoint else config.entrypoint or ()),
            *(command or ((config.cmd or ()) if not entrypoint else ())),
        )
        if not args:
            raise UsageError(f"{text} names no command", code="no-command", hint=f"shiplap run {text} COMMAND")
        directories = tuple(store.snapshots.directories(snapshot))
        with ExitStack() as held:
            draft = held.enter_context(store.snapshots.draft(snapshot))
            tree = held.enter_context(Tree(directories)) if directories else None
            accounts = Accounts(tree)
            root = held.enter_context(step_root(bench, snapshot, draft, tree))
            identity = accounts.identity(user or config.user)
            spec = ProcessSpec(
                args=args,
                env=_environment(config.env or (), env, accounts.home(identity.uid)),
                cwd=workdir or config.working_dir or "/",
                rootfs=root.rootfs,
                owners=root.owners,
                identity=identity,
                mounts=tuple(_volume(volume) for volume in volumes),
                hostname=resolved.digest.partition(":")[2][:12],
                network=network,
                emulator=emulator_for(str(resolved.config.platform), bench),
            )
            return runtime().run(spec, output, bench.cancel).code


def _resolve(store: Store, digest: Digest, platform: str) -> Resolved:
    wanted = parse_platform(platform, native_platform()) if platform else native_platform()
    try:
        resolved = store.images.resolve(digest, wanted)
    except ImageError as error:
        if platform or error.code != "no-such-platform":
            raise
        return store.images.resolve(digest, None)
    made = resolved.config.platform
    if platform and made not in fitting_platforms(wanted):
        raise no_such_platform(digest, wanted, [str(made)])
    return resolved


def _environment(own: Sequence[str], given: Sequence[str], home: str) -> tuple[str, ...]:
    merged: dict[str, str] = {"PATH": DEFAULT_PATH}
    for item in (*own, *given):
        name, equals, value = item.partition("=")
        if equals:
            merged[name] = value
    merged.setdefault("HOME", home)
    return tuple(f"{name}={value}" for name, value in merged.items())


def _volume(text: str) -> StepMount:
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not source.startswith("/") or not target.startswith("/"):
        raise UsageError(f"invalid volume {text!r}", code="invalid-volume", hint="-v /host/path:/container/path[:ro]")
    return StepMount("bind", target, source=source, readonly="ro" in options.split(","))


class _AtHome:
    def fetch(self, operation: ImageSource, step: str) -> None:
        """The image is in the store already: that is where its name was found."""
