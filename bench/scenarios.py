"""The work: each scenario makes one or more contexts, and says how they are built in each round."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

IMAGES = 100
"""Related images of the scenario ``related100``."""


@dataclass(frozen=True)
class Scenario:
    """``make`` writes the context into an empty directory; ``base`` is the image its Dockerfile begins with.

    ``cache``: earlier results may be used. ``archive``: the result is written as a gzip OCI archive. ``fresh``: each build
    gets a context of another name, which no builder has seen, so that nothing it remembers of an earlier round helps.
    ``warm``: built once before the clock runs. ``edit``: a change made before each round, off the clock. ``forget``: the
    builder's store is emptied before each round, off the clock. ``contexts``: how many directories ``0``, ``1``... ``make``
    wrote, each built in turn; 0: the context itself. ``transfer``: nothing is built, the image of 1 GiB is pulled or pushed.
    ``budget``: the design's aim, as a ratio to BuildKit; 0: it names none.
    """

    name: str
    title: str
    make: Callable[[Path, str], None]
    cache: bool = False
    archive: bool = False
    fresh: bool = False
    warm: bool = False
    edit: Callable[[Path, str], None] | None = None
    forget: bool = False
    contexts: int = 0
    base: str = "busybox"
    transfer: str = ""
    budget: float = 0.0


def _cached(path: Path, base: str) -> None:
    (path / "app.txt").write_text("app\n")
    (path / "Dockerfile").write_text(
        f"FROM {base} AS build\nWORKDIR /src\nCOPY app.txt .\nRUN cp app.txt out.txt\n"
        f"FROM {base}\nRUN mkdir /srv/app -p\nCOPY --from=build /src/out.txt /srv/app/\nENV A=b\nCMD cat /srv/app/out.txt\n"
    )


def _runs(path: Path, base: str) -> None:
    steps = "".join(f"RUN true # {number}\n" for number in range(30))
    (path / "Dockerfile").write_text(f"FROM {base}\n{steps}")


def words(count: int, seed: int) -> list[str]:
    """Made-up words: text of them compresses as text does."""
    random.seed(seed)
    return [f"{random.choice('bcdfglmnprst')}{random.choice('aeiou')}{n:x}" for n in range(count)]


def _files(path: Path, base: str) -> None:
    """20,000 files of 1.6 kB on average in 200 directories."""
    vocabulary = words(2000, 7)
    for directory in range(200):
        (path / f"data/d{directory}").mkdir(parents=True)
        for file in range(100):
            text = " ".join(random.choices(vocabulary, k=random.randint(20, 560)))
            (path / f"data/d{directory}/f{file}.txt").write_text(text)
    (path / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")


def _edit_one(path: Path, round: str) -> None:
    (path / "data/d100/f50.txt").write_text(f"edited for {round}\n")


def _gibibyte(path: Path, base: str) -> None:
    """1 GiB in 16 files: a quarter random (what is compressed already), a quarter zeros, half text."""
    vocabulary = words(2000, 11)
    text = " ".join(random.choices(vocabulary, k=400_000)).encode()
    size = 64 << 20
    (path / "data").mkdir()
    for number in range(16):
        with (path / f"data/f{number}").open("wb") as file:
            if number % 4 == 0:
                file.write(random.randbytes(size))
            elif number % 4 == 1:
                file.write(bytes(size))
            else:
                shift = random.randrange(len(text))
                piece = text[shift:] + text[:shift]
                file.write((piece * (size // len(piece) + 1))[:size])
    (path / "Dockerfile").write_text("FROM scratch\nCOPY data /data\n")


def _parallel(path: Path, base: str) -> None:
    stages = "".join(f"FROM {base} AS s{n}\nRUN sleep 0.2; echo {n} > /out{n}\n" for n in range(32))
    copies = "".join(f"COPY --from=s{n} /out{n} /\n" for n in range(32))
    (path / "Dockerfile").write_text(f"{stages}FROM scratch\n{copies}")


def _many_stages(path: Path, base: str) -> None:
    stages = "".join(f"FROM {base} AS s{n}\nRUN echo {n} > /out{n}\n" for n in range(497))
    (path / "Dockerfile").write_text(
        f"{stages}FROM {base} AS a\nRUN echo a > /a\nFROM {base} AS b\nRUN echo b > /b\n"
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )


def _run_writes(path: Path, base: str) -> None:
    script = (
        "mkdir /many && cd /many && i=0; while [ $i -lt 100 ]; do mkdir d$i; j=0; "
        'while [ $j -lt 100 ]; do echo "$i $j" > d$i/f$j; j=$((j+1)); done; i=$((i+1)); done'
    )
    (path / "Dockerfile").write_text(f"FROM {base}\nRUN {script}\n")


def _pull(path: Path, base: str) -> None:
    (path / "Dockerfile").write_text(f"FROM {base}\nRUN true\n")


def _nothing(path: Path, base: str) -> None:
    """A transfer needs no context."""


def _related(path: Path, base: str) -> None:
    """Images of an evaluation: one heavy stage that all share, one file and two steps of their own."""
    for number in range(IMAGES):
        context = path / str(number)
        context.mkdir()
        (context / "task.txt").write_text(f"task {number}\n")
        (context / "Dockerfile").write_text(
            f"FROM {base} AS tools\nRUN mkdir /tools && dd if=/dev/zero of=/tools/big bs=1M count=20 2>/dev/null\n"
            "RUN i=0; while [ $i -lt 500 ]; do echo $i > /tools/f$i; i=$((i+1)); done\n"
            f"FROM {base}\nCOPY --from=tools /tools /tools\nRUN mkdir /work\nCOPY task.txt /work/\n"
            f"RUN cp /work/task.txt /work/answer && echo {number} >> /work/answer\n"
        )


SCENARIOS = (
    Scenario("cached", "small project, everything cached", _cached, cache=True, archive=True, warm=True, budget=1 / 2),
    Scenario("runs30", "30 trivial RUNs", _runs, warm=True, budget=1 / 3),
    Scenario("files20k", "COPY of 20,000 files, cold, gzip archive", _files, archive=True, fresh=True, budget=1 / 5),
    Scenario("unchanged", "the same again, unchanged", _files, cache=True, archive=True, warm=True),
    Scenario("edited", "the same again, one file edited", _files, cache=True, archive=True, warm=True, edit=_edit_one),
    Scenario("gibibyte", "1 GiB layer, gzip archive", _gibibyte, archive=True, fresh=True, budget=1 / 5),
    Scenario("parallel32", "32 parallel stages of 0.2 s", _parallel, warm=True),
    Scenario("stages500", "500 stages, 3 reached", _many_stages, warm=True),
    Scenario("run10k", "RUN that writes 10,000 files, gzip archive", _run_writes, archive=True, warm=True),
    Scenario("pull300", "pull of a 300 MB image, and one RUN", _pull, forget=True, base="big"),
    Scenario("pull1g", "pull of 1 GiB in 8 layers", _nothing, transfer="pull", budget=1.0),
    Scenario("push1g", "push of 1 GiB in 8 layers", _nothing, transfer="push", budget=1.0),
    Scenario("related100", f"{IMAGES} related images, store empty", _related, cache=True, forget=True, contexts=IMAGES),
)


def renamed(path: Path, number: int) -> Path:
    """The context under a name that no builder has seen."""
    target = path.with_name(f"{path.name.partition('.')[0]}.{number}")
    if path != target:
        shutil.move(path, target)
    return target
