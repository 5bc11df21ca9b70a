"""An engine that is not there, refuses, hangs up; real ones are in tests/integration/test_engines.py."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.images.conftest import Shelf

from shiplap.api.moving import copy
from shiplap.errors import ExportError, ShiplapError, UsageError
from shiplap.settings import Settings


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers every request with ``status`` and ``said``, after reading ``most`` bytes of it (-1: all)."""

    status = 200
    said = b'{"stream":"Loaded image: x:1\\n"}\n'
    most = -1
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.got = b""
        self.target = ""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Engine
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.client_address = ("", 0)

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.server.target = self.path
        data = b""
        while size := int(self.rfile.readline() or b"0", 16):
            data += self.rfile.read(size)
            self.rfile.readline()
            if 0 <= self.server.most <= len(data):
                break
        self.server.got = data
        if self.server.status:
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(self.server.said)))
            self.end_headers()
            self.wfile.write(self.server.said)
        self.close_connection = True

    def do_GET(self) -> None:
        self.server.target = self.path
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.said)))
        self.end_headers()
        self.wfile.write(self.server.said)


@contextmanager
def running(path: Path) -> Iterator[Engine]:
    with Engine(path) as engine:
        threading.Thread(target=engine.serve_forever, daemon=True).start()
        try:
            yield engine
        finally:
            engine.shutdown()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "engine.sock"


def of(settings: Settings, host: str) -> Settings:
    return settings._replace(engine=(("DOCKER_HOST", host),))


def test_what_it_gets_is_a_docker_archive(
    shelf: Shelf, multi: str, settings: Settings, socket: Path, tmp_path: Path
) -> None:
    there = of(settings, f"unix://{socket}")
    with running(socket) as engine:
        copied = copy(shelf.place("base", "multi"), "docker-daemon:app:1", there)
        assert copied.digest != multi  # one platform's
        assert engine.target == "/images/load?quiet=1"
        (tmp_path / "got.tar").write_bytes(engine.got)
        engine.said = engine.got  # and back
        copy("docker-daemon:app:1", "back:1", there)
        assert engine.target == "/images/app:1/get"
    copy(f"docker-archive:{tmp_path}/got.tar:app:1", f"oci:{tmp_path}/lay:1", settings)
    index = json.loads((tmp_path / "lay/index.json").read_text())
    assert index["manifests"][0]["digest"] == copied.digest


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (500, b'{"message":"no space left on device"}', "no space left on device"),
        (200, b'{"stream":"x"}\n{"error":"layer is bad"}\n', "layer is bad"),
        (404, b"page not found", "page not found"),
        (500, b"", "status 500"),
    ],
)
def test_its_refusal_is_told(
    status: int, said: bytes, why: str, shelf: Shelf, multi: str, settings: Settings, socket: Path
) -> None:
    with running(socket) as engine:
        engine.status, engine.said = status, said
        with pytest.raises(ExportError, match=why) as raised:
            copy(shelf.place("base", "multi"), "docker-daemon:app:1", of(settings, f"unix://{socket}"))
    assert raised.value.code == "engine-refused"


def test_it_hangs_up(shelf: Shelf, multi: str, settings: Settings, socket: Path) -> None:
    with running(socket) as engine:
        engine.status, engine.most = 0, 512
        with pytest.raises(ExportError) as raised:
            copy(shelf.place("base", "multi"), "docker-daemon:app:1", of(settings, f"unix://{socket}"))
    assert raised.value.code == "engine-lost"


def test_an_image_it_has_not(settings: Settings, socket: Path) -> None:
    with running(socket) as engine:
        engine.status, engine.said = 404, b"{}"
        with pytest.raises(ShiplapError) as raised:
            copy("docker-daemon:none", "x:1", of(settings, f"unix://{socket}"))
    assert raised.value.code == "no-such-image"


def test_none_is_there(shelf: Shelf, multi: str, settings: Settings, tmp_path: Path) -> None:
    source = shelf.place("base", "multi")
    with pytest.raises(ExportError, match="where DOCKER_HOST says") as raised:
        copy(source, "docker-daemon:x", of(settings, f"unix://{tmp_path}/none"))
    assert (raised.value.code, "shiplap run" in (raised.value.hint or "")) == ("no-engine", True)
    with pytest.raises(UsageError, match="ssh://u@h"):
        copy(source, "docker-daemon:x", of(settings, "ssh://u@h"))
