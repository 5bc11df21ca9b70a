"""Whether a build gives the same image twice, and if not, which step makes the difference."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

import msgspec

from shiplap.api.building import build
from shiplap.api.differing import Difference, diff
from shiplap.api.request import Output, Request
from shiplap.events.facts import Sink
from shiplap.settings import load


class Verified(msgspec.Struct, frozen=True):
    """What came of it. ``digests``: of the first and the second result (manifest or index)."""

    digests: tuple[str, str]
    differences: tuple[Difference, ...] = ()
    """One for each platform that differs; none, if it is only what is told of the images (attestations)."""

    @property
    def same(self) -> bool:
        return self.digests[0] == self.digests[1]


def verify(
    request: Request,
    *,
    events: Sink | None = None,
    cancel: threading.Event | None = None,
    environ: Mapping[str, str] | None = None,
    most_contents: int = 20,
) -> Verified:
    """Build ``request`` twice, reproducibly and without the cache, at different times and with another number of threads.

    Nothing is pushed or written; both results stay in the store, by their digests, until the next prune. Raises ShiplapError.
    """
    environ = os.environ if environ is None else environ
    wanted = msgspec.structs.replace(
        request,
        reproducible=True,
        no_cache=True,
        tags=(),
        push=False,
        load=False,
        outputs=(Output("image"),),
        describe="",
    )
    first = build(wanted, events=events, cancel=cancel, environ=environ)
    _until_the_next_second(cancel)
    second = build(
        msgspec.structs.replace(wanted, pull=False, parallel=1 if request.parallel != 1 else 4),
        events=events,
        cancel=cancel,
        environ=environ,
    )
    digests = (first.digest, second.digest)
    if first.digest == second.digest:
        return Verified(digests)
    settings = load(environ, root=str(request.root) if request.root is not None else None)
    pairs = zip(first.images, second.images, strict=True)
    differing = dict.fromkeys(a.platform for a, b in pairs if a.digest != b.digest)
    # By the digests that the store knows: of several images, or where something is attested, those of the indexes.
    differences = [diff(*digests, settings, platform=platform, most_contents=most_contents) for platform in differing]
    return Verified(digests, tuple(differences))


def _until_the_next_second(cancel: threading.Event | None) -> None:
    """Wait until clocks that only know seconds tell another time."""
    rest = 1.01 - time.time() % 1
    if cancel is not None:
        cancel.wait(rest)
    else:
        time.sleep(rest)
