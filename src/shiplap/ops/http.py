"""ADD of a URL: one file, fetched, kept as a snapshot, and asked for anew with one small request (reference 2.7).

What the server said of the file (ETag, Last-Modified) is remembered by the URL; an unchanged file is a ``304`` and costs
no body. The snapshot is named by what it holds, so the same file from two places is one snapshot. Its time is the
server's Last-Modified. That time is no part of a step's key, as no file's time is: BuildKit has it in the key of the
source, but a COPY that misses by that key is looked up by content, where times are left out; the answer is the same.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from shiplap.errors import ContextError, RegistryError, StoreError
from shiplap.events.meter import Meter
from shiplap.graph.operations import HttpSource
from shiplap.oci.manifest import prepare
from shiplap.ops.workbench import Fetched, Workbench
from shiplap.store.snapshots import EMPTY
from shiplap.trees.change import ChangeTree

if TYPE_CHECKING:
    from shiplap.registry.connection import Answer, Connections

MODE = 0o600
REDIRECTS = 10
"""Most redirects followed, as Go's net/http does."""
VALIDATOR_LIMIT = 1024
"""Longest ETag or Last-Modified that is remembered, in characters."""
_MOVED = (301, 302, 303, 307, 308)
_UNLIMITED = 1 << 62


class Remembered(msgspec.Struct, frozen=True):
    """What is known of a URL: the snapshot that holds its file, the file's digests, and how to ask whether it changed."""

    snapshot: str
    digests: dict[str, str]
    """Hexadecimal, by algorithm; sha256 always."""
    etag: str = ""
    modified: str = ""
    """Last-Modified, if it may serve as a validator."""


def fetch_http(operation: HttpSource, bench: Workbench, step: str = "") -> Fetched:
    """The snapshot with the file of ``operation``, fetched if it is not here or has changed. ``step``: for Progress facts.

    Raises ContextError: http-status, digest-mismatch, bad-address, too-many-redirects, and those of a broken connection
    (timeout, unknown-host, connection-refused, tls-certificate …); StoreError.
    """
    _check_name(operation.filename)
    where = hashlib.sha256(f"{operation.url}\0{operation.filename}".encode("utf-8", "surrogateescape")).hexdigest()
    with bench.store.once(f"http {where}", bench.check):
        known = _recall(f"http {where}", bench)
        algorithm, _, wanted = operation.checksum.partition(":")
        if known is not None and wanted:
            if known.digests.get(algorithm) == wanted:
                return _fetched(known)  # the bytes that were asked for: nothing a server could say would change that
            known = None
        found = _Fetch(operation, bench, known, step).run()
        if found is not known:
            bench.store.results.put_digest(f"http {where}", msgspec.json.encode(found).decode())
        return _fetched(found)


def _fetched(known: Remembered) -> Fetched:
    return Fetched(known.snapshot, f"sha256:{known.digests['sha256']}")


def _check_name(name: str) -> None:
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise ContextError(f"not a name for a file: {name[:80]!r}", code="bad-path", hint="use another URL")


def _recall(key: str, bench: Workbench) -> Remembered | None:
    text = bench.store.results.digest(key)
    if text is None:
        return None
    try:
        known = msgspec.json.decode(text, type=Remembered)
    except msgspec.MsgspecError:
        return None
    return known if bench.store.snapshots.whole(known.snapshot) else None


