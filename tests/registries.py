"""Real registries for tests: docker-registry by plain http or TLS, open or behind a password or tokens; zuul-registry, one of
another make; drayage, a cache; certificates."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kit import REPOSITORY, WORK, Shiplap, free_port, listens, once, program, wait_for
from shiplap.settings import Network, RegistryRule, load

USER = "tester"
PASSWORD = "secret-of-the-test"
HTPASSWD = "tester:$2y$05$abcdefghijklmnopqrstuu2hir4hxhqSzdkW1wYaCdjOyk2x8X6Wm\n"


class Certificates:
    """An authority of our own in ``folder``: ca.crt, server.crt for loopback, client.crt for a client, each with its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ca", "ca")
        self._signed("server", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
        self._signed("client", "extendedKeyUsage=clientAuth\n")

    def server(self, *, client: bool = False) -> ssl.SSLContext:
        """What a server of ours speaks TLS with; ``client``: only with those who show a certificate of our authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        if client:
            context.load_verify_locations(self.folder / "ca.crt")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def trust(self, certs_d: Path, host: str, *, client: bool = False) -> None:
        """Write what a user puts into ``certs_d`` for ``host``: the authority, and (``client``) a certificate and its key."""
        target = certs_d / host
        target.mkdir(parents=True, exist_ok=True)
        (target / "ca.crt").write_bytes((self.folder / "ca.crt").read_bytes())
        if client:
            (target / "client.cert").write_bytes((self.folder / "client.crt").read_bytes())
            (target / "client.key").write_bytes((self.folder / "client.key").read_bytes())

    def _signed(self, name: str, extensions: str) -> None:
        (self.folder / f"{name}.ext").write_text(extensions)
        request = "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
        self._openssl(f"{request} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        sign = "x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 30"
        self._openssl(f"{sign} -in {name}.csr -extfile {name}.ext -out {name}.crt")

    def _openssl(self, words: str, name: str = "") -> None:
        output = ["-keyout", f"{name}.key", "-out", f"{name}.crt"] if name else []
        subprocess.run([program("openssl"), *words.split(), *output], cwd=self.folder, check=True, capture_output=True)


@contextlib.contextmanager
def docker_registry(
    folder: Path,
    *,
    certificates: Certificates | None = None,
    client_certificate: bool = False,
    password: bool = False,
    tokens: TokenServer | None = None,
) -> Iterator[str]:
    """A running docker-registry with its data in ``folder``; its host:port on loopback."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    if certificates is not None:
        at = certificates.folder
        http["tls"] = {"certificate": f"{at}/server.crt", "key": f"{at}/server.key"}
        if client_certificate:
            http["tls"]["clientcas"] = [f"{at}/ca.crt"]
    storage = {"filesystem": {"rootdirectory": f"{folder}/data"}, "delete": {"enabled": True}}
    config: dict[str, Any] = {"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": http}
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": f"{folder}/htpasswd"}}
    if tokens is not None:
        config["auth"] = {"token": tokens.settings()}
    (folder / "config.yml").write_text(json.dumps(config))  # YAML is a superset of JSON
    with open(folder / "log", "w") as log:
        command = [program("docker-registry"), "serve", str(folder / "config.yml")]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: listens(port) or server.poll() is not None, "docker-registry")
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


