"""What the store takes, what may go, and whether it is sound: ``shiplap du``, ``prune`` and ``fsck``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from shiplap.errors import Interrupted, UsageError
from shiplap.settings import Settings
from shiplap.store.check import Finding, Report, check
from shiplap.store.prune import Removed, Wanted
from shiplap.store.prune import prune as prune_store
from shiplap.store.records import INTERNAL, Inventory, Record, Sizes, parse_filter
from shiplap.store.store import Store

__all__ = ["Finding", "Record", "Removed", "Report", "Usage", "Wanted", "fsck", "prune", "usage", "wanted"]

_KINDS = (
    ("regular", "snapshots"),
    ("source.git.checkout", "git sources"),
    ("source.local", "remembered digests"),
    ("exec.cachemount", "cache mounts"),
    ("image", "images without a name"),
)


class Line(msgspec.Struct, frozen=True):
    """A kind of thing, how many there are, and their bytes on disk; ``reclaimable``: how many of these prune could free."""

    kind: str
    count: int
    bytes: int
    reclaimable: int


class Usage(msgspec.Struct, frozen=True):
    """What the store holds: by kind, and record by record (those the filters let through). ``total``: bytes of it all."""

    lines: tuple[Line, ...]
    records: tuple[Record, ...]
    total: int


def usage(settings: Settings, filters: Sequence[str] = ()) -> Usage:
    """What the store holds. ``filters`` as in ``docker buildx du``; see ``store.records.parse_filter`` and ``until=24h``.

    The line ``unfinished`` is there while steps run, or after a build was killed: then the next command that builds or prunes
    removes it.
    """
    asked = wanted(filters)
    with Store(Path(settings.root)) as store:
        sizes = Sizes(store)
        with store.lease.deciding() as live:
            inventory = Inventory(store, sizes, live)
            alive = store.lease.living()
        named = sum(inventory.blobs.get(digest, 0) for digest in inventory.named)
        count = sum(1 for image in store.images.all() if not image.name.startswith("sha256:"))
    lines = [Line("images", count, named, 0)]
    for kind, title in _KINDS:
        found = [record for record in inventory.records if record.kind == kind]
        lines.append(_line(title, found, inventory))
    loose = [record for record in inventory.records if record.kind == INTERNAL]
    lines.append(
        Line("other blobs", len(loose), sum(r.size for r in loose), sum(r.size for r in loose if not r.in_use))
    )
    unfinished = sum(sizes.unfinished.values())
    if sizes.unfinished:
        left = sum(size for name, size in sizes.unfinished.items() if name.partition("-")[0] not in alive)
        lines.append(Line("unfinished", len(sizes.unfinished), unfinished, left))
    records = [record for record in inventory.records if asked.matches(record)]
    return Usage(tuple(lines), tuple(sorted(records, key=lambda record: -record.size)), inventory.total + unfinished)


def _line(title: str, records: list[Record], inventory: Inventory) -> Line:
    def size(found: list[Record]) -> int:
        blobs = {digest for record in found for digest in record.blobs} - inventory.named
        return sum(record.files for record in found) + sum(inventory.blobs.get(digest, 0) for digest in blobs)

    return Line(title, len(records), size(records), size([record for record in records if not record.in_use]))


def wanted(
    filters: Sequence[str] = (), *, everything: bool = False, reserved: int = 0, most: int = 0, free: int = 0
) -> Wanted:
    """What to prune, from the texts of ``--filter``; sizes in bytes. Raises UsageError(code="invalid-filter")."""
    older = 0.0
    found = []
    for text in (part for given in filters for part in given.split(",")):
        field, _, value = text.partition("=")
        if field in ("until", "unused-for"):
            older = max(older, seconds(value, text))
        else:
            found.append(parse_filter(text))
    return Wanted(everything, older, tuple(found), reserved, most, free)


def seconds(value: str, text: str) -> float:
    """A duration as Go writes it: ``24h``, ``1h30m``, ``90s``, ``100ms``; days (``7d``) too."""
    import re

    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise UsageError(f"cannot read the filter {text[:200]!r}", code="invalid-filter", hint="--filter until=24h")
    return sum(float(number) * units[unit] for number, unit in parts)


def prune(settings: Settings, what: Wanted) -> Removed:
    """Remove what nobody uses: see ``Wanted``. Builds that run go on, and keep what they use."""
    with Store(Path(settings.root), freeing=True) as store:
        return prune_store(store, what)


def fsck(settings: Settings, *, repair: bool = False, cancel: threading.Event | None = None) -> Report:
    """Read all that the store holds and say what is wrong; with ``repair`` drop what is broken, to be made again."""

    def stop() -> None:
        if cancel is not None and cancel.is_set():
            raise Interrupted("fsck canceled")

    with Store(Path(settings.root)) as store:
        report = check(store, repair=repair, cancel=stop)
    if not repair or not any(finding.code == "index-damaged" for finding in report.findings):
        return report
    # With another index there is more to look at, and to clear up.
    with Store(Path(settings.root)) as store:
        again = check(store, repair=True, cancel=stop)
    earlier = [finding for finding in report.findings if finding not in again.findings]
    return msgspec.structs.replace(again, findings=(*earlier, *again.findings))
