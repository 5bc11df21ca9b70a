from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shiplap.errors import UsageError
from shiplap.settings import Proxies, load


def test_an_empty_environment(tmp_path: Path) -> None:
    found = load({}, home=str(tmp_path), etc="/nowhere")
    assert found.root == f"{tmp_path}/.local/share/shiplap"
    assert found.docker_config_dir == f"{tmp_path}/.docker"
    assert found.auth_files == (f"{tmp_path}/.config/containers/auth.json", f"{tmp_path}/.docker/config.json")
    assert found.login_file == f"{tmp_path}/.docker/config.json"
    assert (found.progress, found.color, found.temporary) == ("auto", True, "/tmp")
    assert (found.docker_buildkit, found.source_date_epoch, found.default_platform) == (None, None, "")
    assert found.network().rules == () and found.network().credentials("docker.io", "x") is None
    assert found.build_proxies() == {}


@pytest.mark.parametrize(
    ("environ", "root", "expected"),
    [
        ({"SHIPLAP_ROOT": "/b", "XDG_DATA_HOME": "/c"}, "/a", "/a"),
        ({"SHIPLAP_ROOT": "/b", "XDG_DATA_HOME": "/c"}, None, "/b"),
        ({"XDG_DATA_HOME": "/c"}, None, "/c/shiplap"),
        ({"SHIPLAP_ROOT": "", "XDG_DATA_HOME": "", "HOME": "/h"}, None, "/h/.local/share/shiplap"),
    ],
)
def test_where_the_store_is(environ: dict[str, str], root: str | None, expected: str) -> None:
    assert load(environ, root=root).root == expected


def test_a_relative_root_is_made_absolute() -> None:
    assert load({"HOME": "/h"}, root="here").root == os.path.join(os.getcwd(), "here")


def test_no_home_at_all() -> None:
    assert os.path.isabs(load({}).root)


