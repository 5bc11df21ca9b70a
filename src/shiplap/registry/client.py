"""A registry as the rest of shiplap sees it: resolve, read and write manifests and blobs."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import quote

import msgspec

from shiplap.errors import ImageError, Place, RegistryError
from shiplap.events.facts import Sink, Warned
from shiplap.events.meter import Meter
from shiplap.oci import media_types
from shiplap.oci.digest import Digest, digest_of, is_digest, parse_digest
from shiplap.oci.manifest import MANIFEST_LIMIT, Descriptor, Index, decode_json, parse_manifest
from shiplap.oci.reference import Reference, is_tag
from shiplap.oci.referrer import referrer_descriptor
from shiplap.registry.authority import Authority, Site
from shiplap.registry.connection import Answer, Connections, Timing, join_url, split_url
from shiplap.registry.download import Report, blob_chunks
from shiplap.registry.failure import Redactor
from shiplap.registry.patience import Patience, TryAgain
from shiplap.registry.referrers import Referrers
from shiplap.registry.sites import Sites
from shiplap.registry.transport import Call, Transport
from shiplap.registry.upload import Check, Opener, Upload
from shiplap.settings import Network

ACCEPT = ", ".join(
    (media_types.OCI_INDEX, media_types.OCI_MANIFEST, media_types.DOCKER_INDEX, media_types.DOCKER_MANIFEST)
)
MOST_TAG_PAGES = 1000

T = TypeVar("T")


class Registry:
    """A client of any number of registries. Thread-safe; use it in a ``with`` block, or call ``close``.

    ``network`` says how to reach them (mirrors, proxies, credentials), ``sink`` takes Progress facts. Every failure is
    a RegistryError (ImageError for a manifest that cannot be read); ``interrupt`` ends every call with Interrupted.
    """

    def __init__(self, network: Network, sink: Sink, *, timing: Timing = Timing()) -> None:  # noqa: B008
        self._sink = sink
        self._cancel = threading.Event()
        redactor = Redactor()
        patience = Patience(timing, self._cancel, tell=lambda message: sink(Warned(message)))
        self._connections = Connections(network, timing)
        authority = Authority(network, self._connections, patience, redactor)
        self._sites = Sites(network, self._connections)
        self._transport = Transport(self._connections, authority, patience, redactor)
        self._referrers = Referrers(self._transport)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connections.close()

    def interrupt(self) -> None:
        """Make every call under way, in any thread, end now with Interrupted."""
        self._cancel.set()
        self._connections.interrupt()

    def resolve(
        self, ref: Reference, known: Callable[[Digest], bytes | None] | None = None
    ) -> tuple[Descriptor, bytes]:
        """The manifest or index that ``ref`` names, verified, with its descriptor.

        ``known`` looks a digest up at home: a tag that still names known bytes then costs one HEAD, which registries do
        not count as a pull.
        """
        for site in self._sites.reading(ref, ref.target) if known is not None and not ref.digest else ():
            found = self._head(site, ref)
            if found is not None:
                raw = known(found) if known is not None else None
                if raw is not None and digest_of(raw) == found:
                    return _describe(raw, "", found), raw
                break
        return self._read(ref, ref.target, lambda site: self._manifest(site, ref, ref.target, ref.digest))

    def manifest(self, ref: Reference, descriptor: Descriptor) -> bytes:
        """The manifest that ``descriptor`` names in the repository of ``ref``: digest, size and type are verified."""
        digest = parse_digest(descriptor.digest)
        found, raw = self._read(ref, digest, lambda site: self._manifest(site, ref, digest, digest))
        if descriptor.size not in (-1, len(raw)):
            raise RegistryError(
                f"manifest {digest} has {len(raw)} bytes, its index says {descriptor.size}",
                code="size-mismatch",
                where=Place(blob=digest),
            )
        known = media_types.INDEXES | media_types.MANIFESTS
        if descriptor.media_type in known and found.media_type != descriptor.media_type:
            raise ImageError(
                f"manifest is {found.media_type}, its index says {descriptor.media_type}",
                code="ambiguous-manifest",
                where=Place(blob=digest),
            )
        return raw

    def has_manifest(self, ref: Reference, descriptor: Descriptor) -> bool:
        """Whether the repository itself (no mirror) holds the manifest."""
        site = self._sites.writing(ref)
        target = f"/v2/{site.path}/manifests/{parse_digest(descriptor.digest)}"
        call = Call("HEAD", site, target, _pull(site), {"Accept": ACCEPT}, accept=frozenset({200, 404}))
        return self._transport.perform(call, lambda answer: answer.status == 200)

    def open_blob(
        self, ref: Reference, descriptor: Descriptor, *, step: str = "", mirrors: bool = True, told: bool = True
    ) -> Iterator[bytes]:
        """The blob in chunks of up to 1 MiB; digest and size are verified before the last one is given out.

        A connection that is cut is resumed. ``descriptor.urls`` are never followed (CVE-2020-15157). Not ``told``: no
        Progress facts, for who reads it tells how far it got.
        """
        if not told:
            return self._chunks(ref, descriptor, lambda current, done: None, mirrors)
        meter = Meter(self._sink, step or f"pull {ref.familiar()}", descriptor.digest, descriptor.size)
        return self._chunks(ref, descriptor, meter, mirrors)

    def _chunks(self, ref: Reference, descriptor: Descriptor, report: Report, mirrors: bool = True) -> Iterator[bytes]:
        digest, size = parse_digest(descriptor.digest), descriptor.size
        if size < 0:
            raise ImageError(f"descriptor of {digest} has no size", code="invalid-manifest", where=Place(blob=digest))
        sites = self._sites.reading(ref, digest)
        return blob_chunks(self._transport, sites if mirrors else sites[-1:], digest, size, report)

    def read_blob(self, ref: Reference, descriptor: Descriptor, limit: int = MANIFEST_LIMIT) -> bytes:
        """A small blob (a config) as a whole; ``limit`` in bytes. Tells no progress: it is part of asking what there is."""
        if descriptor.size > limit:
            raise ImageError(
                f"blob {descriptor.digest} has {descriptor.size} bytes, over the limit of {limit}",
                code="blob-too-large",
                where=Place(blob=descriptor.digest),
            )
        try:
            return b"".join(self._chunks(ref, descriptor, lambda current, done: None))
        except RegistryError as error:
            if error.code != "digest-mismatch":
                raise
            # Damage on the way, or a bad mirror: once more, from the registry itself.
            return b"".join(self._chunks(ref, descriptor, lambda current, done: None, mirrors=False))

    def has_blob(self, ref: Reference, digest: Digest) -> bool:
        """Whether the repository itself (no mirror) holds the blob."""
        site = self._sites.writing(ref)
        target = f"/v2/{site.path}/blobs/{parse_digest(digest)}"
        call = Call("HEAD", site, target, _pull(site), accept=frozenset({200, 404}))
        return self._transport.perform(call, lambda answer: answer.status == 200)

    def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        opener: Opener,
        mount_from: Reference | None = None,
        *,
        step: str = "",
        check: Check | None = None,
    ) -> str:
        """Bring a blob to the repository: ``present``, ``mounted`` (from another repository there) or ``uploaded``.

        ``opener(offset)`` opens its bytes; it is called again for every resumption. The registry verifies what it gets; if it
        finds other bytes, ``check`` is called, to raise if they are so at home, before the blob is sent again.
        """
        site = self._sites.writing(ref)
        digest = parse_digest(descriptor.digest)
        meter = Meter(self._sink, step or f"push {ref.familiar()}", digest, descriptor.size)
        near = mount_from is not None and mount_from.host == ref.host and mount_from.path != ref.path
        source = self._sites.writing(mount_from).path if near and mount_from is not None else ""
        outcome = Upload(self._transport, site, digest, descriptor.size, opener, meter, check).run(source)
        if outcome != "uploaded":
            meter(descriptor.size, True)
        return outcome

    def referrers(self, ref: Reference, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What refers to the manifest ``digest`` in the repository of ``ref``; of one type unless that is empty.

        A mirror that has any is believed; one that has none may only not know, so the registry itself is asked too.
        """
        sites = self._sites.reading(ref, parse_digest(digest))
        for site in sites[:-1]:
            try:
                found = self._referrers.read(site, digest, artifact_type)
            except (RegistryError, ImageError):
                continue
            if found:
                return found
        return self._referrers.read(sites[-1], digest, artifact_type)

    def push_manifest(self, ref: Reference, raw: bytes, media_type: str) -> Descriptor:
        """Write a manifest under the tag of ``ref``, or by its digest if ``ref`` has no tag; blobs have to be there.

        One with a ``subject`` is in the list of that subject's referrers afterwards, whether the registry keeps such lists
        or not.
        """
        site = self._sites.writing(ref)
        digest = digest_of(raw)
        if ref.digest not in ("", digest):
            raise RegistryError(f"the manifest is {digest}, not {ref.digest}", code="digest-mismatch")
        entry, subject = referrer_descriptor(raw, media_type)
        target = f"/v2/{site.path}/manifests/{quote(ref.tag) or digest}"
        scopes = (f"repository:{site.path}:pull,push",)
        headers = {"Content-Type": media_type}
        call = Call("PUT", site, target, scopes, headers, lambda: raw, frozenset({200, 201, 202, 204}))

        def stored(answer: Answer) -> str:
            try:
                _check_said(answer, raw)
            except RegistryError as error:
                raise TryAgain(error, limit=2) from None  # damage on the way; the second time puts it right
            return answer.headers.get("OCI-Subject", "")

        tries = 0

        def once() -> str:
            nonlocal tries
            tries += 1
            said = self._transport.attempt(call, stored)
            if tries > 1 and ref.tag:
                self._check_tag(site, ref._replace(digest=""), digest)
            return said

        listed = self._transport.patience.insist(once)
        if subject and listed != subject:
            self._referrers.add(site, subject, entry)
        return Descriptor(media_type=media_type, digest=digest, size=len(raw))

    def _check_tag(self, site: Site, ref: Reference, digest: Digest) -> None:
        # A registry that takes what was cut on its way for the whole (zuul-registry 1.3) may be done with it only now.
        found = self._head(site, ref)
        if found not in (None, digest):
            failure = RegistryError(
                f"{ref.familiar()} names {found} right after the push of {digest}",
                code="digest-mismatch",
                where=Place(blob=digest),
                hint="somebody else pushes there too, or the registry kept what was cut on its way: push again",
            )
            raise TryAgain(failure, limit=4)

    def tags(self, ref: Reference) -> list[str]:
        """All tags of a repository, in the registry's order. Some list digests too (zuul-registry 1.3): those are left out."""
        site = self._sites.writing(ref)
        # Without a wish for so many a page: a registry need not know "n" (zuul-registry 1.3 then finds nothing).
        url = f"/v2/{site.path}/tags/list"
        found: list[str] = []
        for _ in range(MOST_TAG_PAGES):
            call = Call("GET", site, url, _pull(site))
            page, following = self._transport.perform(call, _tag_page)
            found += filter(is_tag, page)
            if not following:
                break
            url = join_url(call.url, following)
            if split_url(url)[0] != site.origin:
                raise RegistryError(f"{site.host} continues its list of tags at another host", code="bad-answer")
        return found

    def _read(self, ref: Reference, target: str, one: Callable[[Site], T]) -> T:
        sites = self._sites.reading(ref, target)
        for site in sites[:-1]:
            try:
                return one(site)
            except (RegistryError, ImageError):
                # A mirror that is down, lacks the image or damages it is no reason to fail while others are left.
                continue
        return one(sites[-1])

    def _head(self, site: Site, ref: Reference) -> Digest | None:
        call = Call(
            "HEAD",
            site,
            f"/v2/{site.path}/manifests/{quote(ref.target)}",
            _pull(site),
            {"Accept": ACCEPT},
            accept=frozenset(range(200, 500)) - {429},
        )
        try:
            said = self._transport.perform(
                call, lambda a: a.headers.get("Docker-Content-Digest", "") * (a.status == 200)
            )
        except RegistryError:
            return None
        return said if is_digest(said) else None

    def _manifest(self, site: Site, ref: Reference, target: str, digest: str) -> tuple[Descriptor, bytes]:
        call = Call(
            "GET", site, f"/v2/{site.path}/manifests/{quote(target, safe=':')}", _pull(site), {"Accept": ACCEPT}
        )

        def consume(answer: Answer) -> tuple[bytes, str]:
            raw = answer.read(MANIFEST_LIMIT)
            if len(raw) > MANIFEST_LIMIT:
                raise RegistryError(
                    f"manifest of {ref.familiar()} is over the limit of {MANIFEST_LIMIT} bytes",
                    code="manifest-too-large",
                )
            try:
                _check_said(answer, raw)
                if digest and _digest_like(digest, raw) != digest:
                    actual = _digest_like(digest, raw)
                    raise _lied(f"manifest of {ref.familiar()} has the digest {actual}, not {digest}", digest)
            except RegistryError as error:
                raise TryAgain(error, limit=2) from None  # damage on the way may be gone the next time
            return raw, answer.headers.get("Content-Type", "")

        raw, media_type = self._transport.perform(call, consume)
        return _describe(raw, media_type, digest or digest_of(raw)), raw


