"""Images from place to place: registries, layouts, archives, engines and the store."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from shiplap.api.looking import wanted_platform
from shiplap.events.facts import Sink
from shiplap.images.copying import copy as copy_image
from shiplap.images.files import Boxed, BoxSource, merged
from shiplap.images.location import DOCKER_ARCHIVE, ENGINE, LAYOUT, OCI_ARCHIVE, STORE, Location, parse_location
from shiplap.images.session import Session
from shiplap.images.stored import StoreSource, StoreTarget
from shiplap.images.surveying import survey
from shiplap.images.written import Shipment, archive_bytes, to_file, write_pieces
from shiplap.oci.digest import Digest
from shiplap.oci.manifest import Descriptor
from shiplap.oci.platform import parse_platform
from shiplap.settings import Settings
from shiplap.store.store import Store


def quietly(fact: object) -> None:
    """A sink that shows nothing."""


def copy(
    source: str,
    target: str,
    settings: Settings,
    sink: Sink = quietly,
    *,
    platform: str = "",
    everything: bool = False,
    referrers: bool = False,
) -> Descriptor:
    """Copy the image at ``source`` to ``target`` (locations), its bytes unchanged; what is there now.

    All platforms, or ``platform`` alone; into a docker archive or an engine, this machine's platform unless
    ``everything``. ``referrers``: and what refers to it. Raises UsageError (bad-location, no-referrers), and what source and
    target raise.
    """
    origin, destination = parse_location(source), parse_location(target)
    wanted = parse_platform(platform) if platform else None
    if wanted is None and settings.default_platform and destination.transport in (DOCKER_ARCHIVE, ENGINE):
        wanted = None if everything else parse_platform(settings.default_platform)
    with Session(settings, sink) as session:
        if destination.transport == STORE:
            session.store  # noqa: B018 (so that what is written plain for a while lies on its disk)
        places = session.source(origin), session.target(destination, wanted)
        return copy_image(*places, sink, wanted, everything=everything, referrers=referrers)


def save(
    texts: Sequence[str],
    output: str,
    settings: Settings,
    kind: str = "docker",
    sink: Sink = quietly,
    platform: str = "",
) -> None:
    """Write images to one archive for docker or (``kind`` oci) an OCI archive; several names of one are one image in it.

    Every platform that the store has, or ``platform`` alone. ``output`` ``-``: standard output.
    """
    with Session(settings, sink) as session:
        shipments: dict[Digest, Shipment] = {}
        for text in texts:
            source = session.source(parse_location(text))
            transfer = survey(source, parse_platform(platform) if platform else None, partial=True)
            known = shipments.get(transfer.root.digest)
            if known is not None:
                names = tuple(dict.fromkeys((*known.transfer.names, *transfer.names)))
                transfer = msgspec.structs.replace(transfer, names=names)
            shipments[transfer.root.digest] = Shipment(transfer, source)
        pieces = archive_bytes(list(shipments.values()), kind == "docker", wanted_platform(platform, settings))
        to_file(output, lambda out: write_pieces(pieces, out))


def load(source: str, settings: Settings, sink: Sink = quietly) -> list[str]:
    """Bring in every image of an archive (``-``: standard input) or an OCI layout directory; the names that came in.

    Docker archives and OCI archives, plain or compressed, told apart by what is in them.
    """
    with Session(settings, sink) as session:
        store = session.store  # first: what must be written plain for a while lies on its disk
        kind = LAYOUT if source != "-" and os.path.isdir(source) else OCI_ARCHIVE
        return _load(session.boxed(Location(kind, source)), store, sink)


def load_into_engine(
    store: Store, digest: Digest, names: Sequence[str], settings: Settings, sink: Sink = quietly, platform: str = ""
) -> Descriptor:
    """Send the image ``digest`` of the store to the running Docker or Podman under ``names`` (normalised references).

    Of an index, ``platform`` (empty: this machine's). What went there. Raises ExportError: no-engine, engine-refused.
    """
    from shiplap.images.engine import EngineTarget

    wanted = wanted_platform(platform, settings)
    source = StoreSource(store, digest)
    source.names = tuple(names)
    return copy_image(source, EngineTarget(settings.engines(), "", wanted), sink, wanted)


def _load(boxed: Boxed, store: Store, sink: Sink) -> list[str]:
    found: dict[Digest, list[int]] = {}
    for position, image in enumerate(boxed.images):
        found.setdefault(image.descriptor.digest, []).append(position)
    names: list[str] = []
    for positions in found.values():
        image = merged([boxed.images[position] for position in positions])
        copy_image(BoxSource(boxed, image), StoreTarget(store, ""), sink)
        names += image.names or (image.descriptor.digest,)
    return names
