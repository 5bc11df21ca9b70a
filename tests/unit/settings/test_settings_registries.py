"""registries.conf: which place an image is asked from, and what is said about a broken file."""

from __future__ import annotations

from pathlib import Path

import pytest

from shiplap.errors import UsageError
from shiplap.settings import Endpoint, Network, load
from shiplap.settings.registries import read_registries


def network_of(tmp_path: Path, text: str) -> Network:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    return Network(rules=read_registries((str(path),)))


EXAMPLE = """
unqualified-search-registries = ["example.com"]
short-name-mode = "enforcing"

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "127.0.0.1:5000/hub"
insecure = true
[[registry.mirror]]
location = "digests.example.com"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "tags.example.com"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "docker.io/library/private"
location = "internal.example.com/vault"

[[registry]]
location = "old.example.com"
blocked = true

[[registry]]
prefix = "*.wild.example.com"
insecure = true

[[registry]]
prefix = "*.moved.example.com"
location = "new.example.com"

[[registry]]
location = "plain.example.com:5000"
insecure = true

[[registry]]
location = "strict.example.com"
insecure = false
"""
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("host", "path", "target", "expected"),
    [
        (
            "docker.io",
            "library/busybox",
            "1",
            ["127.0.0.1:5000/hub/library/busybox!", "tags.example.com/library/busybox", "docker.io/library/busybox"],
        ),
        (
            "docker.io",
            "library/busybox",
            DIGEST,
            ["127.0.0.1:5000/hub/library/busybox!", "digests.example.com/library/busybox", "docker.io/library/busybox"],
        ),
        ("docker.io", "library/private", "1", ["internal.example.com/vault"]),
        ("docker.io", "library/private/x", "1", ["internal.example.com/vault/x"]),
        (
            "docker.io",
            "library/privateer",
            DIGEST,
            [
                "127.0.0.1:5000/hub/library/privateer!",
                "digests.example.com/library/privateer",
                "docker.io/library/privateer",
            ],
        ),
        ("old.example.com", "a", "1", []),
        ("old.example.com.evil.io", "a", "1", ["old.example.com.evil.io/a"]),
        ("a.wild.example.com", "x/y", "1", ["a.wild.example.com/x/y!"]),
        ("a.b.wild.example.com:99", "x", "1", ["a.b.wild.example.com:99/x!"]),
        ("wild.example.com", "x", "1", ["wild.example.com/x"]),
        ("evilwild.example.com", "x", "1", ["evilwild.example.com/x"]),
        ("a.moved.example.com", "x/y", "1", ["new.example.com/x/y"]),
        ("plain.example.com:5000", "x", "1", ["plain.example.com:5000/x!"]),
        ("plain.example.com", "x", "1", ["plain.example.com/x"]),
        ("other.io", "x", "", ["other.io/x"]),
    ],
)
def test_endpoints(tmp_path: Path, host: str, path: str, target: str, expected: list[str]) -> None:
    found = network_of(tmp_path, EXAMPLE).endpoints(host, path, target)
    assert [f"{each.host}/{each.path}{'!' if each.insecure else ''}" for each in found] == expected
    assert [each.mirror for each in found] == [True] * (len(found) - 1) + [False] * bool(found)


def test_what_is_said_about_security(tmp_path: Path) -> None:
    network = network_of(tmp_path, EXAMPLE)
    assert network.endpoints("strict.example.com", "x") == (Endpoint("strict.example.com", "x", False),)
    assert network.endpoints("other.io", "x") == (Endpoint("other.io", "x", None),)
    assert network.insecure_host("plain.example.com:5000") and network.insecure_host("127.0.0.1:5000")
    assert not network.insecure_host("strict.example.com") and not network.insecure_host("plain.example.com")


def test_mirror_by_digest_only(tmp_path: Path) -> None:
    text = '[[registry]]\nlocation="a.io"\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation="m.io"\n'
    network = network_of(tmp_path, text)
    assert [each.host for each in network.endpoints("a.io", "x", DIGEST)] == ["m.io", "a.io"]
    assert [each.host for each in network.endpoints("a.io", "x", "1")] == ["a.io"]


