"""A blob's way into a registry: not at all if it is there, else mounted, else sent, and resumed where it was cut.

Distribution specification 1.1, "Pushing blobs". One PUT with the whole body is what every registry takes; after a cut
the session's own word (GET on it, ``Range``) tells where a PATCH may go on. Where something on the way limits the size of a
request (413), the blob is sent in chunks, ever smaller ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO
from urllib.parse import quote

from shiplap.errors import Place, RegistryError
from shiplap.oci.digest import Digest
from shiplap.registry.authority import Scopes, Site
from shiplap.registry.connection import Answer, join_url
from shiplap.registry.download import Report
from shiplap.registry.patience import TryAgain
from shiplap.registry.transport import Call, Transport

LARGEST_CHUNK = 32 << 20
LEAST_CHUNK = 1 << 20
"""Bytes of the chunks in which a blob is sent that is too large for one request: at the most, and at the least."""

Opener = Callable[[int], BinaryIO]
"""Opens the blob's bytes for reading at an offset."""

Check = Callable[[], None]
"""Reads a blob at home and raises if it is damaged."""


def _unchecked() -> None:
    """Nobody could say."""


class Upload:
    """One blob on its way to one repository.

    Its bytes are not hashed here: the registry does that, and only if it finds others is ``check`` asked where they changed.
    """

    def __init__(
        self,
        transport: Transport,
        site: Site,
        digest: Digest,
        size: int,
        opener: Opener,
        report: Report,
        check: Check | None = None,
    ) -> None:
        self._transport = transport
        self._site = site
        self._digest = digest
        self._size = size
        self._opener = opener
        self._report = report
        self._check = check or _unchecked
        self._session = ""
        self._sent = 0
        self._chunk = 0
        self._least_chunk = LEAST_CHUNK

    def run(self, mount_from: str = "") -> str:
        """Bring the blob there; ``present``, ``mounted`` or ``uploaded``. ``mount_from`` is a path at the same host."""
        if self._present():
            return "present"
        if self._start(mount_from):
            return "mounted"
        tries = 0

        def once() -> str:
            nonlocal tries
            tries += 1
            # The answer to a try that went well may have been lost.
            if tries > 1 and self._present():
                return "uploaded"
            if tries > 1:
                self._resume()
            if self._sent == 0 and not self._chunk:
                self._send("PUT", self._with_digest(), 0, self._size, frozenset({201, 204}))
            else:
                while self._sent < self._size:
                    end = min(self._sent + (self._chunk or self._size), self._size)
                    self._send("PATCH", self._session, self._sent, end, frozenset({202, 204}))
                self._send("PUT", self._with_digest(), self._size, self._size, frozenset({201, 204}))
            return "uploaded"

        try:
            return self._transport.patience.insist(once)
        except RegistryError as error:
            if error.status is not None and error.status >= 500:
                # Some answer thus where the bytes are not those of the digest (zuul-registry 1.3): are they at home?
                self._check()
            raise

    def _scopes(self, mount_from: str = "") -> Scopes:
        own = f"repository:{self._site.path}:pull,push"
        return (own, f"repository:{mount_from}:pull") if mount_from else (own,)

    def _present(self) -> bool:
        call = Call(
            "HEAD",
            self._site,
            f"/v2/{self._site.path}/blobs/{self._digest}",
            self._scopes(),
            accept=frozenset({200, 404}),
        )
        return self._transport.perform(call, lambda answer: answer.status == 200)

    def _start(self, mount_from: str) -> bool:
        target = f"/v2/{self._site.path}/blobs/uploads/"
        mounting = f"?mount={quote(self._digest)}&from={quote(mount_from, safe='')}" if mount_from else ""
        call = Call(
            "POST",
            self._site,
            target + mounting,
            self._scopes(mount_from),
            {"Content-Length": "0"},
            accept=frozenset({201, 202}),
        )
        try:
            created = self._transport.perform(call, self._remember)
        except RegistryError as error:
            # Some registries refuse a mount outright where we may not read the source; then it is a plain upload.
            if not mount_from or error.status not in (400, 401, 403, 404, 405):
                raise
            return self._start("")
        if not created:
            self._sent = 0
        return created

    def _remember(self, answer: Answer) -> bool:
        if answer.status == 201:
            return True
        location = answer.headers.get("Location", "")
        if not location:
            raise RegistryError(f"{self._site.host} opened an upload without saying where", code="bad-answer")
        self._session = join_url(answer.url, location)
        least = answer.headers.get("OCI-Chunk-Min-Length", "").strip()
        if re.fullmatch(r"\d{1,12}", least):
            self._least_chunk = max(self._least_chunk, int(least))
        return False

    def _with_digest(self) -> str:
        return self._session + ("&" if "?" in self._session else "?") + f"digest={quote(self._digest)}"

    def _send(self, method: str, url: str, start: int, end: int, accept: frozenset[int]) -> None:
        length = end - start
        headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        if method == "PATCH":
            headers["Content-Range"] = f"{start}-{end - 1}"
        bodies: list[_Outgoing] = []

        def body() -> bytes | _Outgoing:
            # A renewed token sends the body once more: each gets its own reader.
            if not length:
                return b""
            bodies.append(_Outgoing(self._opener, start, end, self._transport, self._report, self._check))
            return bodies[-1]

        call = Call(method, self._site, url, self._scopes(), headers, body, accept)
        try:
            self._transport.attempt(call, self._moved)
        except RegistryError as error:
            if error.status in (400, 404, 416) and "BLOB_UPLOAD" in str(error):
                # The session is gone; the next try opens another.
                raise TryAgain(error) from None
            if error.status == 413 and self._smaller():
                raise TryAgain(error, 0.0) from None
            if error.status == 400 and "DIGEST_INVALID" in str(error):
                # Damage on the way, which ends the session; or the bytes are not those of the digest, which stays so.
                self._check()
                raise TryAgain(_damaged(error), limit=3) from None
            raise
        finally:
            for each in bodies:
                each.close()
        self._sent = end
        if method == "PUT":
            self._report(self._size, True)

    def _moved(self, answer: Answer) -> None:
        # Each answer may name a new place for the session, with its state.
        if answer.headers.get("Location") and answer.status == 202:
            self._remember(answer)

    def _smaller(self) -> bool:
        """Go over to (smaller) chunks; False if they are as small as they may be."""
        current = self._chunk or self._size
        self._chunk = max(min(current // 4, LARGEST_CHUNK), self._least_chunk)
        return self._chunk < current

    def _resume(self) -> None:
        """Find out how much of the blob the session has, or open a new one."""
        call = Call("GET", self._site, self._session, self._scopes(), accept=frozenset({200, 202, 204}))
        try:
            self._sent = self._transport.attempt(call, self._received)
        except RegistryError:
            self._start("")

    def _received(self, answer: Answer) -> int:
        if answer.headers.get("Location"):
            self._remember(answer)
        found = re.fullmatch(r"(?:bytes=)?0-(\d{1,19})", answer.headers.get("Range", "").strip())
        last = int(found.group(1)) if found else 0
        # "0-0" stands for nothing as well as for one byte: take it for nothing, and begin anew.
        if last == 0 or last >= self._size:
            raise RegistryError("the session cannot go on", code="bad-answer")
        return last + 1


class _Outgoing:
    """The body of an upload: exactly the announced bytes from ``start`` up to ``size``, an offset in the blob too."""

    def __init__(
        self, opener: Opener, start: int, size: int, transport: Transport, report: Report, check: Check
    ) -> None:
        self._check = check
        self._transport = transport
        self._report = report
        self._position = start
        self._size = size
        try:
            self._file = opener(start)
        except OSError as error:
            raise _unreadable(error) from None

    def read(self, amount: int = -1, /) -> bytes:
        self._transport.patience.check()
        left = self._size - self._position
        try:
            data = self._file.read(left if amount < 0 else min(amount, left))
        except OSError as error:
            raise _unreadable(error) from None
        if not data and left:
            self._check()
            raise RegistryError(
                f"the blob to push ended {left} bytes early", code="blob-truncated", where=Place(blob="")
            )
        self._position += len(data)
        self._report(self._position, False)
        return data

    def close(self) -> None:
        self._file.close()


def _damaged(error: RegistryError) -> RegistryError:
    return RegistryError(
        str(error),
        status=error.status,
        code="digest-mismatch",
        hint="something on the way to the registry changes what is sent: look for proxies, try https",
    )


def _unreadable(error: OSError) -> RegistryError:
    return RegistryError(f"the blob to push cannot be read: {error.strerror or error}", code="blob-unreadable")
