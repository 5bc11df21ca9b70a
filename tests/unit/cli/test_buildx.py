"""Scripts written for docker buildx run unchanged: what is printed, and the exit statuses, are buildx's."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from kit import Shiplap
from shiplap import __version__
from shiplap.cli import buildx
from shiplap.cli.main import COMMANDS, FAMILIES, _split

ACTION = ("--driver", "docker-container", "--buildkitd-flags", "--allow-insecure-entitlement network.host")
"""How docker/setup-buildx-action calls create."""


@pytest.fixture
def shiplap(tmp_path: Path) -> Shiplap:
    return Shiplap(tmp_path / "store")


def test_the_usual_script(shiplap: Shiplap) -> None:
    made = shiplap.run(
        "buildx", "create", "--name", "ci", *ACTION, "--driver-opt", "network=host", "--bootstrap", "--use"
    )
    assert made.stdout == "ci\n"
    assert made.stderr == "note: --driver-opt, --buildkitd-flags: no effect, since shiplap has no daemon\n"
    shown = shiplap.run("buildx", "inspect", "--bootstrap", "--builder", "ci").stdout
    assert re.search(r"^Name: +ci\nDriver: +docker-container\nLast Activity: \d{4}-\d\d-\d\d \d\d:", shown)
    assert re.search(r"^Nodes:\nName: +ci0\nEndpoint: +here\nStatus: +running\n", shown, re.MULTILINE)
    assert f"\nBuildKit version: shiplap v{__version__}\n" in shown
    assert re.search(r"^Platforms: +linux/\w+", shown, re.MULTILINE)
    assert shiplap.run("buildx", "inspect").stdout == shown
    assert shiplap.run("buildx", "stop", "ci").stdout == ""
    assert shiplap.run("buildx", "rm", "ci").stdout == "ci removed\n"
    assert re.search(r"^Name: +default$", shiplap.run("buildx", "inspect").stdout, re.MULTILINE)


def test_list(shiplap: Shiplap) -> None:
    shiplap.run("buildx", "create", "--name", "One", "--platform", "linux/arm64,linux/s390x")
    shiplap.run("buildx", "create", "--name", "two", "--use")
    lines = shiplap.run("buildx", "ls").stdout.splitlines()
    assert lines[0].split() == ["NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "BUILDKIT", "PLATFORMS"]
    assert [line.split("  ")[0].strip() for line in lines[1:]] == [
        "one",
        r"\_ one0",
        "two*",
        r"\_ two0",
        "default",
        r"\_ default",
    ]
    column = lines[0].index("STATUS")
    assert [line[column:].split(" ")[0] for line in lines[2::2]] == ["running"] * 3
    assert shiplap.run("buildx", "ls", "--format", "{{.Name}}: {{.Status}}").stdout == (
        "one: running\ntwo*: running\ndefault: running\n"
    )
    found = [json.loads(line) for line in shiplap.run("buildx", "ls", "--format", "json").stdout.splitlines()]
    assert [(each["Name"], each["Current"]) for each in found] == [("one", False), ("two", True), ("default", False)]
    assert found[0]["Nodes"][0]["Status"] == "running" and found[0]["Nodes"][0]["Platforms"]
    assert shiplap.run("buildx", "ls", "--format", "{{.Name}} {{json .}}").stdout.startswith('one {"Current": false')
    wrong = shiplap.run("buildx", "ls", "--format", "{{.Nope}}", check=False)
    assert wrong.returncode == 2 and "{{.Buildkit}}" in wrong.stderr


def test_names(shiplap: Shiplap) -> None:
    def refused(*words: str) -> str:
        done = shiplap.run("buildx", *words, check=False)
        assert done.returncode == 1, done
        return done.stderr

    assert 'ERROR: no builder "nope" found' in refused("inspect", "nope")
    assert 'no builder "nope" found' in refused("use", "nope")
    assert 'no builder "nope" found' in refused("stop", "nope")
    assert refused("rm", "nope") == (
        'failed to remove nope: no builder "nope" found\nERROR: failed to remove one or more builders\n'
    )
    assert "always there" in refused("rm")
    assert "[builder-name]" in refused("create", "--name", "9")
    assert "default is a reserved name" in refused("create", "--name", "default")
    shiplap.run("buildx", "create", "--name", "it")
    assert 'existing instance for "it" but no append mode' in refused("create", "--name", "IT")
    shiplap.run("buildx", "create", "--name", "it", "--append", "--node", "far", "ssh://far")
    assert "Endpoint:         ssh://far\n" in shiplap.run("buildx", "inspect", "it").stdout
    shiplap.run("buildx", "create", "--name", "it", "--leave", "--node", "far")
    assert "ssh://far" not in shiplap.run("--root", shiplap.root, "buildx", "--builder", "it", "inspect").stdout
    shiplap.run("buildx", "use", "it")
    shiplap.run("buildx", "use", "default")
    assert "default*\n" in shiplap.run("buildx", "ls", "--format", "{{.Name}}").stdout
    assert shiplap.run("buildx", "rm", "--all-inactive", "--force").stdout == ""
    made = shiplap.run("buildx", "create").stdout
    assert re.fullmatch(r"builder-[0-9a-f]{6}\n", made)


def test_drivers_elsewhere_are_said_to_be_here(shiplap: Shiplap) -> None:
    for driver, note in (("kubernetes", True), ("remote", True), ("docker-container", False), ("docker", False)):
        said = shiplap.run("buildx", "create", "--driver", driver).stderr
        assert (f"note: there is no driver {driver} here: builds run on this machine" in said) == note


def test_many_at_once(shiplap: Shiplap) -> None:
    started = [
        shiplap.start("buildx", "create", "--name", f"b{n}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for n in range(6)
    ]
    assert [process.communicate(timeout=60)[1] for process in started] == [b""] * 6
    names = shiplap.run("buildx", "ls", "--format", "{{.Name}}").stdout.split()
    assert names == ["b0", "b1", "b2", "b3", "b4", "b5", "default*"]
    assert sorted(path.name for path in shiplap.root.glob("builders*")) == ["builders.json"]


def test_a_damaged_file_says_what_to_do(shiplap: Shiplap) -> None:
    shiplap.root.mkdir()
    (shiplap.root / "builders.json").write_text('{"current": 1}')
    done = shiplap.run("buildx", "ls", check=False)
    assert done.returncode == 1 and "[builders-damaged]" in done.stderr and "rm " in done.stderr


def test_commands_of_buildx_that_are_shiplaps_own(shiplap: Shiplap) -> None:
    assert shiplap.run("buildx", "version").stdout == f"shiplap {__version__}\n"
    assert "KIND" in shiplap.run("buildx", "du", "--builder", "x").stdout
    assert shiplap.run("buildx", "prune", "-f", "--builder", "x", "--timeout", "20s").stdout.startswith("removed 0")
    assert shiplap.run("builder", "prune", "-af").stdout.startswith("removed 0")
    for words in (("bake",), ("buildx", "bake", "--print")):
        done = shiplap.run(*words, check=False)
        assert done.returncode == 2 and "bake is not there yet" in done.stderr
    done = shiplap.run("buildx", "dial-stdio", check=False)
    assert done.returncode == 2 and "unknown command 'buildx dial-stdio'" in done.stderr


def test_the_families(shiplap: Shiplap) -> None:
    for family in FAMILIES:
        named = [name for name in COMMANDS if name.startswith(f"{family} ")]
        assert shiplap.run(family, check=False).returncode == 2
        text = shiplap.run(family, "--help").stdout
        assert named and all(f"  {name} " in text for name in named)
    assert set(buildx._COMMANDS) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "name", "rest"),
    [
        ("buildx build -t a .", "buildx build", "-t a ."),
        ("buildx --builder x build .", "buildx build", "--builder x ."),
        ("buildx --builder=x -D inspect", "buildx inspect", "--builder=x"),
        ("--root /r buildx ls", "buildx ls", "--root /r"),
        ("buildx -h", "buildx", "--help"),
        ("builder", "builder", ""),
        ("build .", "build", "."),
    ],
)
def test_words(words: str, name: str, rest: str) -> None:
    assert _split(words.split()) == (name, rest.split())