def _describe(raw: bytes, media_type: str, digest: Digest) -> Descriptor:
    parsed = parse_manifest(raw, media_type, digest)
    kind = parsed.media_type or media_type.partition(";")[0].strip()
    if kind not in media_types.INDEXES | media_types.MANIFESTS:
        # Neither the manifest nor the registry says what it is (allowed by OCI 1.0): its content does.
        kind = media_types.OCI_INDEX if isinstance(parsed, Index) else media_types.OCI_MANIFEST
    return Descriptor(media_type=kind, digest=digest, size=len(raw))


def _digest_like(digest: Digest, raw: bytes) -> Digest:
    algorithm = parse_digest(digest).partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"


def _check_said(answer: Answer, raw: bytes) -> None:
    said = answer.headers.get("Docker-Content-Digest")
    if said and (not is_digest(said) or _digest_like(said, raw) != said):
        raise _lied(f"the registry says the manifest is {said[:100]!r}, but it is {digest_of(raw)}", digest_of(raw))


def _lied(message: str, digest: Digest) -> RegistryError:
    return RegistryError(
        message,
        code="digest-mismatch",
        where=Place(blob=digest),
        hint="the registry or a proxy on the way changes manifests: try again, or ask its operator",
    )


def _pull(site: Site) -> tuple[str, ...]:
    return (f"repository:{site.path}:pull",)


class _TagPage(msgspec.Struct, frozen=True):
    tags: tuple[str, ...] | None = None


def _tag_page(answer: Answer) -> tuple[tuple[str, ...], str]:
    raw = answer.read(MANIFEST_LIMIT)
    if len(raw) > MANIFEST_LIMIT:
        raise RegistryError("the list of tags is over the limit", code="too-large")
    following = re.match(r'\s*<([^>]{1,4000})>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
    return decode_json(raw, _TagPage, "list of tags").tags or (), following.group(1) if following else ""
