"""Hundreds of pushes and pulls through a proxy that resets, truncates, flips and refuses, before real registries of two makes.

Each ends in the right image, or in an error that says what is the matter; never in a wrong blob, nor a file left behind.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

import pytest

from faults import KINDS, FaultProxy
from kit import SOAK
from registries import PASSWORD, USER, TokenServer, docker_registry, zuul_registry
from shiplap.errors import ShiplapError
from shiplap.oci import media_types
from shiplap.oci.digest import digest_of
from shiplap.oci.manifest import Descriptor, Manifest, encode_manifest
from shiplap.oci.platform import parse_platform
from shiplap.oci.reference import Reference, parse_reference
from shiplap.registry.client import Registry
from shiplap.registry.connection import Timing
from shiplap.registry.pull import fetch_image
from shiplap.registry.push import OutgoingBlob, push_image
from shiplap.settings import Credential, Network, RegistryRule
from shiplap.store.store import Store

AMD64 = parse_platform("linux/amd64")
QUICK = Timing(backoff=0.002, longest_backoff=0.01, connect=5.0, read=10.0, patience=30.0)
ROUNDS = 4000 if SOAK else 90
SIZES = (1, 700, 40_000, 300_000, 1_600_000)


class Image:
    """A small image of a few layers, of which some are those of others."""

    def __init__(self, random: Random) -> None:
        self.layers = [random.randbytes(random.choice(SIZES)) for _ in range(random.randint(1, 4))]
        rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in self.layers]}
        self.config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        self.manifest = Manifest(
            schema_version=2,
            media_type=media_types.OCI_MANIFEST,
            config=_descriptor(self.config, media_types.OCI_CONFIG),
            layers=tuple(_descriptor(layer, media_types.OCI_LAYER) for layer in self.layers),
        )
        self.raw = encode_manifest(self.manifest)
        self.content = {digest_of(data): data for data in (self.config, *self.layers)}

    def blobs(self) -> list[OutgoingBlob]:
        named = (self.manifest.config, *self.manifest.layers)
        return [OutgoingBlob(each, _opener(self.content[each.digest])) for each in named]


def _descriptor(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))


def _opener(data: bytes) -> Callable[[int], BinaryIO]:
    return lambda offset: io.BytesIO(data[offset:])


def _clear(error: ShiplapError) -> None:
    """An error that a person can act on: a code, words, and what to try."""
    assert error.code and str(error) and error.hint, repr(error)
    assert PASSWORD not in error.render() and "Traceback" not in error.render()


class Before(NamedTuple):
    """A registry behind tokens: where it is, and where they come from."""

    direct: str
    realm: str

    def network(self) -> Network:
        host = urlsplit(self.realm).netloc
        rules = (RegistryRule(host, host, insecure=True),)
        return Network(rules=rules, credentials=lambda host, path: Credential(USER, PASSWORD))


@contextlib.contextmanager
def _docker(folder: Path) -> Iterator[Before]:
    with TokenServer(folder / "tokens") as tokens, docker_registry(folder / "registry", tokens=tokens) as direct:
        yield Before(direct, tokens.url)


@contextlib.contextmanager
def _zuul(folder: Path) -> Iterator[Before]:
    with zuul_registry(folder / "registry") as direct:
        yield Before(direct, f"http://{direct}/auth/token")


Make = Callable[[Path], AbstractContextManager[Before]]


def _work(number: int, rounds: int, rate: float, before: Before, folder: Path) -> Counter[str]:
    challenge = f'Bearer realm="{before.realm}",service="test",error="invalid_token"'
    direct = before.direct
    counted: Counter[str] = Counter()
    with (
        FaultProxy(direct, seed=number, rate=rate, challenge=challenge) as proxy,
        Store(folder / f"store{number}") as store,
        store.in_use(),
    ):
        network = before.network()
        with Registry(network, lambda fact: None) as witness:
            for round in range(rounds):
                image = Image(Random(f"{number} {round}"))
                name = f"w{number}/r{round % 7}:t{round}"
                near, behind = parse_reference(f"{proxy.host}/{name}"), parse_reference(f"{direct}/{name}")
                with Registry(network, lambda fact: None, timing=QUICK) as client:
                    counted[_push(client, witness, near, behind, image)] += 1
                    counted[_pull(client, store, near, image)] += 1
                left = list(store.blobs.temporary.iterdir())
                assert not [path for path in left if "-blob-" in path.name], left
        counted.update({f"met {kind}": times for kind, times in proxy.met.items()})
    return counted


def _push(client: Registry, witness: Registry, near: Reference, behind: Reference, image: Image) -> str:
    try:
        push_image(client, near, image.raw, media_types.OCI_MANIFEST, image.blobs())
    except ShiplapError as error:
        _clear(error)
        # What follows reads the image, so it has to be there whole.
        push_image(witness, behind, image.raw, media_types.OCI_MANIFEST, image.blobs())
        return f"push failed: {error.code}"
    assert witness.resolve(behind)[1] == image.raw
    for each in (image.manifest.config, *image.manifest.layers):
        assert b"".join(witness.open_blob(behind, each)) == image.content[each.digest]
    return "pushed"


def _pull(client: Registry, store: Store, near: Reference, image: Image) -> str:
    def save(descriptor: Descriptor, chunks: Iterator[bytes]) -> None:
        store.blobs.keep(descriptor.digest, descriptor.size, chunks)

    try:
        fetched = fetch_image(client, near, AMD64, lambda digest: False, save)
    except ShiplapError as error:
        _clear(error)
        for digest, data in image.content.items():
            assert store.blobs.known(digest) in (None, data)
        return f"pull failed: {error.code}"
    assert fetched.manifest_raw == image.raw and fetched.config_raw == image.config
    for layer in image.manifest.layers:
        assert store.blobs.read(layer.digest) == image.content[layer.digest]
    return "pulled"


@pytest.mark.parametrize("rate", [0.08, 0.4], ids=["some", "many"])
@pytest.mark.parametrize("make", [_docker, _zuul], ids=["docker-registry", "zuul-registry"])
def test_every_transfer_ends_in_the_right_image_or_a_clear_error(make: Make, rate: float, tmp_path: Path) -> None:
    rounds = ROUNDS // 3 if make is _docker or SOAK else ROUNDS // 6
    with make(tmp_path) as before, ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda n: _work(n, rounds, rate, before, tmp_path), range(3)))
    counted: Counter[str] = sum(parts, Counter())
    ended = sum(times for what, times in counted.items() if not what.startswith("met "))
    assert ended == rounds * 3 * 2
    assert {what.removeprefix("met ") for what in counted if what.startswith("met ")} == set(KINDS)
    # What one try mends has to be mended: few failures where faults are few.
    if rate < 0.1:
        assert counted["pushed"] + counted["pulled"] >= 0.9 * ended, counted
