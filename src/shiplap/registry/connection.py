"""Connections to hosts: pools, proxies, TLS, and a look at the connected address before the first byte is sent."""

from __future__ import annotations

import os
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urljoin

import urllib3
import urllib3.exceptions as wire
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import Timeout, make_headers, parse_url

from shiplap.errors import RegistryError
from shiplap.oci.addresses import bare
from shiplap.registry.address import Reach, literal_reach, reach_of
from shiplap.settings import Network

CHUNK = 1 << 20
"""Bytes moved at a time, where the line is fast."""
SENT = 256 << 10
"""Bytes of a body sent at a time: what the receiver reads is then still in the processors' caches, and takes it less time."""
_PATIENCE = 0.1
"""Seconds after which a read gives what it has."""


class Origin(NamedTuple):
    """Scheme, host and port: what credentials are bound to."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def split_url(url: str) -> tuple[Origin, str]:
    """Origin and request target of an http(s) address; raises RegistryError for any other, or one with a name in it."""
    try:
        parts = parse_url(url)
    except wire.LocationParseError:
        parts = urllib3.util.Url()
    if parts.scheme not in ("http", "https") or not parts.host or parts.auth:
        raise RegistryError(f"not an address to follow: {bare(url)}", code="bad-address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Origin(parts.scheme, parts.host.lower(), port), parts.request_uri


def join_url(base: str, location: str) -> str:
    """The address that ``location``, as a header gives it, means at ``base``; raises RegistryError."""
    try:
        return urljoin(base, location)
    except ValueError:
        raise RegistryError(f"not an address to follow, given by {bare(base)}", code="bad-address") from None


class Body(Protocol):
    """A request's body: bytes are read from it once."""

    def read(self, amount: int = -1, /) -> bytes: ...


class Answer:
    """An answer whose body is still to be read; closing it early costs the connection. Use in a ``with`` block."""

    def __init__(self, response: urllib3.BaseHTTPResponse, method: str, url: str) -> None:
        self.status = response.status
        self.headers = response.headers
        self.method = method
        self.url = url
        self.origin = split_url(url)[0]
        self._response = response
        self._whole = method == "HEAD"

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        # A body left over may be endless: such a connection is not worth keeping.
        if not self._whole:
            self._response.close()
        self._response.release_conn()

    def discard(self) -> None:
        """Read what is left if it is little, so that the connection can serve again."""
        for _ in self.chunks(64 << 10):
            pass

    def chunks(self, limit: int) -> Iterator[bytes]:
        """The body as it is on the wire, at most ``limit`` bytes; raises urllib3's errors if it is cut short."""
        left = limit
        while left > 0:
            data = self._gather(min(CHUNK, left))
            if not data:
                self._whole = True
                return
            left -= len(data)
            yield data

    def _gather(self, most: int) -> bytes:
        """What comes within ``_PATIENCE``: on a slow line nobody could see bytes move, or stop them, if it were always all."""
        parts = [self._response.read1(most, decode_content=False)]
        size = len(parts[0])
        end = time.monotonic() + _PATIENCE
        while parts[-1] and size < most and time.monotonic() < end:
            parts.append(self._response.read1(most - size, decode_content=False))
            size += len(parts[-1])
        return b"".join(parts)

    def read(self, limit: int) -> bytes:
        """The body up to ``limit`` bytes; one more than asked for tells that there was more."""
        return b"".join(self.chunks(limit + 1))


class Timing(NamedTuple):
    """Seconds and counts of patience. ``patience`` bounds the time after which no new try begins."""

    attempts: int = 5
    backoff: float = 0.5
    longest_backoff: float = 20.0
    longest_retry_after: float = 60.0
    patience: float = 100.0
    connect: float = 15.0
    read: float = 60.0


class _Guarded:
    """The part of a connection that shows its guard who answered."""

    guard: Callable[[str], None]

    def _new_conn(self) -> Any:
        connected = super()._new_conn()  # type: ignore[misc]
        try:
            self.guard(connected.getpeername()[0])
        except BaseException:
            connected.close()
            raise
        return connected


