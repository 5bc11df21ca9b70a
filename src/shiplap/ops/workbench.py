"""What the operations of one build share: the store, the sandbox, the contexts, the secrets, where facts go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from shiplap.errors import Interrupted
from shiplap.events.facts import Sink, StepFinished, StepStarted, Warned
from shiplap.graph.node import Node
from shiplap.graph.operations import ImageSource
from shiplap.store.store import Store
from shiplap.trees.tree import Witness

if TYPE_CHECKING:
    from shiplap.sandbox.spec import Runtime
    from shiplap.settings import Network


class Images(Protocol):
    """Brings images into the store."""

    def fetch(self, operation: ImageSource, step: str) -> None:
        """Have every blob of the image's manifest in the store, pulling those that are missing."""


class Fetched(msgspec.Struct, frozen=True):
    """What a remote source turned out to be. ``pin``: the digest of a file, or ``sha1:COMMIT`` (``sha256:``, of 64 digits)."""

    snapshot: str
    pin: str


def _direct() -> Network:
    from shiplap.settings import Network

    return Network()


class LocalContext(msgspec.Struct, frozen=True):
    """A directory of this machine that steps may copy from."""

    path: Path
    witness: Witness | None = None


class Workbench(msgspec.Struct):
    """Made once a build; used from several threads."""

    store: Store
    runtime: Callable[[], Runtime]
    """Gives the runtime; called when the first RUN needs it."""
    images: Images
    sink: Sink
    contexts: Mapping[str, LocalContext] = {}
    secrets: Mapping[str, Callable[[], bytes]] = {}
    """Secret values by id, read when a step first asks."""
    ssh: Mapping[str, str] = {}
    """Paths of agent sockets by id."""
    proxies: tuple[str, ...] = ()
    """``NAME=value`` for each RUN; not in keys, not in the image."""
    web: Callable[[], Network] = _direct
    """How URLs are reached: proxies, certificates."""
    programs: str = ""
    """Directories in which programs (git, ssh) are looked for, in the form of PATH."""
    fetched: dict[str, Fetched] = msgspec.field(default_factory=dict)
    """Remote sources by node digest: within a build each is asked for once, so it is the same throughout."""
    cancel: threading.Event = msgspec.field(default_factory=threading.Event)
    epoch: int | None = None
    single_id: bool = False
    """True where only one user id is mapped, so that owners are kept on record."""
    copies: bool = False
    """True if it was asked for that each step works on a copy of its root."""

    said: dict[str, object] = msgspec.field(default_factory=dict)
    """Notices that were given."""

    def notice(self, message: str) -> None:
        """Tell the user ``message``, once a build."""
        fresh = object()
        if self.said.setdefault(message, fresh) is fresh:
            self.sink(Warned(message))

    def check(self) -> None:
        """Raise Interrupted once the build was cancelled."""
        if self.cancel.is_set():
            raise Interrupted("build canceled")

    @contextmanager
    def telling(self, node: Node) -> Iterator[None]:
        """Tell that the step of ``node`` starts, ends, or fails."""
        place = node.about.place
        with telling(
            self.sink,
            node.digest,
            node.about.name,
            place.file or "" if place is not None else "",
            place.line or 0 if place is not None else 0,
            node.about.stage,
        ):
            yield


@contextmanager
def telling(sink: Sink, step: str, name: str, file: str = "", line: int = 0, stage: str = "") -> Iterator[None]:
    """Tell that a step starts, ends, or fails."""
    began = time.time()
    sink(StepStarted(step, name, began, file=file, line=line, stage=stage))
    try:
        yield
    except BaseException as error:
        ended = time.time()
        canceled = isinstance(error, Interrupted | KeyboardInterrupt)
        reason = str(error) or type(error).__name__
        sink(StepFinished(step, ended, ended - began, error=reason, canceled=canceled))
        raise
    ended = time.time()
    sink(StepFinished(step, ended, ended - began))
