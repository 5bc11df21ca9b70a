"""Several blobs of a source at once, for places that take them in any order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from shiplap.errors import Interrupted
from shiplap.images.place import Source
from shiplap.oci.manifest import Descriptor
from shiplap.registry.side_by_side import side_by_side

_PARALLEL = 4


def fetch_blobs(
    source: Source, blobs: Iterable[Descriptor], save: Callable[[Descriptor, Iterator[bytes]], None], step: str
) -> None:
    """Give each blob's chunks to ``save``, which may be called from several threads at once, the largest first.

    The first failure stops the others and is raised; ``save`` then has to forget what it wrote.
    """
    queue = sorted(blobs, key=lambda blob: -blob.size)
    if not queue:
        return
    stop = threading.Event()

    def fetch(blob: Descriptor) -> None:
        if not stop.is_set():
            save(blob, _until(stop, source.chunks(blob, step)))

    failures = side_by_side(
        fetch, queue, parallel=min(_PARALLEL, len(queue)), name="shiplap-copy", stop=stop, interrupt=source.interrupt
    )
    # Those that were only stopped say nothing about why.
    for failure in sorted(failures, key=lambda failure: isinstance(failure, Interrupted)):
        raise failure


def _until(stop: threading.Event, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if stop.is_set():
            raise Interrupted("stopped because another blob failed")
        yield chunk
