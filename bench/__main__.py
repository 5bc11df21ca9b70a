"""``python -m bench``: all scenarios, or those named; a table, and JSON for machines.

Builders take turns (A B C A B C ...), so that what slows the machine slows all; the figure is the median, and a peer's is
also given as the ratio of medians, shiplap / peer: below 1 means that shiplap is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.peers import Builder, builders
from bench.scenarios import SCENARIOS, Scenario, renamed

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="default: all of " + ", ".join(s.name for s in SCENARIOS))
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=HERE / "results/latest.json")
    options = parser.parse_args()
    wanted = [s for s in SCENARIOS if not options.scenario or s.name in options.scenario]
    with tempfile.TemporaryDirectory(prefix="shiplap-bench-") as temporary:
        work = Path(temporary)
        with _Base(work) as base:
            present = []
            for builder in builders(work):
                obstacle = builder.available()
                if obstacle:
                    print(f"without {builder.name}: {obstacle}")
                else:
                    present.append(builder)
            rows = [_measure(scenario, present, work, base, options.rounds) for scenario in wanted]
        subprocess.run(["chmod", "-R", "u+rwX", work], check=False)
    _report(rows, options.json)


def _measure(scenario: Scenario, present: list[Builder], work: Path, base: str, rounds: int) -> dict[str, object]:
    seconds: dict[str, list[float]] = {}
    for builder in present:
        context = work / f"{scenario.name}-{builder.name}.0"
        context.mkdir()
        scenario.make(context, base)
        if scenario.warm:
            builder.build(context, work / "warm.tar" if scenario.archive else None, cache=True)
    for number in range(rounds):
        for builder in present:
            context = next(work.glob(f"{scenario.name}-{builder.name}.*"))
            if scenario.fresh:
                context = renamed(context, number + 1)
            output = work / f"out-{builder.name}.tar" if scenario.archive else None
            began = time.perf_counter()
            builder.build(context, output, scenario.cache)
            seconds.setdefault(builder.name, []).append(time.perf_counter() - began)
    print(".", end="", flush=True)
    return {"scenario": scenario.name, "title": scenario.title, "budget": scenario.budget, "seconds": seconds}


def _report(rows: list[dict[str, object]], path: Path) -> None:
    machine = {"python": platform.python_version(), "kernel": platform.release(), "cpus": os.cpu_count()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    print(f"\n\n{machine}; medians in seconds, (ratio shiplap / peer)\n")
    for row in rows:
        seconds = {name: statistics.median(times) for name, times in row["seconds"].items()}  # type: ignore[attr-defined]
        ours = seconds["shiplap"]
        cells = [
            f"{name} {value:.3f}" + (f" ({ours / value:.2f})" if name != "shiplap" else "")
            for name, value in seconds.items()
        ]
        print(f"{row['title']:<55} " + "   ".join(cells) + f"   budget {row['budget']:.2f}")
    print(f"\nwritten to {path}")


class _Base:
    """A busybox image in a registry on loopback, where every builder can get it."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def __enter__(self) -> str:
        sys.path.insert(0, str(HERE.parent / "examples"))
        import bases

        from shiplap.registry.memory import MemoryRegistry

        self._registry = MemoryRegistry()
        self._registry.__enter__()
        name = f"{self._registry.host}/library/busybox:latest"
        shiplap = [str(Path(sys.executable).with_name("shiplap")), "--root", str(self._work / "shiplap")]
        root = bases.busybox_rootfs(self._work / "rootfs")
        subprocess.run(
            [*shiplap, "import", "-c", f"ENV PATH={bases.PATH}", str(root), name], check=True, capture_output=True
        )
        subprocess.run([*shiplap, "push", "-q", name], check=True)
        return name

    def __exit__(self, *_: object) -> None:
        self._registry.__exit__(None, None, None)


if __name__ == "__main__":
    main()