def test_what_the_environment_can_say(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": "/run/user/7",
        "XDG_CONFIG_HOME": "/xdg",
        "DOCKER_CONFIG": "/dc",
        "BUILDKIT_PROGRESS": "plain",
        "NO_COLOR": "1",
        "DOCKER_BUILDKIT": "0",
        "DOCKER_DEFAULT_PLATFORM": "linux/arm64",
        "SOURCE_DATE_EPOCH": "1700000000",
        "TMPDIR": "/scratch",
        "https_proxy": "http://low:1",
        "HTTPS_PROXY": "http://up:1",
        "HTTP_PROXY": "http://up:2",
        "NO_PROXY": "a.b",
    }
    found = load(environ)
    assert found.auth_files == ("/run/user/7/containers/auth.json", "/xdg/containers/auth.json", "/dc/config.json")
    assert (found.progress, found.color, found.docker_buildkit) == ("plain", False, False)
    assert (found.default_platform, found.source_date_epoch, found.temporary) == ("linux/arm64", 1700000000, "/scratch")
    assert found.proxies == Proxies("http://up:2", "http://low:1", "a.b", "")
    assert load({**environ, "REGISTRY_AUTH_FILE": "/only"}).auth_files == ("/only",)
    assert load({**environ, "REGISTRY_AUTH_FILE": "/only"}).login_file == "/only"
    assert load({**environ, "NO_COLOR": ""}).color
    assert load({**environ, "REQUEST_METHOD": "GET"}).proxies.http == ""


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("BUILDKIT_PROGRESS", "fancy", "invalid-progress"),
        ("DOCKER_BUILDKIT", "yes", "invalid-boolean"),
        ("SOURCE_DATE_EPOCH", "yesterday", "invalid-epoch"),
        ("SOURCE_DATE_EPOCH", "1.5", "invalid-epoch"),
        ("SOURCE_DATE_EPOCH", "²", "invalid-epoch"),
        ("SOURCE_DATE_EPOCH", "9" * 40, "invalid-epoch"),
    ],
)
def test_values_that_make_no_sense(name: str, value: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        load({"HOME": "/h", name: value})
    assert caught.value.code == code and name in str(caught.value) and caught.value.hint


def test_terminal_agent_and_logs() -> None:
    set_ = load(
        {
            "HOME": "/h",
            "TERM": "xterm",
            "SSH_AUTH_SOCK": "/agent",
            "SHIPLAP_TRACEBACK": "1",
            "SHIPLAP_LOG_BUILDS": "7",
            "SHIPLAP_LOG_SIZE": "3MiB",
            "BUILDKIT_STEP_LOG_MAX_SIZE": "-1",
        }
    )
    assert (set_.terminal, set_.ssh_agent, set_.traceback) == ("xterm", "/agent", True)
    assert (set_.log_builds, set_.log_size, set_.output_clip) == (7, 3 << 20, -1)
    assert set_.logs == "/h/.local/share/shiplap/logs"
    unset = load({"HOME": "/h", "BUILDKIT_STEP_LOG_MAX_SIZE": "much"})
    assert (unset.terminal, unset.ssh_agent, unset.traceback) == ("", "", False)
    assert (unset.log_builds, unset.log_size, unset.output_clip) == (100, 256 << 20, 2 << 20)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHIPLAP_LOG_BUILDS", "-1"),
        ("SHIPLAP_LOG_BUILDS", "many"),
        ("SHIPLAP_LOG_SIZE", "1t"),
        ("SHIPLAP_LOG_SIZE", "m"),
    ],
)
def test_bounds_of_logs_that_make_no_sense(name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        load({"HOME": "/h", name: value})
    assert caught.value.code == "invalid-number"


def test_build_proxies_come_from_dockers_file(tmp_path: Path) -> None:
    section = {"httpProxy": "http://p:1", "noProxy": "a", "ftpProxy": "", "other": "x", "allProxy": 7}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": section, "tcp://h": {"httpProxy": "q"}}}))
    found = load({"HOME": "/h", "DOCKER_CONFIG": str(tmp_path)})
    expected = {"HTTP_PROXY": "http://p:1", "http_proxy": "http://p:1", "NO_PROXY": "a", "no_proxy": "a"}
    assert found.build_proxies() == expected
    assert found.build_proxies("tcp://h") == {"HTTP_PROXY": "q", "http_proxy": "q"}


@pytest.mark.parametrize(
    ("none_for", "host", "port", "proxied"),
    [
        ("", "registry.io", 443, True),
        ("registry.io", "registry.io", 443, False),
        ("registry.io", "sub.registry.io", 443, False),
        (".registry.io", "sub.registry.io", 443, False),
        ("*.registry.io", "sub.registry.io", 443, False),
        ("registry.io", "otherregistry.io", 443, True),
        ("REGISTRY.io", "Registry.IO", 443, False),
        ("registry.io:5000", "registry.io", 443, True),
        ("registry.io:5000", "registry.io", 5000, False),
        ("a, b ,registry.io", "registry.io", 443, False),
        ("*", "registry.io", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, False),
        ("10.0.0.0/8", "11.1.2.3", 443, True),
        ("10.1.2.3", "10.1.2.3", 443, False),
        ("fd00::/8", "[fd00::1]", 443, False),
        ("junk/99", "10.1.2.3", 443, True),
        ("", "localhost", 80, False),
        ("", "127.0.0.1", 80, False),
        ("", "[::1]", 80, False),
    ],
)
def test_who_is_asked_directly(none_for: str, host: str, port: int, proxied: bool) -> None:
    proxies = Proxies("http://h", "http://s", none_for)
    assert proxies.proxy_for("https", host, port) == ("http://s" if proxied else "")


def test_which_proxy_is_asked() -> None:
    assert Proxies(http="h:1").proxy_for("http", "x.io", 80) == "http://h:1"
    assert Proxies(http="h:1").proxy_for("https", "x.io", 443) == ""
    assert Proxies(all="https://a").proxy_for("https", "x.io", 443) == "https://a"


def test_settings_never_show_a_password() -> None:
    found = load({"HOME": "/h", "HTTPS_PROXY": "http://user:canary@proxy:1"})
    assert "canary" not in repr(found) + str(found) + f"{found.proxies}"


def test_importing_settings_is_cheap() -> None:
    program = "import sys; before = set(sys.modules); import shiplap.settings as s; s.load({'HOME': '/h'})"
    program += "; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"json", "tomllib", "subprocess", "dataclasses", "base64", "ipaddress", "msgspec", "urllib3", "pathlib"}
    heavy |= {"shiplap.settings.network", "shiplap.settings.credentials"}
    assert "shiplap.settings.environment" in loaded and not loaded & heavy