class _Fetch:
    def __init__(self, operation: HttpSource, bench: Workbench, known: Remembered | None, step: str) -> None:
        self._operation = operation
        self._bench = bench
        self._known = known
        self._step = step
        self._url = operation.url
        self._host = ""

    def run(self) -> Remembered:
        from shiplap.oci.addresses import bare
        from shiplap.registry.connection import Connections, Timing
        from shiplap.registry.cutting import cut_when
        from shiplap.registry.patience import Patience

        timing = Timing(attempts=3)
        connections = Connections(self._bench.web(), timing)
        try:
            with cut_when(self._bench.cancel, connections.interrupt):
                return Patience(timing, self._bench.cancel).insist(lambda: self._once(connections))
        except RegistryError as error:
            hint = error.hint
            if hint and "registr" in hint:
                hint = "check the address, the network and the proxy settings"
            message = error.message
            if not message.startswith(("GET ", "digest ")):
                message = f"{bare(self._operation.url)}: {message}"
            raise ContextError(message, code=error.code, hint=hint) from None
        finally:
            connections.close()

    def _once(self, connections: Connections) -> Remembered:
        import urllib3.exceptions as wire

        from shiplap.registry.failure import unreachable
        from shiplap.registry.patience import TRANSIENT, TryAgain, retry_after

        try:
            with self._follow(connections) as answer:
                if answer.status in TRANSIENT:
                    raise TryAgain(self._refused(answer.status), retry_after(answer.headers.get("Retry-After")))
                return self._take(answer)
        except (wire.HTTPError, TimeoutError, ConnectionError) as error:
            self._bench.check()
            failure, again = unreachable(error, "GET", self._url, self._host)
            if again:
                raise TryAgain(failure) from None
            raise failure from None

    def _follow(self, connections: Connections) -> Answer:
        """The answer behind all redirects."""
        from shiplap.registry.connection import join_url, split_url

        self._url, basic = take_credentials(self._operation.url)
        origin = split_url(self._url)[0]
        self._host = origin.host
        headers = self._conditions()
        authorization = self._authorization(origin.host) or basic
        for _ in range(REDIRECTS + 1):
            self._bench.check()
            sent = {**headers, "Authorization": authorization} if authorization else headers
            answer = connections.exchange("GET", self._url, sent)
            location = answer.headers.get("Location")
            if answer.status not in _MOVED or not location:
                return answer
            with answer:
                self._url = take_credentials(join_url(self._url, location))[0]
            # What proves who we are is for the host it was given for; once off, it stays off.
            if split_url(self._url)[0] != origin:
                authorization = ""
                origin = split_url(self._url)[0]
                self._host = origin.host
        raise RegistryError(f"stopped after {REDIRECTS} redirects", code="too-many-redirects", hint="check the URL")

    def _conditions(self) -> dict[str, str]:
        headers = {"Accept": "*/*"}
        if self._known is not None and self._known.etag:
            headers["If-None-Match"] = self._known.etag
        elif self._known is not None and self._known.modified:
            headers["If-Modified-Since"] = self._known.modified
        return headers

    def _authorization(self, host: str) -> str:
        """What the secrets give for ``host``, as BuildKit names them; a token goes before a whole header."""
        host = host.strip("[]")
        for name, form in ((f"HTTP_AUTH_TOKEN_{host}", "Bearer {}"), (f"HTTP_AUTH_HEADER_{host}", "{}")):
            read = self._bench.secrets.get(name)
            if read is not None:
                return form.format(header_value(read(), name))
        return ""

    def _refused(self, status: int) -> RegistryError:
        hint = "check the URL"
        if status in (401, 403, 407):
            hint = f"if it needs a login, give a token with --secret id=HTTP_AUTH_TOKEN_{self._host},env=NAME"
        elif status >= 500 or status == 429:
            hint = "the server is in trouble: try again later"
        return RegistryError(f"invalid response status {status}", status=status, code="http-status", hint=hint)

    def _take(self, answer: Answer) -> Remembered:
        known = self._known
        if known is not None and answer.status == 304:
            return known
        if not 200 <= answer.status < 300:
            raise self._refused(answer.status)
        etag = _short(answer.headers.get("ETag"))
        if known is not None and etag and _weak(etag) == _weak(known.etag):
            return known  # a server that knows ETags but not If-None-Match: the body is not read
        return self._keep(answer, etag)

    def _keep(self, answer: Answer, etag: str) -> Remembered:
        operation, snapshots = self._operation, self._bench.store.snapshots
        modified = _short(answer.headers.get("Last-Modified"))
        moment = seconds_of(modified) or 0
        length = answer.headers.get("Content-Length", "")
        meter = Meter(self._bench.sink, self._step, operation.filename, int(length) if length.isdecimal() else 0)
        algorithm, _, wanted = operation.checksum.partition(":")
        hashers = {name: hashlib.new(name) for name in {"sha256", algorithm or "sha256"}}
        with snapshots.draft(EMPTY) as draft:
            with ChangeTree(draft.diff, None) as target:
                fd = target.root().create_file(operation.filename)
                try:
                    received = 0
                    for chunk in answer.chunks(_UNLIMITED):
                        self._bench.check()
                        received += len(chunk)
                        meter(received, False)
                        for hasher in hashers.values():
                            hasher.update(chunk)
                        _write(fd, chunk)
                except BaseException:
                    os.close(fd)
                    raise
                meter(received, True)
                target.root().finish_file(fd, operation.filename, MODE, 0, 0, moment * 1_000_000_000)
                target.root().set_time(moment * 1_000_000_000)
            digests = {name: hasher.hexdigest() for name, hasher in hashers.items()}
            if wanted and digests[algorithm] != wanted:
                raise self._mismatch(f"{algorithm}:{digests[algorithm]}")
            name = hashlib.sha256(
                f"http {digests['sha256']} {moment} {operation.filename}".encode("utf-8", "surrogateescape")
            )
            id = name.hexdigest()[:32]
            if snapshots.get(id) is None:
                draft.commit(about="file from a URL", id=id)
        validator = modified if _settled(modified, answer.headers) else ""
        return Remembered(id, digests, etag, validator)

    def _mismatch(self, got: str) -> RegistryError:
        from shiplap.oci.addresses import bare

        return RegistryError(
            f"digest mismatch for {bare(self._operation.url)}: {got} (expected: {self._operation.checksum})",
            code="digest-mismatch",
            hint="the file is not the one that was meant, or --checksum is out of date",
        )


