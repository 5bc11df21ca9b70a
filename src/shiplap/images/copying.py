"""From place to place: what an image is made of is surveyed, then its blobs go over as streams, its bytes unchanged."""

from __future__ import annotations

import msgspec

from shiplap.errors import UsageError
from shiplap.events.facts import Sink, Warned
from shiplap.images.place import Source, Target
from shiplap.images.surveying import survey, survey_referrers
from shiplap.oci.manifest import Descriptor
from shiplap.oci.platform import Platform, native_platform
from shiplap.ops.workbench import telling


def copy(
    source: Source,
    target: Target,
    sink: Sink,
    platform: Platform | None = None,
    everything: bool = False,
    referrers: bool = False,
) -> Descriptor:
    """Put the image of ``source`` at ``target``; the descriptor of what is there now.

    With ``platform`` only its manifest, else all platforms; a target that is meant for one platform's image takes this
    machine's unless ``everything`` is asked for. ``referrers``: and what refers to what goes there. Raises UsageError
    (no-referrers).
    """
    if platform is None and target.one_platform and not everything:
        platform = native_platform()
    for place in (source, target):
        if referrers and not place.attaches:
            raise UsageError(
                f"{place.title} cannot hold what refers to an image",
                code="no-referrers",
                hint="registries can (docker://NAME), and layouts (oci:DIRECTORY, oci-archive:FILE)",
            )
    step = f"copy {source.title} {target.title}"
    with telling(sink, step, f"copying {source.title} to {target.title}"):
        transfer = survey(source, platform, partial=target.partial)
        if referrers:
            transfer = msgspec.structs.replace(transfer, attached=survey_referrers(source, transfer, sink))
            if not transfer.attached:
                sink(Warned(f"nothing refers to {source.title} there: the image is copied alone"))
        target.write(transfer, source, step)
    return transfer.root
