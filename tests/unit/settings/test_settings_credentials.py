"""Credentials: where they are found, how they are kept, and that no message shows them."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from shiplap.errors import RegistryError, ShiplapError, UsageError
from shiplap.settings import Credential, load
from shiplap.settings.credentials import AuthFiles, erase_login, registry_name, store_login

CANARY = "canary-of-a-password"


def auth(name: str, password: str = CANARY) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


def files_of(tmp_path: Path, *documents: Any, helpers: Path | None = None) -> AuthFiles:
    paths = []
    for number, document in enumerate(documents):
        path = tmp_path / f"auth{number}.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        paths.append(str(path))
    return AuthFiles(tuple(paths), str(helpers or tmp_path))


@pytest.fixture
def helpers(tmp_path: Path) -> Path:
    """``docker-credential-good`` keeps files in its folder, ``-bad`` fails aloud, ``-odd`` answers nonsense."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "good": f"""
        read -r server || true; key=$(printf %s "$server" | tr -c 'a-zA-Z0-9\\n' _)
        echo "$# $1 $server" >> {folder}/log
        case $1 in
          get) if [ -f {folder}/k_$key ]; then cat {folder}/k_$key
               else echo "credentials not found in native keychain"; exit 1; fi;;
          store) printf %s "$server" > {folder}/stored;;
          erase) rm {folder}/k_$key;;
        esac""",
        "bad": f"echo 'boom {CANARY}'; echo '{CANARY}' >&2; exit 3",
        "odd": f'echo \'{{"Username": "{CANARY}"\'',
    }
    for name, body in scripts.items():
        path = folder / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
        path.chmod(0o755)
    return folder


def keep(helpers: Path, server: str, username: str, secret: str) -> None:
    key = "".join(letter if letter.isalnum() else "_" for letter in server)
    (helpers / f"k_{key}").write_text(json.dumps({"ServerURL": server, "Username": username, "Secret": secret}))


@pytest.mark.parametrize(
    ("key", "host", "path", "found"),
    [
        ("registry.io", "registry.io", "a/b", True),
        ("https://registry.io", "registry.io", "a/b", True),
        ("https://registry.io/v2/", "registry.io", "a/b", True),
        ("registry.io:5000", "registry.io:5000", "a", True),
        ("registry.io:5000", "registry.io", "a", False),
        ("registry.io/a", "registry.io", "a/b", True),
        ("registry.io/a/b", "registry.io", "a/b", True),
        ("registry.io/a/b/c", "registry.io", "a/b", False),
        ("registry.io/x", "registry.io", "a/b", False),
        ("https://index.docker.io/v1/", "docker.io", "library/busybox", True),
        ("docker.io", "docker.io", "library/busybox", True),
        ("registry-1.docker.io", "docker.io", "library/busybox", True),
        ("docker.io", "evildocker.io", "x", False),
    ],
)
def test_which_entry_is_meant(tmp_path: Path, key: str, host: str, path: str, found: bool) -> None:
    files = files_of(tmp_path, {"auths": {key: auth("me")}})
    assert files.find(host, path) == (Credential("me", CANARY) if found else None)


def test_the_longest_name_wins_and_files_in_their_order(tmp_path: Path) -> None:
    first = {"auths": {"r.io": auth("host"), "r.io/a": auth("team"), "r.io/a/b": auth("repository"), "other.io": {}}}
    files = files_of(tmp_path, first, {"auths": {"r.io": auth("later"), "other.io": auth("later")}})
    names = [files.find("r.io", path).username for path in ("a/b", "a/c", "z", "a/b/c")]  # type: ignore[union-attr]
    assert names == ["repository", "team", "host", "repository"]
    assert files.find("other.io", "x") == Credential("later", CANARY)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("me", "with:colon"), Credential("me", "with:colon")),
        (auth("me", "padded\0\0\0"), Credential("me", "padded")),
        (auth("me", ""), Credential("me", "")),
        ({"username": "me", "password": "plain"}, Credential("me", "plain")),
        ({"identitytoken": "idt"}, Credential(identity_token="idt")),
        ({**auth("<token>", ""), "identitytoken": "idt"}, Credential("<token>", "", "idt")),
        ({"registrytoken": "rt"}, Credential(registry_token="rt")),
        ({}, None),
        ({"auth": "", "email": "x"}, None),
    ],
)
def test_what_an_entry_may_hold(tmp_path: Path, entry: dict[str, str], expected: Credential | None) -> None:
    assert files_of(tmp_path, {"auths": {"r.io": entry}}).find("r.io", "x") == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"auths":\n{"r.io": {"auth": "' + CANARY + '"\n]', 3),
        ("[]", 1),
        ('"' + CANARY + '"', 1),
        ('{"auths": ["' + CANARY + '"]}', None),
        ('{"auths": {"r.io": "' + CANARY + '"}}', None),
        ('{"auths": {"r.io": {"auth": "%%' + CANARY + '"}}}', None),
        ('{"auths": {"r.io": {"auth": "' + base64.b64encode(CANARY.encode()).decode() + '"}}}', None),
        ('{"auths": {"r.io": {"auth": ["' + CANARY + '"]}}}', None),
        ('{"credsStore": 7}', None),
        ('{"credsStore": "../../' + CANARY + '"}', None),
        ('{"credHelpers": {"r.io": "/bin/' + CANARY + '"}}', None),
        ("[" * 100_000, None),
        (" " * (1 << 20) + "{}", None),
    ],
)
def test_broken_files_are_named_but_not_quoted(tmp_path: Path, text: str, line: int | None) -> None:
    files = files_of(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        files.find("r.io", "x")
    place = caught.value.where
    assert place is not None and place.file == files.files[0] and caught.value.hint
    assert line is None or place.line == line
    assert (
        CANARY not in caught.value.render() and base64.b64encode(CANARY.encode()).decode() not in caught.value.render()
    )


@pytest.mark.parametrize("document", ["", "{}", '{"auths": null}', '{"auths": {}, "credHelpers": {"other.io": "bad"}}'])
def test_files_that_know_nothing(tmp_path: Path, document: str) -> None:
    assert files_of(tmp_path, document).find("r.io", "x") is None


def test_a_helper_gets_the_name_on_its_standard_input(tmp_path: Path, helpers: Path) -> None:
    keep(helpers, "r.io", "me", CANARY)
    keep(helpers, "https://index.docker.io/v1/", "<token>", CANARY)
    files = files_of(tmp_path, {"credsStore": "good", "auths": {"r.io": {}}}, helpers=helpers)
    assert files.find("r.io", "a") == Credential("me", CANARY)
    assert files.find("docker.io", "library/a") == Credential(identity_token=CANARY)
    assert files.find("unknown.io", "a") is None
    log = (helpers / "log").read_text().splitlines()
    assert log == ["1 get r.io", "1 get https://index.docker.io/v1/", "1 get unknown.io"]


def test_a_registrys_own_helper_comes_first(tmp_path: Path, helpers: Path) -> None:
    keep(helpers, "r.io", "me", CANARY)
    document = {"credsStore": "bad", "credHelpers": {"r.io": "good"}, "auths": {"r.io": auth("stale")}}
    files = files_of(tmp_path, document, helpers=helpers)
    assert files.find("r.io", "a") == Credential("me", CANARY)
    with pytest.raises(RegistryError):
        files.find("other.io", "a")


@pytest.mark.parametrize("helper", ["bad", "odd", "absent"])
def test_a_failing_helper_is_never_passed_over(tmp_path: Path, helpers: Path, helper: str) -> None:
    document = {"credsStore": helper, "auths": {"r.io": auth("fallback")}}
    files = files_of(tmp_path, document, {"auths": {"r.io": auth("fallback")}}, helpers=helpers)
    with pytest.raises(RegistryError) as caught:
        files.find("r.io", "a")
    assert caught.value.code == "credential-helper" and f"docker-credential-{helper}" in str(caught.value)
    assert CANARY not in caught.value.render()


def test_a_login_is_kept_with_everything_else_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config.json"
    store_login(str(path), "r.io", Credential("me", CANARY), "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "psFormat": "x", "detachKeys": "ctrl-é"}))
    store_login(str(path), "docker.io", Credential("hub", CANARY), "")
    store_login(str(path), "docker.io", Credential("hub2", CANARY), "")
    document = json.loads(path.read_text())
    assert document["psFormat"] == "x" and document["detachKeys"] == "ctrl-é"
    assert set(document["auths"]) == {"r.io", "https://index.docker.io/v1/"}
    files = AuthFiles((str(path),), "")
    assert files.find("r.io", "a") == Credential("me", CANARY)
    assert files.find("docker.io", "a") == Credential("hub2", CANARY)
    assert sorted(os.listdir(path.parent)) == ["config.json"]


def test_a_login_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "config.json").symlink_to("real.json")
    store_login(str(tmp_path / "config.json"), "r.io", Credential("me", CANARY), "")
    assert (tmp_path / "config.json").is_symlink()
    assert "r.io" in (tmp_path / "real.json").read_text()


def test_a_login_goes_to_the_helper_if_there_is_one(tmp_path: Path, helpers: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"credsStore": "good"}')
    store_login(str(path), "r.io", Credential("me", CANARY), str(helpers))
    assert CANARY not in path.read_text() and json.loads(path.read_text())["auths"] == {"r.io": {}}
    stored = json.loads((helpers / "stored").read_text())
    assert stored == {"ServerURL": "r.io", "Username": "me", "Secret": CANARY}


def test_a_logout(tmp_path: Path, helpers: Path) -> None:
    path = tmp_path / "config.json"
    assert erase_login(str(path), "r.io", "") is False
    store_login(str(path), "r.io", Credential("me", CANARY), "")
    store_login(str(path), "other.io", Credential("me", CANARY), "")
    assert erase_login(str(path), "r.io", "") is True
    assert erase_login(str(path), "r.io", "") is False
    assert set(json.loads(path.read_text())["auths"]) == {"other.io"}
    keep(helpers, "kept.io", "me", CANARY)
    path.write_text('{"credsStore": "good"}')
    assert erase_login(str(path), "kept.io", str(helpers)) is True
    assert AuthFiles((str(path),), str(helpers)).find("kept.io", "a") is None


def test_a_login_never_overwrites_a_file_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{broken")
    with pytest.raises(UsageError):
        store_login(str(path), "r.io", Credential("me", CANARY), "")
    assert path.read_text() == "{broken"


def test_settings_keep_and_forget_a_login(tmp_path: Path) -> None:
    settings = load({"HOME": str(tmp_path)}, etc="/nowhere")
    settings.store_login("r.io", Credential("me", CANARY))
    assert settings.network().credentials("r.io", "x") == Credential("me", CANARY)
    assert settings.erase_login("r.io") and not settings.erase_login("r.io")
    assert settings.network().credentials("r.io", "x") is None


def test_a_login_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShiplapError) as caught:
        store_login(str(tmp_path / "file" / "config.json"), "r.io", Credential("me", CANARY), "")
    assert caught.value.code == "auth-file" and CANARY not in caught.value.render()


def test_credentials_do_not_show_themselves(tmp_path: Path) -> None:
    credential = Credential("me", CANARY, CANARY, CANARY)
    assert CANARY not in repr(credential) + str(credential) + f"{credential}" + str([credential])
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"r.io": auth("me")}}))
    settings = load({"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(path)}, etc="/nowhere")
    network = settings.network()
    assert network.credentials("r.io", "x") == Credential("me", CANARY)
    assert CANARY not in repr(settings) + repr(network)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("registry.example", "registry.example"),
        ("Registry.Example:5000", "registry.example:5000"),
        ("https://registry.example:5000/v2/", "registry.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("ghcr.io/team", "ghcr.io"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_the_name_of_a_registry(text: str, host: str) -> None:
    assert registry_name(text) == host


@pytest.mark.parametrize("text", ["", "https://", "a b", "user@host", "host:port", "/path", "-\n"])
def test_what_is_no_name_of_a_registry(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry_name(text)
    assert caught.value.code == "registry-name" and caught.value.hint


def test_where_a_login_is(tmp_path: Path, helpers: Path) -> None:
    files = files_of(tmp_path, {}, {"auths": {"r.io": auth("me")}}, {"credsStore": "good"}, helpers=helpers)
    keep(helpers, "kept.io", "me", CANARY)
    assert files.source("r.io") == files.files[1]
    assert files.source("kept.io") == files.files[2]
    assert files.source("other.io") == ""
    assert store_login(str(tmp_path / "new.json"), "r.io", Credential("me", CANARY), "") == str(tmp_path / "new.json")
    assert store_login(files.files[2], "r.io", Credential("me", CANARY), str(helpers)) == "docker-credential-good"
