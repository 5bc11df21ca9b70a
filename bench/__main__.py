"""``python -m bench``: all scenarios, or those named; a table, JSON for machines, and a plot.

Builders take turns (A B C A B C ...), so that what slows the machine slows all; the figure is the median, and a peer's is
also given as the ratio of medians, shiplap / peer: below 1 means that shiplap is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.peers import Builder, Library, builders
from bench.plot import svg
from bench.runner import Runner
from bench.scenarios import SCENARIOS, Scenario, renamed, words
from bench.transfers import SIZE, Registries

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="default: all of " + ", ".join(s.name for s in SCENARIOS))
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("--without", action="append", default=[], help="leave out a builder, by name")
    parser.add_argument("--json", type=Path, default=HERE / "results/latest.json")
    options = parser.parse_args()
    unknown = set(options.scenario) - {s.name for s in SCENARIOS}
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}")
    wanted = [s for s in SCENARIOS if not options.scenario or s.name in options.scenario]
    with tempfile.TemporaryDirectory(prefix="shiplap-bench-") as temporary:
        work = Path(temporary)
        with Runner() as runner, _Bases(work) as bases, Registries(work) as registries:
            present = []
            for builder in builders(runner, work):
                obstacle = "as asked" if builder.name in options.without else builder.available()
                if obstacle:
                    print(f"without {builder.name}: {obstacle}")
                else:
                    present.append(builder)
            rows = []
            for scenario in wanted:
                obstacle = registries.obstacle() if scenario.transfer else ""
                if obstacle:
                    print(f"without {scenario.name}: {obstacle}")
                elif scenario.transfer:
                    rows.append(_transfer(scenario, present, registries, options.rounds))
                else:
                    rows.append(_measure(scenario, present, work, bases, options.rounds))
        subprocess.run(["chmod", "-R", "u+rwX", work], check=False)
    _report(rows, options.json)


def _measure(scenario: Scenario, present: list[Builder], work: Path, bases: _Bases, rounds: int) -> dict[str, Any]:
    # The library differs from the command by its start alone, so it is shown where many images are built.
    taking_part = [b for b in present if b.builds and (scenario.contexts or not isinstance(b, Library))]
    seconds: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    disk: dict[str, int] = {}
    for builder in taking_part:
        context = work / f"{scenario.name}-{builder.name}.0"
        context.mkdir()
        scenario.make(context, bases.name(scenario.base))
        if scenario.warm:
            builder.build([context], work / "warm.tar" if scenario.archive else None, cache=True)
    for number in range(rounds):
        for builder in taking_part:
            context = next(work.glob(f"{scenario.name}-{builder.name}.*"))
            if scenario.fresh:
                context = renamed(context, number + 1)
            if scenario.edit is not None:
                scenario.edit(context, f"{builder.name} {number}")
            if scenario.forget:
                builder.forget()
            contexts = [context / str(n) for n in range(scenario.contexts)] or [context]
            output = work / f"out-{builder.name}.tar" if scenario.archive else None
            took, used = builder.build(contexts, output, scenario.cache)
            seconds.setdefault(builder.name, []).append(took)
            memory[builder.name] = max(used, memory.get(builder.name, 0))
            if scenario.contexts:
                disk[builder.name] = builder.disk()
    for context in work.glob(f"{scenario.name}-*"):
        subprocess.run(["rm", "-rf", context], check=True)
    print(".", end="", flush=True)
    return _row(scenario, seconds, memory, disk)


def _transfer(scenario: Scenario, present: list[Builder], registries: Registries, rounds: int) -> dict[str, Any]:
    """Pulls into an emptied store; or pushes into an emptied registry, of what lies in the store."""
    seconds: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    registries.start()
    moving = [builder for builder in present if builder.moves]
    for builder in moving:
        builder.forget()
        if scenario.transfer == "push":
            builder.get_ready(registries.image, registries.empty())
    for _ in range(rounds):
        for builder in moving:
            if scenario.transfer == "pull":
                builder.forget()
                before = builder.disk()
                ran = builder.pull(registries.image)
                if builder.disk() - before < SIZE:
                    raise RuntimeError(f"{builder.name} pulled less than the image is made of")
            else:
                ran = builder.push(registries.image, registries.empty())
            seconds.setdefault(builder.name, []).append(ran.seconds)
            memory[builder.name] = max(ran.memory, memory.get(builder.name, 0))
    for builder in moving:
        builder.forget()
    print(".", end="", flush=True)
    return _row(scenario, seconds, memory, {})


def _row(
    scenario: Scenario, seconds: dict[str, list[float]], memory: dict[str, int], disk: dict[str, int]
) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "budget": scenario.budget,
        "images": scenario.contexts or 1,
        "seconds": seconds,
        "memory": memory,
        "disk": disk,
    }


def _report(rows: list[dict[str, Any]], path: Path) -> None:
    machine = {"python": platform.python_version(), "kernel": platform.release(), "cpus": os.cpu_count()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    print(f"\n\n{machine}; medians in seconds, (ratio shiplap / peer)\n")
    groups = []
    for row in rows:
        medians = {name: statistics.median(times) for name, times in row["seconds"].items()}
        groups.append((row["title"], medians))
        ours = medians.get("shiplap", 0.0)
        cells = [f"{name} {value:.3f}" + _ratio(name, ours, value) for name, value in medians.items()]
        budget = f"   budget {row['budget']:.2f}" if row["budget"] else ""
        print(f"{row['title']:<44} " + "   ".join(cells) + budget)
        print(f"{'':<44} memory of the command: {_sizes(row['memory'])}")
        if row["images"] > 1:
            speed = "   ".join(f"{name} {3600 * row['images'] / value:,.0f}" for name, value in medians.items())
            print(f"{'':<44} images an hour: {speed}")
            print(f"{'':<44} disk used: {_sizes(row['disk'])}")
    path.with_suffix(".svg").write_text(svg(groups))
    print(f"\nwritten to {path} and {path.with_suffix('.svg').name}")


def _ratio(name: str, ours: float, value: float) -> str:
    return "" if name == "shiplap" or not ours else f" ({ours / value:.2f})"


def _sizes(sizes: dict[str, int]) -> str:
    return "   ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.items())


class _Bases:
    """Images in a registry on loopback, where every builder can get them: busybox, and one of 300 MB made on demand."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._made: set[str] = set()

    def __enter__(self) -> _Bases:
        sys.path.insert(0, str(HERE.parent / "examples"))
        from shiplap.registry.memory import MemoryRegistry

        self._registry = MemoryRegistry()
        self._registry.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._registry.__exit__(None, None, None)

    def name(self, kind: str) -> str:
        """The full name of the image ``busybox`` or ``big``, which is there from then on."""
        import bases

        name = f"{self._registry.host}/library/{kind}:latest"
        if kind not in self._made:
            self._made.add(kind)
            shiplap = [str(Path(sys.executable).with_name("shiplap")), "--root", str(self._work / "making")]
            root = bases.busybox_rootfs(self._work / f"rootfs-{kind}")
            if kind == "big":
                _fill(root)
            subprocess.run(
                [*shiplap, "import", "-c", f"ENV PATH={bases.PATH}", str(root), name], check=True, capture_output=True
            )
            subprocess.run([*shiplap, "push", "-q", name], check=True)
            subprocess.run([*shiplap, "prune", "--all", "--force"], check=True, capture_output=True)
        return name


def _fill(root: Path) -> None:
    """Files until the image has about 300 MB compressed: 240 MB that do not compress, 3,000 files of text."""
    vocabulary = words(2000, 3)
    (root / "opt").mkdir(exist_ok=True)
    for number in range(8):
        (root / f"opt/blob{number}").write_bytes(random.randbytes(30 << 20))
    for number in range(3000):
        (root / f"opt/text{number}").write_text(" ".join(random.choices(vocabulary, k=9000)))


if __name__ == "__main__":
    main()
