"""Dockerfiles that ask for too much end soon, with an error that has a code."""

from __future__ import annotations

import time

import pytest

from shiplap.dockerfile.lower import lower
from shiplap.dockerfile.options import LowerOptions, Plan, ResolvedImage
from shiplap.dockerfile.parse import parse
from shiplap.errors import DockerfileError
from shiplap.oci.config import empty_config
from shiplap.oci.digest import digest_of
from shiplap.oci.platform import Platform
from shiplap.oci.reference import Reference

FROM = b"FROM a\n"


class Images:
    def resolve(self, reference: Reference, platform: Platform) -> ResolvedImage:
        return ResolvedImage(reference, digest_of(b""), empty_config(platform))


def build(data: bytes) -> Plan:
    return lower(parse(data, "Dockerfile"), LowerOptions(), Images())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (FROM + b"ARG A=x\n" + b"ARG A=$A$A\n" * 40, "expansion-too-large"),
        (b"ARG A=x\n" + b"ARG A=${A}${A}\n" * 40 + FROM, "expansion-too-large"),
        (FROM + b"ENV A=x\n" + b"ENV A=$A$A\n" * 19 + b"RUN true\n" * 500, "expansion-too-large"),
        (FROM + b"#" * (17 << 20), "dockerfile-too-large"),
        (FROM + b"RUN true\n" * 30_000, "dockerfile-too-large"),
        (FROM + b"\n" * 600_000, "dockerfile-too-large"),
        (FROM + b"RUN " + b"x" * (8 << 20), "line-too-long"),
        (FROM + b"EXPOSE " + b"0-65535 " * 8000, "too-many-ports"),
        (FROM + b"ENV A=" + b"${x:-" * 10_000 + b"}" * 10_000, "expansion-too-deep"),
        (FROM + b"ONBUILD " * 8000 + b"RUN x", "invalid-trigger"),
        (FROM + b"ENV V=" + b"a" * 60_000 + b"\nENV W=${V##" + b"*a" * 20_000 + b"b}\n", "expansion-too-large"),
        (
            b"".join(b"FROM scratch AS s%d\nCOPY --from=s%d /a /a\n" % (n, (n + 1) % 3000) for n in range(3000)),
            "circular-dependency",
        ),
    ],
    ids=[
        *("arg-doubling", "global-doubling", "long-env-many-runs", "17-mib", "many-instructions", "many-lines"),
        *("long-line", "ports", "nested", "onbuild", "glob", "cycle"),
    ],
)
def test_too_much_is_an_error(data: bytes, code: str) -> None:
    started = time.perf_counter()
    with pytest.raises(DockerfileError) as caught:
        build(data)
    assert caught.value.code == code
    assert len(caught.value.message) < 6000
    assert time.perf_counter() - started < 5


def test_many_stages_are_fine() -> None:
    plan = build(b"FROM a AS s0\n" + b"".join(b"FROM s%d AS s%d\nRUN x\n" % (n, n + 1) for n in range(1000)))
    assert len(plan.config.history or ()) == 1000
    assert len(plan.stages) == 1001
