"""A named context that is another build: a stage of the same Dockerfile, or, in Python, a request of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kit import Shiplap

import shiplap as library

DOCKERFILE = """\
FROM busybox AS tools
RUN echo tools >/made
FROM busybox AS other
RUN echo other >/made
FROM scratch
COPY --from=tools /made /made
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text(DOCKERFILE)
    return tmp_path / "c"


def test_a_stage_of_the_same_dockerfile(shiplap: Shiplap, context: Path, tmp_path: Path) -> None:
    told = shiplap.run("build", "--build-context", "tools=target:other", "-o", tmp_path / "o", context).stderr
    assert (tmp_path / "o/made").read_text() == "other\n"
    assert "echo tools" not in told
    assert told.count("built ") == 1


def test_for_several_platforms(shiplap: Shiplap, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/Dockerfile").write_text(
        "FROM scratch AS a\nARG TARGETARCH\nCOPY <<EOF /arch\n$TARGETARCH\nEOF\nFROM scratch\nCOPY --from=b /arch /\n"
    )
    flags = ["--build-context=b=target:a", "--platform=linux/amd64,linux/arm64"]
    shiplap.run("build", "-q", *flags, "-o", tmp_path / "o", tmp_path / "c")
    assert (tmp_path / "o/linux_arm64/arch").read_text() == "arm64\n"


def test_a_target_that_is_not_there(shiplap: Shiplap, context: Path) -> None:
    told = shiplap.run("build", "--build-context=tools=target:none", context, check=False)
    assert "[unknown-target]" in told.stderr


def test_a_request(shiplap: Shiplap, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in shiplap.env.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/Dockerfile").write_text("FROM scratch\nARG V\nCOPY <<EOF /made\nfrom a request $V\nEOF\n")
    base = library.Request(context=tmp_path / "base", build_args={"V": "7"}, tags=("never:1",))
    result = library.build(context, build_contexts={"tools": base}, output=str(tmp_path / "o"), root=tmp_path / "root")
    assert (tmp_path / "o/made").read_text() == "from a request 7\n"
    assert result.outputs == (str(tmp_path / "o"),)