class _PlainConnection(_Guarded, HTTPConnection):
    def __init__(self, *args: Any, guard: Callable[[str], None], known: weakref.WeakSet[Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guard = guard
        known.add(self)


class _TLSConnection(_Guarded, HTTPSConnection):
    def __init__(self, *args: Any, guard: Callable[[str], None], known: weakref.WeakSet[Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guard = guard
        known.add(self)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection

    def _validate_conn(self, conn: Any) -> None:
        # urllib3's own version also warns about unverified TLS; the user has asked for it in registries.conf.
        if conn.is_closed:
            conn.connect()


class Connections:
    """All pools of one client. Thread-safe."""

    def __init__(self, network: Network, timing: Timing) -> None:
        self._network = network
        self._timing = timing
        # The root package names every room (lazily); imported plainly, it would count as an import of all of them.
        self._user_agent = f"shiplap/{sys.modules['shiplap'].__version__}"
        self._pools: dict[Any, Any] = {}
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._reach: dict[Origin, Reach] = {}
        self._lock = threading.Lock()

    def reach(self, origin: Origin) -> Reach:
        """How close to us the host turned out to be when we connected; PUBLIC if we never did (or through a proxy)."""
        return self._reach.get(origin, Reach.PUBLIC)

    def exchange(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | Body | None = None,
        *,
        limit: Reach = Reach.LINK,
        verify: bool = True,
    ) -> Answer:
        """One request, one answer: no retry, no redirect. A host closer to us than ``limit`` is sent nothing.

        Raises urllib3's errors, and RegistryError(code="forbidden-address").
        """
        origin, target = split_url(url)
        literal = literal_reach(origin.host)
        if literal is not None and literal > limit:
            raise _forbidden(origin)
        pool, proxied = self._pool(origin, limit, verify)
        sent = {"User-Agent": self._user_agent, "Accept-Encoding": "identity", **headers}
        response = pool.urlopen(
            method,
            url if proxied else target,
            body=body,
            headers=sent,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            **({} if proxied else {"assert_same_host": False}),
        )
        return Answer(response, method, url)

    def interrupt(self) -> None:
        """Cut every open connection, so that no thread waits for one."""
        for connection in list(self._open):
            try:
                connection.sock.shutdown(2)
            except (OSError, AttributeError, ValueError):
                continue

    def close(self) -> None:
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool, _ in pools:
            pool.close() if hasattr(pool, "close") else pool.clear()

    def _pool(self, origin: Origin, limit: Reach, verify: bool) -> tuple[Any, bool]:
        key = (origin, limit, verify)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(origin, limit, verify)
            return self._pools[key]  # type: ignore[no-any-return]

    def _new_pool(self, origin: Origin, limit: Reach, verify: bool) -> tuple[Any, bool]:
        timeout = Timeout(connect=self._timing.connect, read=self._timing.read)
        common: dict[str, Any] = {"timeout": timeout, "maxsize": 16, "blocksize": SENT}
        secure: dict[str, Any] = {}
        if origin.scheme == "https":
            context = self._context(origin, verify)
            secure = {"ssl_context": context, "cert_reqs": "CERT_REQUIRED" if verify else "CERT_NONE"}
        proxy = self._network.proxies.proxy_for(*origin)
        if proxy:
            return self._proxy_manager(proxy, {**common, **secure}), True

        def guard(address: str) -> None:
            reach = reach_of(address)
            if reach > limit:
                raise _forbidden(origin)
            self._reach[origin] = reach

        extra: dict[str, Any] = {"guard": guard, "known": self._open}
        host = origin.host.strip("[]")
        if origin.scheme == "https":
            return _TLSPool(host, origin.port, **common, **secure, **extra), False
        return _PlainPool(host, origin.port, **common, **extra), False

    def _proxy_manager(self, proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
        try:
            parts = parse_url(proxy)
        except wire.LocationParseError:
            parts = urllib3.util.Url()
        if parts.scheme not in ("http", "https") or not parts.host:
            raise RegistryError(
                "the proxy's address is not of the form http://host:port",
                code="proxy",
                hint="check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY (SOCKS is not spoken)",
            )
        headers = make_headers(proxy_basic_auth=unquote(parts.auth)) if parts.auth else None
        return urllib3.ProxyManager(parts._replace(auth=None).url, proxy_headers=headers, **options)

    def _context(self, origin: Origin, verify: bool) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        folder = self._certificate_dir(origin)
        try:
            if folder:
                for name in sorted(os.listdir(folder)):
                    path = os.path.join(folder, name)
                    if name.endswith(".crt"):
                        context.load_verify_locations(cafile=path)
                    elif name.endswith(".cert"):
                        context.load_cert_chain(path, path.removesuffix("cert") + "key")
        except (OSError, ssl.SSLError) as error:
            raise RegistryError(
                f"certificates in {folder} cannot be read: {getattr(error, 'reason', '') or error.strerror}",
                code="tls-certificate",
                hint="it should hold NAME.crt (authority), NAME.cert and NAME.key (ours), all in PEM",
            ) from None
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _certificate_dir(self, origin: Origin) -> str:
        names = [f"{origin.host}:{origin.port}"] + ([origin.host] if origin.port == 443 else [])
        if origin.host == "registry-1.docker.io":
            names.append("docker.io")
        for base in self._network.certificate_dirs:
            for name in names:
                folder = os.path.join(base, name)
                if os.path.isdir(folder):
                    return folder
        return ""


def _forbidden(origin: Origin) -> RegistryError:
    return RegistryError(
        f"refused to connect to {origin}: the registry sent us to an address inside this machine or network",
        code="forbidden-address",
        hint="if that is meant, name the host in registries.conf with insecure = true",
    )
