"""The work: each scenario makes a context, and says how it is built in each round."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scenario:
    """``make`` writes the context into an empty directory. ``cache``: earlier results may be used.

    ``archive``: the result is written as a gzip OCI archive. ``fresh``: each build gets a context of another name, which
    no builder has seen, so that nothing it remembers of an earlier round helps. ``warm``: built once before the clock runs.
    ``budget``: the design's aim, as a ratio to BuildKit.
    """

    name: str
    title: str
    make: Callable[[Path, str], None]
    cache: bool
    archive: bool
    fresh: bool
    warm: bool
    budget: float


def _cached(path: Path, base: str) -> None:
    (path / "app.txt").write_text("app\n")
    (path / "Dockerfile").write_text(
        f"FROM {base} AS build\nWORKDIR /src\nCOPY app.txt .\nRUN cp app.txt out.txt\n"
        f"FROM {base}\nRUN mkdir /srv/app -p\nCOPY --from=build /src/out.txt /srv/app/\nENV A=b\nCMD cat /srv/app/out.txt\n"
    )


def _runs(path: Path, base: str) -> None:
    steps = "".join(f"RUN true # {number}\n" for number in range(30))
    (path / "Dockerfile").write_text(f"FROM {base}\n{steps}")


def _files(path: Path, base: str) -> None:
    """20,000 files of 1.6 kB on average in 200 directories, of words, so that they compress as text does."""
    random.seed(7)
    words = [f"{random.choice('bcdfglmnprst')}{random.choice('aeiou')}{n:x}" for n in range(2000)]
    for directory in range(200):
        (path / f"data/d{directory}").mkdir(parents=True)
        for file in range(100):
            text = " ".join(random.choices(words, k=random.randint(20, 560)))
            (path / f"data/d{directory}/f{file}.txt").write_text(text)
    (path / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")


SCENARIOS = (
    Scenario("cached", "small project, everything cached", _cached, True, True, False, True, 1 / 2),
    Scenario("runs30", "30 trivial RUNs", _runs, False, False, False, True, 1 / 3),
    Scenario(
        "files20k", "COPY of 20,000 small files, cold, to a gzip archive", _files, False, True, True, False, 1 / 5
    ),
    Scenario("files20k-unchanged", "the same again, unchanged", _files, True, True, False, True, 1 / 2),
)


def renamed(path: Path, number: int) -> Path:
    """The context under a name that no builder has seen."""
    target = path.with_name(f"{path.name.partition('.')[0]}.{number}")
    if path != target:
        shutil.move(path, target)
    return target