@contextlib.contextmanager
def zuul_registry(folder: Path, *, certificates: Certificates | None = None) -> Iterator[str]:
    """A running zuul-registry (Python) with its data in ``folder``; its host:port on loopback.

    It signs tokens for ``USER`` itself, and gives none to anybody else. What it does otherwise than docker-registry: no session
    can be asked how far it is, none mounts, blobs belong to all repositories, wrong bytes are answered with 500, GET knows no
    ranges, its list of tags has digests, its challenge names neither a service nor a scope of the usual form.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    public = f"{'https' if certificates else 'http'}://127.0.0.1:{port}"
    users = [
        {"name": USER, "pass": PASSWORD, "access": "write"},
        {"name": "reader", "pass": PASSWORD, "access": "read"},
    ]
    storage = {"driver": "filesystem", "root": f"{folder}/data"}
    settings: dict[str, Any] = {"address": "127.0.0.1", "port": port, "public-url": public, "storage": storage}
    settings |= {"secret": "of the registry", "users": users}
    if certificates is not None:
        settings |= {
            f"tls-{part}": f"{certificates.folder}/server.{end}" for part, end in (("cert", "crt"), ("key", "key"))
        }
    (folder / "registry.yaml").write_text(json.dumps({"registry": settings}))  # YAML is a superset of JSON
    with open(folder / "log", "w") as log:
        command = [_zuul_python(), "tests/setup/zuul_server.py", "-c", str(folder / "registry.yaml")]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)
        try:
            wait_for(lambda: listens(port) or server.poll() is not None, "zuul-registry")
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def _zuul_python() -> str:
    """The Python of the virtual environment that zuul-registry is in: made by ``make setup``, or now."""
    place = WORK / "zuul"
    with once(WORK / "zuul.ready") as ours:
        if ours:
            setup = ["sh", "tests/setup/zuul.sh", sys.executable, str(place)]
            subprocess.run(setup, cwd=REPOSITORY, check=True, timeout=600)
            (WORK / "zuul.ready").touch()
    return str(place / "bin/python")


@dataclass(frozen=True)
class Served:
    """A running registry, and a home of somebody who may write to it: with certificates, a login, a registries.conf.

    shiplap and skopeo look for these at the same places.
    """

    make: str
    host: str
    home: Path

    def __str__(self) -> str:
        return self.host

    @property
    def environment(self) -> dict[str, str]:
        """Where the home is, for commands."""
        configuration = self.home / ".config/containers/registries.conf"
        return {"HOME": str(self.home), "CONTAINERS_REGISTRIES_CONF": str(configuration)}

    def network(self) -> Network:
        """As shiplap's settings read it."""
        return load(self.environment, home=str(self.home), etc=str(self.home)).network()

    def known_to(self, shiplap: Shiplap) -> Shiplap:
        """Let ``shiplap`` live in the home; whatever its own registries.conf says goes on to hold."""
        own = shiplap.env.get("CONTAINERS_REGISTRIES_CONF", "")
        mine = Path(self.environment["CONTAINERS_REGISTRIES_CONF"])
        both = shiplap.root.parent / f"registries-{self.make}.conf"
        both.write_text((Path(own).read_text() if own else "") + mine.read_text())
        shiplap.env.update(self.environment, CONTAINERS_REGISTRIES_CONF=str(both))
        return shiplap

    def skopeo(self, *words: str) -> str:
        """What skopeo prints, which has to succeed."""
        command = [program("skopeo"), *words]
        environment = {"PATH": os.environ["PATH"], **self.environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def served(make: str, folder: Path, *, password: bool = False) -> Iterator[Served]:
    """A registry of that make: docker-registry open (or behind a ``password``) by plain http, zuul-registry over TLS and behind
    tokens."""
    home = folder / "home"
    containers = home / ".config/containers"
    containers.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        if make == "zuul-registry":
            certificates = Certificates(folder / "certificates")
            host = stack.enter_context(zuul_registry(folder / "data", certificates=certificates))
            certificates.trust(containers / "certs.d", host)
        else:
            certificates = None
            host = stack.enter_context(docker_registry(folder / "data", password=password))
        if password or certificates:
            entry = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
            (home / ".docker").mkdir()
            (home / ".docker/config.json").write_text(json.dumps({"auths": {host: entry}}))
        insecure = json.dumps(certificates is None)
        (containers / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = {insecure}\n')
        yield Served(make, host, home)


@contextlib.contextmanager
def drayage(folder: Path, upstream: str) -> Iterator[str]:
    """A registry of another make: a cache of what ``upstream`` (host:port, plain http) holds, to pull from; its host:port."""
    (folder / "cache").mkdir(parents=True)
    port = free_port()
    (folder / "config.toml").write_text(
        f'listen = "127.0.0.1:{port}"\ncache_dir = "{folder}/cache"\nnegative_ttl_seconds = 0\n'
        f'[upstreams.docker_io]\nregistry = "http://{upstream}"\n'
    )
    with open(folder / "log", "w") as log:
        command = [str(Path(sys.executable).with_name("drayage")), "serve", "--config", str(folder / "config.toml")]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: listens(port) or server.poll() is not None, "drayage")
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


class TokenServer:
    """Signs the JSON web tokens that docker-registry's ``auth: token`` verifies, for ``USER``; a context manager.

    Tokens are good for ``seconds``; registries allow a minute more for clocks that differ, so they are dated back by that.
    ``asked`` is what it was asked for; ``refresh`` are the identity tokens that it takes.
    """

    LEEWAY = 60

    def __init__(self, folder: Path, *, seconds: float = 300, certificates: Certificates | None = None) -> None:
        self.folder = folder
        self.seconds = seconds
        self.asked: list[dict[str, list[str]]] = []
        self.refresh: set[str] = set()
        self._signed_already: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        request = "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=tokens -keyout sign.key -out sign.crt"
        subprocess.run([program("openssl"), *request.split()], cwd=folder, check=True, capture_output=True)
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return

            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                status, body = owner._answer(self.path, self.rfile.read(size), self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificates is not None:
            tls = certificates.server()
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if certificates else 'http'}://{self.host}/token"

    def __enter__(self) -> TokenServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def settings(self) -> dict[str, str]:
        """The section of docker-registry's configuration."""
        bundle = str(self.folder / "sign.crt")
        return {"realm": self.url, "service": "test", "issuer": "tokens", "rootcertbundle": bundle}

    def _answer(self, path: str, body: bytes, authorization: str) -> tuple[int, bytes]:
        query = parse_qs(body.decode() or urlsplit(path).query)
        self.asked.append(query)
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = authorization == f"Basic {pair}" or (query.get("refresh_token") or [""])[0] in self.refresh
        if not known:
            return 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}'
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        told: dict[str, Any] = {"token": self._token(access), "expires_in": self.seconds}
        if "offline_token" in query:
            told["refresh_token"] = f"identity-{len(self.asked)}-{os.urandom(8).hex()}"
            self.refresh.add(told["refresh_token"])
        return 200, json.dumps(told).encode()

    def _token(self, access: list[dict[str, Any]]) -> str:
        now = time.time()
        # Signing costs a process; one token serves for a third of its life.
        name = json.dumps(access)
        with self._lock:
            text, at = self._signed_already.get(name, ("", 0.0))
            if now - at < self.seconds / 3:
                return text
        claims = {"iss": "tokens", "sub": USER, "aud": "test", "access": access, "jti": str(len(self.asked))}
        # Whole seconds, and a third of its life later: it never expires before the client is told that it does.
        claims |= {"iat": int(now) - 600, "nbf": int(now) - 600}
        claims["exp"] = math.ceil(now + self.seconds * 4 / 3) - self.LEEWAY
        text = self._signed(claims)
        with self._lock:
            self._signed_already[name] = (text, now)
        return text

    def _signed(self, claims: dict[str, Any]) -> str:
        pem = (self.folder / "sign.crt").read_text()
        der = "".join(pem.split("-----")[2].split())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        sign = [program("openssl"), "dgst", "-sha256", "-sign", str(self.folder / "sign.key")]
        signature = subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_encoded(signature)}"


def secured(*hosts: str, certs_d: Path, **fields: Any) -> Network:
    """A network in which ``hosts`` on loopback speak https, and the authorities of ``certs_d`` are trusted."""
    rules = tuple(RegistryRule(host, host, insecure=False) for host in hosts)
    return Network(rules=rules, certificate_dirs=(str(certs_d),), **fields)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
