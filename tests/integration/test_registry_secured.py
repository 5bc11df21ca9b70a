"""Registries over TLS, behind passwords, tokens and client certificates; logins as people make them."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from faults import FaultProxy
from kit import Shiplap
from registries import (
    PASSWORD,
    USER,
    Certificates,
    Served,
    TokenServer,
    docker_registry,
    drayage,
    secured,
    zuul_registry,
)
from shiplap.errors import RegistryError
from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor, Manifest, encode_manifest
from shiplap.oci.platform import parse_platform
from shiplap.oci.reference import parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.connection import Timing
from shiplap.registry.login import check_login
from shiplap.registry.pull import fetch_image
from shiplap.registry.push import OutgoingBlob, push_image, push_referrer
from shiplap.settings import Credential, Mirror, Network, RegistryRule

AMD64 = parse_platform("linux/amd64")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def home(tmp_path: Path) -> Shiplap:
    """shiplap with a home of its own, and a small image in its store."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(os.urandom(100_000))
    shiplap = Shiplap(tmp_path / "home/store", {"XDG_RUNTIME_DIR": str(tmp_path / "run")})
    (tmp_path / "home/.config/containers").mkdir(parents=True)
    shiplap.run("import", tmp_path / "root", "small:1")
    return shiplap


def containers(home: Shiplap) -> Path:
    return home.root.parent / ".config/containers"


def by_https(home: Shiplap, *hosts: str, insecure: str = "") -> None:
    """Say that hosts on loopback, which are plain http by default, speak https; ``insecure`` names one that is not."""
    tables = [f'[[registry]]\nlocation = "{host}"\ninsecure = false\n' for host in hosts]
    tables += [f'[[registry]]\nlocation = "{insecure}"\ninsecure = true\n'] if insecure else []
    (containers(home) / "registries.conf").write_text("".join(tables))


def round_trip(home: Shiplap, host: str) -> None:
    """Push the small image, forget it, and pull it again: the same bytes."""
    name = f"{host}/team/small:1"
    before = home.run("tag", "small:1", name) and json.loads(home.run("inspect", name).stdout)
    home.run("push", "-q", name)
    fresh = Shiplap(home.root.with_name(f"other-{os.urandom(3).hex()}"), home.env)
    assert fresh.run("pull", "-q", name).stdout.strip() in json.dumps(before)


