"""https: what is verified, and what is said when it does not fit."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shiplap.errors import RegistryError
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.memory import Fault, MemoryRegistry, Reply
from shiplap.settings import Network, RegistryRule


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=test"
    options = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", "server.key", "-out", "server.crt"]
    subprocess.run([*command.split(), *options], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secure(certificate: Path) -> Iterator[MemoryRegistry]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "server.crt", certificate / "server.key")
    with MemoryRegistry(tls=context) as server:
        yield server


def network_of(host: str, insecure: bool | None, certificates: str = "") -> Network:
    rule = RegistryRule(host, host, insecure=insecure)
    return Network(rules=(rule,), certificate_dirs=(certificates,) if certificates else ())


def client_of(network: Network, kit: Any) -> Registry:
    return Registry(network, lambda fact: None, timing=kit.quick)


def test_an_unknown_authority_is_refused_and_the_remedy_named(secure: MemoryRegistry, kit: Any) -> None:
    with client_of(network_of(secure.host, False), kit) as client, pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{secure.host}/a/b:1"))
    assert caught.value.code == "tls-certificate"
    assert f"certs.d/{secure.host}/ca.crt" in (caught.value.hint or "")
    assert secure.requests == []


def test_an_authority_in_certs_d_is_trusted(
    secure: MemoryRegistry, certificate: Path, tmp_path: Path, kit: Any
) -> None:
    image = kit.make_image()
    ref = kit.put_image(secure, "a/b", "1", image)
    folder = tmp_path / secure.host
    folder.mkdir()
    (folder / "ca.crt").write_bytes((certificate / "server.crt").read_bytes())
    with client_of(network_of(secure.host, False, str(tmp_path)), kit) as client:
        assert client.resolve(ref)[1] == image.raw


def test_a_broken_certs_d_is_an_error(secure: MemoryRegistry, tmp_path: Path, kit: Any) -> None:
    (tmp_path / secure.host).mkdir()
    (tmp_path / secure.host / "ca.crt").write_text("not PEM")
    with (
        client_of(network_of(secure.host, False, str(tmp_path)), kit) as client,
        pytest.raises(RegistryError) as caught,
    ):
        client.resolve(parse_reference(f"{secure.host}/a/b:1"))
    assert caught.value.code == "tls-certificate" and secure.host in str(caught.value)


def test_insecure_takes_any_certificate_without_a_warning(
    secure: MemoryRegistry, kit: Any, recwarn: pytest.WarningsRecorder
) -> None:
    image = kit.make_image()
    ref = kit.put_image(secure, "a/b", "1", image)
    with client_of(network_of(secure.host, True), kit) as client:
        assert client.resolve(ref)[1] == image.raw
    assert len(recwarn) == 0


def test_insecure_speaks_plain_http_where_nobody_speaks_https(server: MemoryRegistry, kit: Any) -> None:
    image = kit.make_image()
    ref = kit.put_image(server, "a/b", "1", image)
    with client_of(network_of(server.host, True), kit) as client:
        assert client.resolve(ref)[1] == image.raw


def test_https_to_a_plain_http_registry_names_the_remedy(server: MemoryRegistry, kit: Any) -> None:
    with client_of(network_of(server.host, False), kit) as client, pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert caught.value.code == "https-to-http"
    assert "insecure = true" in (caught.value.hint or "") and "registries.conf" in (caught.value.hint or "")
    assert not [seen for seen in server.requests if seen.status == 200]


def test_http_to_an_https_registry_names_the_remedy(server: MemoryRegistry, kit: Any) -> None:
    body = b"Client sent an HTTP request to an HTTPS server.\n"
    server.fault(Fault("", reply=Reply(400, {"Content-Type": "text/plain"}, body)))
    with client_of(Network(), kit) as client, pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{server.host}/a/b:1"))
    assert caught.value.code == "http-to-https"


def test_no_redirect_from_https_to_http(secure: MemoryRegistry, server: MemoryRegistry, kit: Any) -> None:
    secure.fault(Fault("/manifests/", reply=Reply(307, {"Location": f"{server.url}/v2/a/b/manifests/1"})))
    with client_of(network_of(secure.host, True), kit) as client, pytest.raises(RegistryError) as caught:
        client.resolve(parse_reference(f"{secure.host}/a/b:1"))
    assert caught.value.code == "forbidden-redirect"
    assert server.requests == []
