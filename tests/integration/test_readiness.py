"""What isolates steps starts beside the first other work, and not at all where nothing is run."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.kit import Shiplap

import shiplap as library
from shiplap.api import building
from shiplap.ops import file
from shiplap.ops.workbench import Workbench

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the library's RUN does")


def test_the_sandbox_gets_ready_beside_a_copy(
    shiplap: Shiplap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "f").write_text("1")
    ready = threading.Event()
    beside: list[bool] = []
    make, change = building._Build._bench, file.change_files

    def watched(self: building._Build, *given: Any) -> Workbench:
        bench = make(self, *given)
        choose = bench.runtime

        def runtime() -> Any:
            chosen = choose()
            ready.set()
            return chosen

        bench.runtime = runtime
        return bench

    def copy(*given: Any, **named: Any) -> str:
        beside.append(ready.wait(20 if not beside else 0.5))
        return change(*given, **named)

    monkeypatch.setattr(building._Build, "_bench", watched)
    monkeypatch.setattr(file, "change_files", copy)

    def build(dockerfile: str) -> library.Result:
        (context / "Dockerfile").write_text(dockerfile)
        return library.build(context, environ=shiplap.setting()["env"], output="type=image")

    built = build("FROM busybox AS a\nCOPY f /f\nRUN true\nFROM a\nCOPY f /g\n")
    assert beside[0], "nothing got ready while the first COPY waited"
    assert len(built.steps_run) == 4

    ready.clear()
    beside[1:] = []
    build("FROM busybox AS a\nCOPY f /f\nRUN true\nFROM a\nCOPY f /other\n")
    assert beside == [True, False], "got ready for no RUN"
