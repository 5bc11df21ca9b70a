"""What refers to a manifest: signatures, attestations, bills of materials (distribution specification 1.1, "Referrers").

A registry with the referrers API keeps the list itself and says so with ``OCI-Subject``. For one without it the list is an
index under the tag ``sha256-<hex>``, which whoever pushes keeps up ("Unavailable Referrers API").
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from shiplap.errors import ImageError, Place, RegistryError
from shiplap.oci import media_types
from shiplap.oci.digest import Digest, digest_of, parse_digest
from shiplap.oci.manifest import MANIFEST_LIMIT, Descriptor, Index, encode_json, parse_manifest
from shiplap.oci.referrer import referrers_tag
from shiplap.registry.authority import Site
from shiplap.registry.connection import Answer, join_url, split_url
from shiplap.registry.transport import Call, Transport

MOST_PAGES = 100
"""How many pages of a list are read."""

TRIES = 8
"""How often an entry that another client has overwritten is put into a list under a tag again."""

T = TypeVar("T")


class Referrers:
    """The lists of one client. Thread-safe."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()

    def read(self, site: Site, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What refers to ``subject`` at ``site``, by the API or by the tag; of one type unless ``artifact_type`` is empty."""
        found = self._by_api(site, subject, artifact_type)
        if found is None:
            listed = self._by_tag(site, subject)
            found = _entries(listed) if listed is not None else ()
        # A registry may filter, and says so; to do it again costs nothing.
        return tuple(entry for entry in _once(found) if artifact_type in ("", entry.artifact_type))

    def add(self, site: Site, subject: Digest, entry: Descriptor) -> None:
        """Put ``entry`` into the list under the tag of ``subject``, beside what stands there.

        Nothing but the list itself can be locked, so it is read again afterwards, until the entry is seen to be in it.
        Raises RegistryError(code="referrers") if the tag holds something else, or others overwrite it again and again.
        """
        with self._lock:
            for _ in range(TRIES):
                listed = self._by_tag(site, subject)
                if listed is not None and any(each.digest == entry.digest for each in _entries(listed)):
                    return
                self._write(site, subject, _with_entry(listed, entry))
        raise _broken(subject, "is overwritten by others again and again", "push it again when the others are done")

    def _by_api(self, site: Site, subject: Digest, artifact_type: str) -> tuple[Descriptor, ...] | None:
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        target = f"/v2/{site.path}/referrers/{parse_digest(subject)}{query}"
        found: list[Descriptor] = []
        for page in range(MOST_PAGES):
            raw, following = self._get(site, target, frozenset({200, 404, 405, 501}), _list_page)
            if raw is None:
                if page:
                    raise _broken(subject, "ends in the middle", "try again")
                return None
            found += _entries(raw)
            if not following:
                return tuple(found)
            target = join_url(join_url(str(site.origin), target), following)
            if split_url(target)[0] != site.origin:
                raise RegistryError(f"{site.host} continues its list of referrers at another place", code="bad-answer")
        raise _broken(subject, f"has more than {MOST_PAGES} pages", "ask the registry's operator")

    def _by_tag(self, site: Site, subject: Digest) -> bytes | None:
        def consume(answer: Answer) -> bytes | None:
            return _limited(answer) if answer.status == 200 else None

        target = f"/v2/{site.path}/manifests/{referrers_tag(subject)}"
        return self._get(site, target, frozenset({200, 404}), consume)

    def _get(self, site: Site, target: str, accept: frozenset[int], consume: Callable[[Answer], T]) -> T:
        headers = {"Accept": media_types.OCI_INDEX}
        scopes = (f"repository:{site.path}:pull",)
        return self._transport.perform(Call("GET", site, target, scopes, headers, accept=accept), consume)

    def _write(self, site: Site, subject: Digest, raw: bytes) -> None:
        if len(raw) > MANIFEST_LIMIT:
            raise _broken(subject, f"would be over the limit of {MANIFEST_LIMIT} bytes", "remove old referrers")
        target = f"/v2/{site.path}/manifests/{referrers_tag(subject)}"
        scopes = (f"repository:{site.path}:pull,push",)
        headers = {"Content-Type": media_types.OCI_INDEX}
        accept = frozenset({200, 201, 202, 204})
        self._transport.perform(Call("PUT", site, target, scopes, headers, lambda: raw, accept), lambda _: None)


def _list_page(answer: Answer) -> tuple[bytes | None, str]:
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    # Something else than an index, such as the page of a proxy that knows no such address, is no list.
    if answer.status != 200 or kind != media_types.OCI_INDEX:
        return None, ""
    following = re.match(r'\s*<([^>]{1,4000})>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
    return _limited(answer), following.group(1) if following else ""


def _limited(answer: Answer) -> bytes:
    raw = answer.read(MANIFEST_LIMIT)
    if len(raw) > MANIFEST_LIMIT:
        raise RegistryError(f"list of referrers is over the limit of {MANIFEST_LIMIT} bytes", code="too-large")
    return raw


def _entries(raw: bytes) -> tuple[Descriptor, ...]:
    parsed = parse_manifest(raw)
    if not isinstance(parsed, Index):
        raise ImageError(
            "what stands where a list of referrers belongs is an image",
            code="invalid-manifest",
            where=Place(blob=digest_of(raw)),
            hint="the registry's operator, or who made it, would have to remove that tag",
        )
    return parsed.manifests


def _once(entries: Iterable[Descriptor]) -> list[Descriptor]:
    return list({entry.digest: entry for entry in entries}.values())


def _with_entry(listed: bytes | None, entry: Descriptor) -> bytes:
    empty: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}
    # Edited as JSON, so that what others wrote keeps the fields that we do not know.
    fields: dict[str, Any] = msgspec.json.decode(listed) if listed is not None else empty
    fields["manifests"] = [*(fields.get("manifests") or []), msgspec.to_builtins(entry)]
    return encode_json(fields)


def _broken(subject: Digest, why: str, hint: str) -> RegistryError:
    return RegistryError(
        f"the list of what refers to {subject} {why}", code="referrers", where=Place(blob=subject), hint=hint
    )