def test_an_authority_of_ones_own(home: Shiplap, certificates: Certificates, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", certificates=certificates) as host:
        by_https(home, host)
        home.run("tag", "small:1", f"{host}/team/small:1")
        failed = home.run("push", f"{host}/team/small:1", check=False)
        assert failed.returncode != 0 and f"certs.d/{host}/ca.crt" in failed.stderr
        certificates.trust(containers(home) / "certs.d", host)
        round_trip(home, host)


def test_a_client_certificate(home: Shiplap, certificates: Certificates, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", certificates=certificates, client_certificate=True) as host:
        by_https(home, host)
        certificates.trust(containers(home) / "certs.d", host)
        home.run("tag", "small:1", f"{host}/team/small:1")
        failed = home.run("push", f"{host}/team/small:1", check=False)
        assert failed.returncode != 0 and "client-certificate" in failed.stderr
        assert f"certs.d/{host}/client.cert" in failed.stderr and "client.key" in failed.stderr
        certificates.trust(containers(home) / "certs.d", host, client=True)
        round_trip(home, host)


def by_password(make: str, folder: Path, certificates: Certificates) -> AbstractContextManager[str]:
    """A registry over TLS that serves nobody without a password: itself, or the token server that it is, too."""
    if make == "zuul-registry":
        return zuul_registry(folder, certificates=certificates)
    return docker_registry(folder, certificates=certificates, password=True)


@pytest.mark.parametrize("make", ["docker-registry", "zuul-registry"])
def test_a_password_over_tls(make: str, home: Shiplap, certificates: Certificates, tmp_path: Path) -> None:
    with by_password(make, tmp_path / "registry", certificates) as host:
        by_https(home, host)
        certificates.trust(containers(home) / "certs.d", host)
        wrong = home.run("login", "-u", USER, "--password-stdin", host, stdin=b"wrong-password\n", check=False)
        assert wrong.returncode != 0 and "login-refused" in wrong.stderr and "wrong-password" not in wrong.stderr
        home.run("login", "-u", USER, "--password-stdin", f"https://{host}/v2/", stdin=PASSWORD.encode() + b"\n")
        kept = home.root.parent / ".docker/config.json"
        assert list(json.loads(kept.read_text())["auths"]) == [host] and kept.stat().st_mode & 0o777 == 0o600
        round_trip(home, host)
        assert "Removed the login" in home.run("logout", host).stdout
        failed = home.run("pull", f"{host}/team/small:1", check=False)
        assert f"shiplap login {host}" in failed.stderr
        assert "Not logged in" in home.run("logout", host).stdout


def test_a_login_that_another_file_hides_is_told(home: Shiplap, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", password=True) as host:
        old = containers(home) / "auth.json"
        old.write_text(json.dumps({"auths": {host: {"username": "old", "password": "gone"}}}))
        done = home.run("login", "-u", USER, "--password-stdin", host, stdin=PASSWORD.encode())
        assert f"{old} has another login for {host}" in done.stderr
        assert f"{old} still has a login for {host}" in home.run("logout", host).stderr


def helper(folder: Path) -> str:
    """A credential helper that keeps what it is given in a file, as those of docker-credential-helpers do; a PATH with it."""
    folder.mkdir(exist_ok=True)
    script = folder / "docker-credential-file"
    script.write_text(
        f"""#!/bin/sh
# docker-credential-helpers, protocol: the verb is the argument, the rest comes on standard input.
cd {folder} && echo "$1" >> verbs
case $1 in
  store) cat > entry; sed -n 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/p' entry > server ;;
  get) if [ "$(cat)" = "$(cat server 2>/dev/null)" ]; then cat entry
       else echo "credentials not found in native keychain"; exit 1; fi ;;
  erase) [ "$(cat)" = "$(cat server)" ] && rm entry server ;;
esac
"""
    )
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("where", ["credsStore", "credHelpers"])
def test_a_login_in_a_credential_helper(where: str, home: Shiplap, tmp_path: Path) -> None:
    home.env["PATH"] = helper(tmp_path / "bin")
    config = home.root.parent / ".docker/config.json"
    config.parent.mkdir()
    with docker_registry(tmp_path / "registry", password=True) as host:
        config.write_text(json.dumps({where: "file" if where == "credsStore" else {host: "file"}}))
        done = home.run("login", "-u", USER, "--password-stdin", host, stdin=PASSWORD.encode())
        assert done.stdout == "Login Succeeded (kept in docker-credential-file)\n"
        assert (
            PASSWORD not in config.read_text()
            and json.loads((tmp_path / "bin/entry").read_text())["Secret"] == PASSWORD
        )
        round_trip(home, host)
        home.run("logout", host)
        assert not (tmp_path / "bin/entry").exists()
        assert home.run("pull", f"{host}/team/small:1", check=False).returncode != 0
    verbs = (tmp_path / "bin/verbs").read_text().split()
    assert {"store", "get", "erase"} == set(verbs)


def test_tokens_over_tls_and_an_identity_token(home: Shiplap, certificates: Certificates, tmp_path: Path) -> None:
    with (
        TokenServer(tmp_path / "tokens") as tokens,
        docker_registry(tmp_path / "registry", certificates=certificates, tokens=tokens) as host,
    ):
        by_https(home, host, insecure=tokens.host)
        certificates.trust(containers(home) / "certs.d", host)
        home.run("login", "-u", USER, "--password-stdin", host, stdin=PASSWORD.encode())
        entry = json.loads((home.root.parent / ".docker/config.json").read_text())["auths"][host]
        # The token server gave an identity token: that is kept, and the password is not.
        assert entry["identitytoken"] in tokens.refresh and entry["auth"] == "dGVzdGVyOg=="
        tokens.asked.clear()
        round_trip(home, host)
        assert tokens.asked and all(asked["grant_type"] == ["refresh_token"] for asked in tokens.asked)
        tokens.refresh.clear()
        failed = home.run("pull", f"{host}/team/small:1", check=False)
        assert failed.returncode != 0 and f"shiplap login {host}" in failed.stderr


def opener_of(data: bytes) -> Callable[[int], BinaryIO]:
    return lambda offset: io.BytesIO(data[offset:])


def image_of(*layers: bytes) -> tuple[Manifest, bytes, list[OutgoingBlob]]:
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    named = [Descriptor(media_type=media_types.OCI_CONFIG, digest=digest_of(config), size=len(config))]
    named += [Descriptor(media_type=media_types.OCI_LAYER, digest=digest_of(data), size=len(data)) for data in layers]
    manifest = Manifest(schema_version=2, media_type=media_types.OCI_MANIFEST, config=named[0], layers=tuple(named[1:]))
    blobs = [OutgoingBlob(each, opener_of(data)) for each, data in zip(named, (config, *layers), strict=True)]
    return manifest, encode_manifest(manifest), blobs


def test_tokens_that_expire_again_and_again_while_an_image_moves(tmp_path: Path) -> None:
    layers = [os.urandom(300_000 + n) for n in range(6)]
    _, raw, blobs = image_of(*layers)
    with (
        TokenServer(tmp_path / "tokens", seconds=1) as tokens,
        docker_registry(tmp_path / "registry", tokens=tokens) as host,
        # Every third request or so is slow, or loses its connection in the middle.
        FaultProxy(host, seed=5, rate=0.4, kinds=("delay", "cut-answer", "cut-request")) as proxy,
    ):
        rules = (RegistryRule(tokens.host, tokens.host, insecure=True),)
        network = Network(rules=rules, credentials=lambda host, path: Credential(USER, PASSWORD))
        ref = parse_reference(f"{proxy.host}/team/app:1")
        with Registry(network, lambda fact: None) as client:
            push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs, parallel=2)
            time.sleep(2.5)  # now every token that the client holds has expired, at the registry too
            kept: dict[str, bytes] = {}

            def save(descriptor: Descriptor, chunks: Iterator[bytes]) -> None:
                parts = []
                for chunk in chunks:
                    parts.append(chunk)
                    time.sleep(0.4)
                kept[descriptor.digest] = b"".join(parts)

            fetched = fetch_image(client, ref, AMD64, lambda digest: False, save, parallel=1)
        assert fetched.manifest_raw == raw and list(kept.values()) == layers
        assert len(tokens.asked) >= 4 and not any(asked.keys() >= {"password"} for asked in tokens.asked)


def test_a_registry_that_forgets_a_token_early(tmp_path: Path) -> None:
    """The 401 that is seen in the middle of a transfer: docker-registry verifies, the client's clock says otherwise."""
    manifest, raw, blobs = image_of(os.urandom(50_000))
    with (
        TokenServer(tmp_path / "tokens", seconds=1) as tokens,
        docker_registry(tmp_path / "registry", tokens=tokens) as host,
    ):
        rules = (RegistryRule(tokens.host, tokens.host, insecure=True),)
        network = Network(rules=rules, credentials=lambda host, path: Credential(USER, PASSWORD))
        ref = parse_reference(f"{host}/team/app:1")
        with Registry(network, lambda fact: None) as client:
            push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
            authority = client._transport._authority
            for key, token in list(authority._headers.items()):
                authority._headers[key] = token._replace(expires=float("inf"))
            time.sleep(2.5)
            asked = len(tokens.asked)
            assert client.resolve(ref)[1] == raw
            assert b"".join(client.open_blob(ref, manifest.layers[0]))
            assert len(tokens.asked) > asked


def test_referrers_at_a_registry_without_their_api(real: Served) -> None:
    _, raw, blobs = image_of(b"layer")
    with Registry(real.network(), lambda fact: None) as client:
        ref = parse_reference(f"{real.host}/team/referred:1")
        pushed = push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
        attached = []
        for number in range(3):
            _, _, (config, *_) = image_of(b"statement")
            about = Manifest(
                schema_version=2,
                media_type=media_types.OCI_MANIFEST,
                artifact_type=f"application/vnd.example.{number % 2}",
                config=config.descriptor,
                subject=pushed,
                annotations={"number": str(number)},
            )
            text = encode_manifest(about)
            attached.append(push_referrer(client, ref, text, media_types.OCI_MANIFEST, [config]).digest)
        found = client.referrers(ref, pushed.digest)
        assert [entry.digest for entry in found] == attached
        assert [entry.digest for entry in client.referrers(ref, pushed.digest, "application/vnd.example.1")] == [
            attached[1]
        ]
        assert set(client.tags(ref)) == {"1", pushed.digest.replace(":", "-")}


def test_a_mirror_over_tls_that_fails_is_fallen_through(certificates: Certificates, tmp_path: Path) -> None:
    manifest, raw, blobs = image_of(os.urandom(200_000))
    with (
        docker_registry(tmp_path / "mirror", certificates=certificates) as mirror,
        docker_registry(tmp_path / "registry", certificates=certificates) as host,
        # One mirror is unreachable, one fails whatever it is asked, one has the image; the registry itself is gone.
        FaultProxy(host, rate=1.0, kinds=("500", "drop"), tls=certificates.server()) as broken,
    ):
        certs_d = tmp_path / "certs.d"
        for each in (mirror, host, broken.host):
            certificates.trust(certs_d, each)
        network = secured(host, mirror, broken.host, certs_d=certs_d)
        mirrors = (Mirror("127.0.0.1:9"), Mirror(broken.host, False), Mirror(mirror, False))
        rule = RegistryRule(host, "127.0.0.1:9", mirrors=mirrors)
        mirrored = network._replace(rules=(*network.rules[1:], rule))
        ref = parse_reference(f"{host}/team/app:1")
        kept: list[bytes] = []
        with Registry(network, lambda fact: None) as client:
            there = ref._replace(host=mirror)
            push_image(client, there, raw, media_types.OCI_MANIFEST, blobs)
        with Registry(mirrored, lambda fact: None, timing=Timing(backoff=0.01)) as client:
            fetched = fetch_image(client, ref, AMD64, lambda digest: False, lambda _, c: kept.append(b"".join(c)))
        assert fetched.manifest_raw == raw and digest_of(kept[0]) == manifest.layers[0].digest


def test_a_cache_of_another_make_serves_whole_images_or_none(tmp_path: Path) -> None:
    """drayage does not know ranges (it answers 200 with all of a blob), so a resumption has to skip what is there."""
    layers = [os.urandom(3_000_000), os.urandom(1_500_000), b"small"]
    _, raw, blobs = image_of(*layers)
    with (
        docker_registry(tmp_path / "registry") as host,
        drayage(tmp_path / "cache", host) as cache,
        FaultProxy(cache, seed=2, rate=0.5, kinds=("cut-answer", "end-answer", "shorten", "503-early")) as proxy,
        Registry(Network(), lambda fact: None, timing=Timing(backoff=0.01)) as client,
    ):
        push_image(client, parse_reference(f"{host}/team/app:1"), raw, media_types.OCI_MANIFEST, blobs)
        kept: dict[str, bytes] = {}

        def save(descriptor: Descriptor, chunks: Iterator[bytes]) -> None:
            kept[descriptor.digest] = b"".join(chunks)

        ref = parse_reference(f"{proxy.host}/team/app:1")
        for _ in range(5):
            kept.clear()
            fetched = fetch_image(client, ref, AMD64, lambda digest: False, save)
            assert fetched.manifest_raw == raw and kept == {digest_of(layer): layer for layer in layers}
        assert {"cut-answer", "end-answer", "shorten"} <= set(proxy.met)
        # It has no referrers API either, and no list under a tag: none, and no error.
        assert client.referrers(parse_reference(f"{cache}/team/app:1"), fetched.manifest_descriptor.digest) == ()
        with pytest.raises(RegistryError) as caught:
            client.resolve(parse_reference(f"{cache}/team/app:missing"))
        assert caught.value.status == 404 and caught.value.hint


def _tokens_from(host: str) -> Network:
    """``USER``'s network, in which ``host`` may give tokens by plain http to whoever stands before it."""
    return Network(
        (RegistryRule(host, host, insecure=True),), credentials=lambda host, path: Credential(USER, PASSWORD)
    )


@pytest.mark.parametrize("longest", [9 << 20, 1 << 20], ids=["9M", "1M"])
@pytest.mark.parametrize("serve", [docker_registry, zuul_registry])
def test_a_proxy_that_takes_small_requests_only(
    serve: Callable[[Path], AbstractContextManager[str]], longest: int, tmp_path: Path
) -> None:
    data = os.urandom(12 << 20)
    manifest, raw, blobs = image_of(data)
    with (
        serve(tmp_path / "registry") as host,
        FaultProxy(host, rate=0.0, longest=longest) as proxy,
        Registry(_tokens_from(host), lambda fact: None) as client,
    ):
        ref = parse_reference(f"{proxy.host}/team/app:1")
        push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
        assert b"".join(client.open_blob(ref, manifest.layers[0])) == data
        assert proxy.passed["PATCH"] >= 2
        proxy.longest = 1000
        _, raw, blobs = image_of(os.urandom(1 << 20))
        with pytest.raises(RegistryError) as caught:
            push_image(client, ref, raw, media_types.OCI_MANIFEST, blobs)
        assert caught.value.code == "request-too-large" and caught.value.hint


def test_check_login_with_tokens(tmp_path: Path) -> None:
    with (
        TokenServer(tmp_path / "tokens") as tokens,
        docker_registry(tmp_path / "registry", tokens=tokens) as host,
    ):
        network = Network(rules=(RegistryRule(tokens.host, tokens.host, insecure=True),))
        kept = check_login(network, host, USER, PASSWORD)
        assert kept.identity_token in tokens.refresh and not kept.password
        with pytest.raises(RegistryError) as caught:
            check_login(network, host, USER, "wrong-password")
        assert caught.value.code == "login-refused"