def take_credentials(url: str) -> tuple[str, str]:
    """``url`` without name and password, and the Authorization header they make ("" if there are none)."""
    from shiplap.oci.addresses import parse_address

    address = parse_address(url)
    if address is None:
        return url, ""
    if not address.user:
        return address.plain, ""
    from urllib.parse import unquote_to_bytes

    name, _, password = address.user.partition(":")
    pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return address.plain, "Basic " + b64encode(pair).decode()


def header_value(secret: bytes, name: str) -> str:
    """A secret as the value of a header; ContextError if it would break out of it."""
    text = secret.decode("latin-1").strip("\r\n")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ContextError(f"secret {name} holds control characters", code="invalid-secret", hint="give it as one line")
    return text


def seconds_of(date: str) -> int | None:
    """An HTTP date (RFC 9110, section 5.6.7) in seconds since 1970; None for what is none, or lies outside tar's range."""
    from email.utils import parsedate_to_datetime

    try:
        seconds = int(parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if 0 <= seconds < 1 << 33 else None


def _settled(modified: str, headers: Mapping[str, str]) -> bool:
    """Whether Last-Modified tells two versions apart: the file was no longer changing in the second that it was sent.

    RFC 9110, section 8.8.2.2.
    """
    changed, sent = seconds_of(modified), seconds_of(_short(headers.get("Date")))
    return changed is not None and sent is not None and sent - changed >= 2


def _short(text: str | None) -> str:
    text = text or ""
    return text if len(text) <= VALIDATOR_LIMIT and text.isprintable() and text.isascii() else ""


def _weak(etag: str) -> str:
    return etag.removeprefix("W/")


def _write(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise StoreError(
            f"cannot write to the store: {error.strerror}",
            code="store-write",
            hint="free some space, or run shiplap prune",
        ) from None


prepare(Remembered)
