"""Image configs: what is read, what is written, and that the two agree with Go."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shiplap.errors import ImageError
from shiplap.oci.config import CONFIG_LIMIT, ContainerConfig, ImageConfig, empty_config, encode_config, parse_config
from shiplap.oci.platform import parse_platform

SHA = "sha256:" + "a" * 64

WHOLE = (
    '{"architecture":"arm","author":"me","config":{"User":"1000:1000","ExposedPorts":{"443/tcp":{},"80/tcp":{}},'
    '"Env":["PATH=/bin","A=\\u003cx\\u003e \\u0026 y\\u2028"],"Entrypoint":["/e"],"Cmd":["c"],'
    '"Volumes":{"/v":{}},'
    '"WorkingDir":"/w","Labels":{"a":"1","b":"é\\u2029"},"StopSignal":"SIGINT","ArgsEscaped":true,'
    '"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000,"Timeout":2,'
    '"StartPeriod":3,"StartInterval":4,"Retries":5},'
    '"OnBuild":["RUN true"],"Shell":["/bin/sh","-c"]},"created":"2024-05-06T07:08:09.123456789Z",'
    '"history":[{"created":"2024-05-06T07:08:09Z","created_by":"RUN a \\u0026\\u0026 b",'
    '"author":"x","comment":"buildkit.dockerfile.v0"},'
    '{"created_by":"ENV x","empty_layer":true}],"os":"linux","os.features":["f"],"os.version":"1.2",'
    f'"rootfs":{{"type":"layers","diff_ids":["{SHA}"]}},"variant":"v7"}}'
)


def test_a_whole_config_comes_back_byte_for_byte() -> None:
    config = parse_config(WHOLE.encode())
    assert encode_config(config).decode() == WHOLE
    assert str(config.platform) == "linux/arm/v7" and config.platform.os_version == "1.2"
    assert config.diff_ids == (SHA,)
    assert config.config.env == ("PATH=/bin", "A=<x> & y\u2028")
    assert config.config.healthcheck is not None and config.config.healthcheck.start_interval == 4


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"config": None, "rootfs": None, "history": None},
        {"config": {"Env": None, "Labels": None, "Volumes": None, "Healthcheck": None}},
        {"rootfs": {"type": "layers", "diff_ids": None}},
        {"history": []},
        {"unknown": {"deep": [1, None]}, "config": {"Unknown": 1, "Memory": 0}},
    ],
)
def test_what_is_missing_or_null_is_empty(fields: dict[str, Any]) -> None:
    config = parse_config(json.dumps(fields).encode())
    assert config.diff_ids == () and config.config.env is None and config.config.volumes is None
    assert not config.history
    assert encode_config(parse_config(encode_config(config))) == encode_config(config)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b'{"architecture": 7}',
        b'{"config": []}',
        b'{"config": {"Env": "A=1"}}',
        b'{"config": {"Env": [1]}}',
        b'{"config": {"Labels": {"a": 1}}}',
        b'{"config": {"ExposedPorts": ["80"]}}',
        b'{"history": {}}',
        b'{"history": ["x"]}',
        b'{"rootfs": {"type": "layers", "diff_ids": "x"}}',
        b'{"rootfs": {"type": "layers", "diff_ids": ["sha256:../../x"]}}',
        b'{"rootfs": {"diff_ids": [""]}}',
        b" " * (CONFIG_LIMIT + 1),
    ],
)
def test_refused(raw: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        parse_config(raw)
    assert len(str(caught.value)) < 1000


def test_env_items_without_a_value_are_data() -> None:
    # They must never be filled from our own environment (CVE-2026-57231): they are kept as they stand.
    config = parse_config(b'{"config": {"Env": ["HOME", "AWS_SECRET_ACCESS_KEY"]}}')
    assert config.config.env == ("HOME", "AWS_SECRET_ACCESS_KEY")
    assert json.loads(encode_config(config))["config"]["Env"] == ["HOME", "AWS_SECRET_ACCESS_KEY"]


def test_text_that_is_no_utf8_is_written_as_go_writes_it() -> None:
    raw = encode_config(ImageConfig(config=ContainerConfig(labels={"a": b"\xff<".decode("utf-8", "surrogateescape")})))
    assert b'"Labels":{"a":"\\ufffd\\u003c"}' in raw
    assert parse_config(raw).config.labels == {"a": "\ufffd<"}


def test_scratch() -> None:
    config = empty_config(parse_platform("linux/arm/v6"))
    assert json.loads(encode_config(config)) == {
        "architecture": "arm",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/"},
        "created": None,
        "history": None,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": None},
        "variant": "v6",
    }


def test_keys_are_sorted_whatever_order_they_came_in() -> None:
    config = ImageConfig(config=ContainerConfig(labels={"b": "2", "a": "1"}, exposed_ports={"9/tcp": {}, "10/tcp": {}}))
    assert b'"ExposedPorts":{"10/tcp":{},"9/tcp":{}}' in encode_config(config)
    assert b'"Labels":{"a":"1","b":"2"}' in encode_config(config)
