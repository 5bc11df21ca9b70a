"""``shiplap logs [BUILD]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from shiplap.cli.parsing import Parser, age, settings_of, table
from shiplap.errors import UsageError
from shiplap.events.facts import Fact, Progress, Sink, StepFinished, StepOutput, StepStarted
from shiplap.events.kept import Kept, kept
from shiplap.events.plain import PlainView
from shiplap.events.printable import printable

_EPILOG = """examples:
  shiplap logs                   the last build
  shiplap logs --list            which builds there are
  shiplap logs 3f9a1c --step 4   all that step #4 of one build wrote, and nothing else
  shiplap logs --follow          a build that runs
"""
_POLL = 0.1


def run(name: str, argv: list[str]) -> int:
    """Show what steps wrote."""
    p = Parser("logs", "Show what the steps of a build wrote: all of it, whatever its progress showed.", epilog=_EPILOG)
    p.add_argument(
        "build", nargs="?", metavar="BUILD", help="its name in --list, or how that begins (default: the last)"
    )
    p.add_argument("--step", type=int, default=0, metavar="N", help="the output of step #N alone, as it was written")
    p.add_argument("--stage", default="", metavar="NAME", help="the steps of one stage")
    p.add_argument("-f", "--follow", action="store_true", help="go on until the build has ended")
    p.add_argument("--format", default="", choices=("", "json"), help="json: every fact, one object a line")
    p.add_argument("--list", action="store_true", help="list the builds of which there are logs")
    options = p.parse_args(argv)
    builds = kept(Path(settings_of(options).logs))
    if options.list:
        return _list(builds)
    facts = _find(builds, options.build).facts(_wait if options.follow else None)
    with closing(facts):
        if options.step:
            return _step(facts, options.step)
        if options.stage:
            return _show(_of_stage(facts, options.stage), options.format)
        return _show(facts, options.format)


def _wait() -> None:
    sys.stdout.flush()
    time.sleep(_POLL)


def _find(builds: list[Kept], name: str | None) -> Kept:
    if not builds:
        raise UsageError("there are no logs yet", code="no-logs", hint="shiplap build makes them")
    if name is None:
        return builds[-1]
    for build in reversed(builds):
        if build.id.startswith(name):
            return build
    raise UsageError(f"there are no logs of a build {name!r}", code="no-logs", hint="shiplap logs --list")


def _list(builds: list[Kept]) -> int:
    rows = [["BUILD", "STARTED", "SECONDS", "STATUS", "CONTEXT", "IMAGE"]]
    for build in reversed(builds):
        build.summarize()
        started, finished = build.started, build.finished
        if started is None:
            continue
        if finished is not None:
            status = "canceled" if finished.canceled else "failed" if finished.error else "done"
        else:
            status = "running" if build.running() else "broken off"
        seconds = f"{finished.seconds:.1f}" if finished is not None else ""
        what = started.context + (f" ({started.target})" if started.target else "")
        image = ", ".join(started.tags) or (finished.digest[7:19] if finished is not None else "")
        rows.append([build.id, age(time.time() - started.at), seconds, status, printable(what), printable(image)])
    table(rows)
    return 0


def _show(facts: Iterable[Fact], form: str) -> int:
    show: Sink = PlainView(_write, clip=-1)
    if form == "json":
        from shiplap.events.rawjson import JsonView

        show = JsonView(_write)
    for fact in facts:
        if form == "json" or not isinstance(fact, Progress):
            show(fact)
    return 0


def _step(facts: Iterator[Fact], number: int) -> int:
    """All that one step wrote, byte by byte; made safe if it goes to a terminal."""
    numbers: dict[str, int] = {}
    safe = sys.stdout.isatty()
    for fact in facts:
        if isinstance(fact, StepStarted):
            numbers.setdefault(fact.step, len(numbers) + 1)
        elif isinstance(fact, StepOutput) and numbers.get(fact.step) == number:
            data = printable(fact.data.decode("utf-8", "replace")).encode() if safe else fact.data
            sys.stdout.buffer.write(data)
        elif isinstance(fact, StepFinished) and numbers.get(fact.step) == number:
            break
    if number not in numbers.values():
        raise UsageError(f"the build has no step #{number}", code="no-such-step", hint="shiplap logs shows all steps")
    return 0


def _of_stage(facts: Iterator[Fact], stage: str) -> Iterator[Fact]:
    wanted: set[str] = set()
    stages: dict[str, None] = {}
    for fact in facts:
        if isinstance(fact, StepStarted):
            stages.setdefault(fact.stage)
            if fact.stage == stage:
                wanted.add(fact.step)
        if isinstance(fact, StepStarted | StepOutput | StepFinished) and fact.step in wanted:
            yield fact
    if not wanted:
        known = ", ".join(name for name in stages if name)
        raise UsageError(f"the build has no stage {stage!r}", code="no-such-step", hint=f"it has {known or 'none'}")


def _write(text: str) -> None:
    sys.stdout.write(text)