def test_which_files_are_read(tmp_path: Path) -> None:
    def write(path: str, host: str, insecure: bool = False) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f'[[registry]]\nlocation="{host}"\ninsecure={str(insecure).lower()}\n')

    write("etc/containers/registries.conf", "system.io")
    write("etc/containers/registries.conf.d/10-a.conf", "drop.io")
    write("etc/containers/registries.conf.d/20-b.conf", "drop.io", insecure=True)
    write("etc/containers/registries.conf.d/ignored.txt", "ignored.io")
    environ = {"HOME": str(tmp_path / "home")}

    def rules(**more: str) -> dict[str, bool | None]:
        found = load({**environ, **more}, etc=str(tmp_path / "etc")).network().rules
        return {rule.prefix: rule.insecure for rule in found}

    assert rules() == {"system.io": False, "drop.io": True}
    write("home/.config/containers/registries.conf", "mine.io")
    write("home/.config/containers/registries.conf.d/my.conf", "drop.io", insecure=False)
    assert rules() == {"mine.io": False, "drop.io": False}
    write("named.conf", "named.io")
    assert rules(CONTAINERS_REGISTRIES_CONF=str(tmp_path / "named.conf")) == {"named.io": False, "drop.io": False}
    with pytest.raises(UsageError, match="does not exist"):
        rules(CONTAINERS_REGISTRIES_CONF=str(tmp_path / "absent.conf"))


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("a = 1\nb = = 2\n", "is not TOML", 2),
        ("\xff", "UTF-8", None),
        ("registry = 1", "array of tables", None),
        ("registry = [1]", "array of tables", None),
        ("[[registry]]\nblocked = true", "neither prefix nor location", None),
        ('[[registry]]\nlocation = "https://a.io"', "cannot be a URL", None),
        ('[[registry]]\nlocation = "user:canary@a.io"', "is not host", None),
        ("[[registry]]\nlocation = 7", "must be text", None),
        ('[[registry]]\nlocation = "a.io"\ninsecure = "yes"', "true or false", None),
        ('[[registry]]\nprefix = "a.*.io"', "not of the form", None),
        ('[[registry]]\nprefix = "*.io/path"', "not of the form", None),
        ('[[registry]]\nprefix = "a.io"\nlocation = "*.b.io"', "wildcard", None),
        ('[[registry]]\nlocation = "a.io"\nmirror = 3', "array of tables", None),
        ('[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\ninsecure = true', "needs a location", None),
        (
            '[[registry]]\nlocation = "a.io"\n[[registry.mirror]]\nlocation = "m"\npull-from-mirror = "never"',
            "pull-from-mirror",
            None,
        ),
        ('[registries.insecure]\nregistries = ["a.io"]', "version 1", None),
        ("x = " + "[" * 5000, "TOML", None),
        ("#" * ((1 << 20) + 1), "larger", None),
    ],
)
def test_broken_files(tmp_path: Path, text: str, words: str, line: int | None) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=words) as caught:
        read_registries((str(path),))
    assert caught.value.where is not None and caught.value.where.file == str(path)
    assert caught.value.where.line == line or line is None
    assert caught.value.hint and "canary" not in caught.value.render()


def test_old_search_lists_are_ignored(tmp_path: Path) -> None:
    assert network_of(tmp_path, '[registries.search]\nregistries = ["a.io"]').rules == ()


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    loop = tmp_path / "loop.conf"
    loop.symlink_to(loop)
    with pytest.raises(UsageError):
        read_registries((str(loop),))


@pytest.mark.parametrize(
    ("table", "host", "said"),
    [
        ('[[registry]]\nlocation = "a:1"\ninsecure = false\n', "a:1", False),
        ('[[registry]]\nlocation = "a:1"\ninsecure = true\n', "a:1", True),
        ('[[registry]]\nlocation = "a:1"\n', "a:1", None),
        ('[[registry]]\nlocation = "a:1"\ninsecure = true\n', "b:1", None),
        ('[[registry]]\nprefix = "a:1"\nlocation = "b:1"\ninsecure = true\n', "a:1", None),
        ('[[registry]]\nlocation = "a:1"\n[[registry.mirror]]\nlocation = "m:1/x"\ninsecure = false\n', "m:1", False),
        ('[[registry]]\nlocation = "a:1"\n[[registry.mirror]]\nlocation = "m:1/x"\ninsecure = true\n', "m:1", True),
        ('[[registry]]\nlocation = "a:1"\n[[registry.mirror]]\nlocation = "m:1"\n', "m:1", None),
    ],
)
def test_what_a_file_says_of_a_hosts_security(tmp_path: Path, table: str, host: str, said: bool | None) -> None:
    (tmp_path / "r.conf").write_text(table)
    network = Network(rules=read_registries((str(tmp_path / "r.conf"),)))
    assert network.security_of(host) is said and network.insecure_host(host) is (said is True)
