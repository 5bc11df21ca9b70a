"""The examples: multi-stage Dockerfiles as people write them, built, run and looked into."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from kit import REPOSITORY, Shiplap

EXAMPLES = REPOSITORY / "examples"


def built(shiplap: Shiplap, example: str, *flags: str, **env: str) -> tuple[str, str]:
    """Build an example; stages built and skipped, as the summary names them."""
    text = shiplap.run("build", "--progress=plain", "-t", "it", *flags, EXAMPLES / example, **env).stderr
    match = re.search(r"^built (.*?)(?: \(skipped (.*)\))?: \d+ steps", text, re.MULTILINE)
    assert match is not None, text
    return match.group(1), match.group(2) or ""


def layers(shiplap: Shiplap) -> int:
    return len(json.loads(shiplap.run("inspect", "it").stdout)[0]["Manifest"]["layers"])


def test_hello(shiplap: Shiplap) -> None:
    """A heredoc COPY, golang -> scratch, a stage by number."""
    assert built(shiplap, "hello") == ("stage-0, stage-1", "")
    assert shiplap.run("run", "it").stdout == "hello, world\n"
    assert layers(shiplap) == 1


def test_named_stages(shiplap: Shiplap) -> None:
    assert built(shiplap, "named-stages") == ("builder, stage-1", "")
    assert shiplap.run("run", "it").stdout == "hello from a named stage\n"


def test_target_stops_at_a_stage(shiplap: Shiplap) -> None:
    assert built(shiplap, "named-stages", "--target", "builder") == ("builder", "stage-1")
    assert shiplap.run("run", "it", "go", "version").stdout.startswith("go version go1.")


def test_an_unreached_base_is_not_even_asked_for(shiplap: Shiplap) -> None:
    text = shiplap.run("build", "--progress=plain", "--target", "debug", EXAMPLES / "app-stages").stderr
    assert "busybox" in text and "golang" in text
    text = shiplap.run(
        "build", "--progress=plain", "--target", "build", EXAMPLES / "app-stages", SHIPLAP_ROOT="other"
    ).stderr
    assert "golang" in text and "busybox" not in text


def test_copy_from_an_image(shiplap: Shiplap) -> None:
    built(shiplap, "copy-from-image")
    assert shiplap.run("run", "it").stdout == "user nginx;\nworker_processes auto;\n"
    assert layers(shiplap) == 2


def test_one_base_feeds_two_builds(shiplap: Shiplap) -> None:
    assert built(shiplap, "two-builds") == ("base, build1, build2, stage-3", "")
    assert shiplap.run("run", "it", "/bin/one").stdout == "the first build\n"
    assert shiplap.run("run", "it", "/bin/two").stdout == "the second build\n"


def test_stage2_does_not_need_stage1(shiplap: Shiplap) -> None:
    assert built(shiplap, "shared-base", "--target", "stage2") == ("base, stage2", "stage1")


def test_without_buildkit_every_stage_up_to_the_target_runs(shiplap: Shiplap) -> None:
    text = shiplap.run(
        "build", "--progress=plain", "--target", "stage2", EXAMPLES / "shared-base", DOCKER_BUILDKIT="0"
    ).stderr
    ran = re.findall(r"^#\d+ \d+\.\d+ (base|stage1|stage2)$", text, re.MULTILINE)
    assert ran == ["base", "stage1", "stage2"]


def test_debug_testing_production(shiplap: Shiplap) -> None:
    assert built(shiplap, "app-stages") == ("build, production", "debug, testing")
    assert shiplap.run("run", "it").stdout == "app in production\n"
    built(shiplap, "app-stages", "--target", "debug", "--build-arg", "MODE=debug")
    assert shiplap.run("run", "it").stdout == "debug shell\napp in debug\n"
    built(shiplap, "app-stages", "--target", "testing")
    assert shiplap.run("run", "it").stdout == "2 cases\n"


@pytest.mark.parametrize(("platform", "machine"), [("linux/arm64", 183), ("linux/amd64", 62), ("linux/riscv64", 243)])
def test_cross_compiling(shiplap: Shiplap, platform: str, machine: int, tmp_path: Path) -> None:
    """The compiler runs here; what it makes is for a foreign platform, and the image says so."""
    built(shiplap, "cross", "--platform", platform, "-o", f"type=local,dest={tmp_path}/out", "-o", "type=image")
    head = (tmp_path / "out/bin/app").read_bytes()[:20]
    assert int.from_bytes(head[18:20], "little") == machine
    image = json.loads(shiplap.run("inspect", "it").stdout)[0]["Image"]
    assert f"{image['os']}/{image['architecture']}" == platform
    assert shiplap.run("run", "it").stdout == f"hello from {platform}\n"


def test_everything_is_cached_the_second_time(shiplap: Shiplap) -> None:
    first = shiplap.run("build", "-q", EXAMPLES / "two-builds").stdout
    text = shiplap.run("build", "--progress=plain", EXAMPLES / "two-builds").stderr
    assert ": 0 steps run, " in text
    assert shiplap.run("build", "-q", EXAMPLES / "two-builds").stdout == first


def test_a_touched_file_is_still_a_hit_and_a_changed_one_is_not(shiplap: Shiplap, tmp_path: Path) -> None:
    context = tmp_path / "context"
    shutil.copytree(EXAMPLES / "two-builds", context)
    shiplap.run("build", "-q", context)
    os.utime(context / "source1.go")
    assert ": 0 steps run, " in shiplap.run("build", "--progress=plain", context).stderr
    source = context / "source1.go"
    source.write_text(source.read_text().replace("first", "very first"))
    text = shiplap.run("build", "--progress=plain", context).stderr
    ran = re.search(r": (\d+) steps run, (\d+) reused", text)
    assert ran is not None and ran.group(1) == "4"  # COPY and RUN of build1, and the two COPYs that follow


def test_a_comment_in_the_source_does_not_reach_further_than_the_binary(shiplap: Shiplap, tmp_path: Path) -> None:
    """Early cut-off: the compiler makes the same bytes, so that nothing behind it runs again."""
    context = tmp_path / "context"
    shutil.copytree(EXAMPLES / "two-builds", context)
    dockerfile = context / "Dockerfile"
    # Go writes an id of the source into the binary unless told not to.
    dockerfile.write_text(dockerfile.read_text().replace("go build", "go build -ldflags=-buildid="))
    shiplap.run("build", "-q", context)
    with (context / "source2.go").open("a") as file:
        file.write("// a remark\n")
    text = shiplap.run("build", "--progress=plain", context).stderr
    ran = re.search(r": (\d+) steps run, (\d+) reused", text)
    assert ran is not None and ran.group(1) == "2", text
