"""A running Docker or Podman, over its API (Docker Engine API 1.24 and later, which Podman speaks too)."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from shiplap.errors import ExportError, ImageError, UsageError
from shiplap.images.files import TarBox, tar_of
from shiplap.images.place import Source, Transfer
from shiplap.images.written import Shipment, archive_bytes, called
from shiplap.oci.platform import Platform, native_platform
from shiplap.settings.engine import Engine

_CONNECT = 5.0
_ANSWER = 600.0
"""Seconds: to connect, and to wait for any part of an answer. A large image takes an engine minutes to unpack."""
_SAID = 1 << 20
"""Most bytes of an engine's words that are read."""


class EngineTarget:
    """A ``Target``: the engine's images, under ``name`` (empty: as where it was)."""

    partial = True
    one_platform = True
    attaches = False

    def __init__(self, engines: Sequence[Engine], name: str, platform: Platform | None = None) -> None:
        self._engines = engines
        self._name = name
        self._platform = platform or native_platform()
        self.title = "docker-daemon:" + name

    def write(self, transfer: Transfer, source: Source, step: str) -> None:
        named, _ = called(transfer, self._name, full=True)
        try:
            load_archive(self._engines, archive_bytes([Shipment(named, source)], True, self._platform, step=step))
        except ExportError as error:
            if error.code == "engine-refused" and any(blob.media_type.endswith("+zstd") for blob in transfer.blobs):
                error.hint = "engines before Docker 23 read no zstd: build with --output …,compression=gzip"
            raise


def answers(engines: Sequence[Engine]) -> bool:
    """Whether one of them can be spoken to."""
    try:
        with _connected(engines):
            return True
    except ExportError:
        return False


def load_archive(engines: Sequence[Engine], pieces: Iterable[bytes]) -> str:
    """Let the engine read the docker archive that ``pieces`` are, as it is made; what it says it loaded.

    Raises ExportError: no-engine, engine-refused.
    """
    with _connected(engines) as (connection, engine):
        headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
        try:
            try:
                connection.request("POST", "/images/load?quiet=1", body=pieces, headers=headers, encode_chunked=True)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough: its answer says why
            answer = connection.getresponse()
            said = answer.read(_SAID)
        except (OSError, http.client.HTTPException) as error:
            raise _lost(engine, error) from None
        if answer.status != 200:
            raise _refused(engine, answer.status, said)
        return _loaded(engine, said)


@contextmanager
def engine_archive(engines: Sequence[Engine], name: str, spool: str) -> Iterator[TarBox]:
    """The engine's image ``name`` as a docker archive, written to a file without a name in ``spool``.

    Raises ExportError (no-engine, engine-refused), ImageError (no-such-image).
    """
    with _connected(engines) as (connection, engine):
        try:
            connection.request("GET", f"/images/{quote(name, safe='/:@')}/get")
            answer = connection.getresponse()
            if answer.status == 404:
                raise ImageError(f"{engine.address} has no image {name}", code="no-such-image")
            if answer.status != 200:
                raise _refused(engine, answer.status, answer.read(_SAID))
            box = tar_of(answer, f"docker-daemon:{name}", spool)
        except (OSError, http.client.HTTPException) as error:
            raise _lost(engine, error) from None
    try:
        yield box
    finally:
        box.close()


@contextmanager
def _connected(engines: Sequence[Engine]) -> Iterator[tuple[http.client.HTTPConnection, Engine]]:
    tried = []
    for engine in engines:
        connection = _connection(engine)
        try:
            connection.connect()
        except (OSError, ssl.SSLError) as error:
            connection.close()
            tried.append(f"{engine.address}: {getattr(error, 'strerror', None) or error}")
            continue
        try:
            yield connection, engine
        finally:
            connection.close()
        return
    named = engines[0].said_by if len(engines) == 1 else ""
    raise ExportError(
        f"no Docker or Podman answers{f' where {named} says' if named else ''} ({'; '.join(tried)})",
        code="no-engine",
        hint="start dockerd, or podman system service; DOCKER_HOST says where it is. Without one: shiplap run NAME",
    )


def _connection(engine: Engine) -> http.client.HTTPConnection:
    if engine.address.startswith("unix://"):
        return _UnixConnection(engine.address.removeprefix("unix://"))
    parts = urlsplit(engine.address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
        raise UsageError(
            f"{engine.said_by} names an engine at {engine.address[:100]!r}, which shiplap cannot reach",
            code="bad-engine",
            hint="unix:///path and tcp://host:port are spoken; for ssh, forward the socket: ssh -L /tmp/d.sock:…",
        )
    if engine.tls or parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname, port or 2376, timeout=_ANSWER, context=_context(engine))
    return http.client.HTTPConnection(parts.hostname, port or 2375, timeout=_ANSWER)


def _context(engine: Engine) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=engine.authority or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if engine.certificate and engine.key:
            context.load_cert_chain(engine.certificate, engine.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"the certificates for {engine.address} cannot be read: {error}",
            code="bad-engine",
            hint="DOCKER_CERT_PATH should hold ca.pem, cert.pem and key.pem",
        ) from None
    if not engine.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_CONNECT)
        self.sock.connect(self._path)
        self.sock.settimeout(_ANSWER)


def _loaded(engine: Engine, said: bytes) -> str:
    words = []
    for line in said.splitlines():
        try:
            fact: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if isinstance(fact, dict) and fact.get("error"):
            raise _refused(engine, 200, line)
        if isinstance(fact, dict) and isinstance(fact.get("stream"), str):
            words.append(fact["stream"].strip())
    return "\n".join(words)


def _refused(engine: Engine, status: int, said: bytes) -> ExportError:
    try:
        fact = json.loads(said)
        why = str(fact.get("message") or fact.get("error") or fact.get("cause") or "")
    except (ValueError, AttributeError):
        why = said.decode(errors="replace")
    return ExportError(
        f"{engine.address} did not take the image: {why.strip()[:500] or f'status {status}'}",
        code="engine-refused",
    )


def _lost(engine: Engine, error: Exception) -> ExportError:
    return ExportError(f"the engine at {engine.address} hung up: {error}", code="engine-lost", hint="look at its log")
