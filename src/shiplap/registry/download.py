"""A blob as a stream: never more bytes than announced, resumed where a connection was cut, verified at its end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator

import urllib3.exceptions as wire

from shiplap.errors import Place, RegistryError
from shiplap.oci.digest import Digest, split_digest
from shiplap.registry.authority import Site
from shiplap.registry.connection import Answer
from shiplap.registry.patience import TryAgain
from shiplap.registry.transport import Call, Transport

RENEWING_PROGRESS = 1 << 20
"""A try that brought this many bytes was worth it and does not count (as containers/image counts)."""

Report = Callable[[int, bool], None]
"""Called with the bytes so far and whether that is all."""


def blob_chunks(
    transport: Transport, sites: tuple[Site, ...], digest: Digest, size: int, report: Report
) -> Iterator[bytes]:
    """The bytes of a blob in chunks of up to 1 MiB, from the first site that has it.

    The last chunk is held back until digest and size are known to be right: who has taken all chunks without an error
    has the whole blob. Raises RegistryError.
    """
    stream = _BlobStream(transport, digest, size, report)
    for position, site in enumerate(sites):
        try:
            yield from stream.read_from(site)
            return
        except RegistryError as error:
            # Bytes already handed out cannot be taken back, so a wrong digest ends it here.
            if position == len(sites) - 1 or error.code in ("digest-mismatch", "blocked"):
                raise


class _BlobStream:
    def __init__(self, transport: Transport, digest: Digest, size: int, report: Report) -> None:
        algorithm, self._wanted = split_digest(digest)
        self._hash = hashlib.new(algorithm)
        self._transport = transport
        self._digest = digest
        self._size = size
        self._report = report
        self._offset = 0
        self._held = b""

    def read_from(self, site: Site) -> Iterator[bytes]:
        patience = self._transport.patience
        fruitless = 0
        ranges = True
        while True:
            began = self._offset
            call = Call(
                "GET",
                site,
                f"/v2/{site.path}/blobs/{self._digest}",
                (f"repository:{site.path}:pull",),
                {"Range": f"bytes={began}-"} if began and ranges else {},
                accept=frozenset({200, 206, 416} if began and ranges else {200}),
            )
            try:
                answer = self._transport.open(call)
                try:
                    with answer:
                        if not self._aligned(answer, began):
                            ranges = False
                            continue
                        yield from self._take(answer)
                except (wire.HTTPError, OSError) as error:
                    raise self._transport.lost(call, error) from None
                return
            except TryAgain as again:
                patience.check()
                fruitless = 0 if self._offset - began >= RENEWING_PROGRESS else fruitless + 1
                if fruitless >= patience.timing.attempts:
                    raise again.failure from None
                patience.pause(patience.delay(max(fruitless, 1), None))

    def _aligned(self, answer: Answer, offset: int) -> bool:
        """True once the answer's next byte is the one at ``offset``; False if its range is not what was asked for."""
        if answer.status == 200:
            left = offset
            while left > 0:
                skipped = sum(len(chunk) for chunk in answer.chunks(min(left, 1 << 20)))
                if not skipped:
                    raise TryAgain(self._short(offset - left))
                left -= skipped
            return True
        found = re.match(r"bytes (\d{1,19})-", answer.headers.get("Content-Range", ""))
        return answer.status == 206 and found is not None and int(found.group(1)) == offset

    def _take(self, answer: Answer) -> Iterator[bytes]:
        left = self._size - self._offset
        for chunk in answer.chunks(left + 1):
            self._transport.patience.check()
            if self._offset + len(chunk) > self._size:
                raise self._wrong(f"is longer than its {self._size} bytes", "size-mismatch")
            self._hash.update(chunk)
            self._offset += len(chunk)
            held, self._held = self._held, chunk
            if held:
                self._report(self._offset, False)
                yield held
        if self._offset < self._size:
            raise TryAgain(self._short(self._offset))
        if self._hash.hexdigest() != self._wanted:
            encoding = answer.headers.get("Content-Encoding", "")
            actual = f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"
            told = f" (sent with Content-Encoding {encoding[:20]}, which was not asked for)" if encoding else ""
            raise self._wrong(f"has the digest {actual}{told}", "digest-mismatch")
        self._report(self._offset, True)
        if self._held:
            yield self._held

    def _short(self, got: int) -> RegistryError:
        return self._wrong(f"ended after {got} of {self._size} bytes", "blob-truncated")

    def _wrong(self, why: str, code: str) -> RegistryError:
        return RegistryError(
            f"blob {self._digest} {why}",
            code=code,
            where=Place(blob=self._digest),
            hint="the registry or a proxy on the way damages blobs: try again, or try another mirror",
        )
