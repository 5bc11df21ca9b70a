"""``shiplap diff A B``: exit 0 if they are the same, 1 if they differ, 2 if that could not be found out, as diff(1)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shiplap.cli.copying import PLACES
from shiplap.cli.parsing import Parser, settings_of
from shiplap.errors import Interrupted, ShiplapError, UsageError

if TYPE_CHECKING:
    from shiplap.api.differing import Difference


def run(name: str, argv: list[str]) -> int:
    """Show how two images differ."""
    p = Parser(
        "diff",
        "Show how two images differ: by config, by step, by file and by byte. Exit status: 0 the same, 1 they differ,\n"
        f"2 trouble. Images of the same config and files are the same, however their layers are packed.\n\n{PLACES}",
    )
    p.add_argument("--platform", default="", help="of an index: os/architecture[/variant] (default: this machine's)")
    p.add_argument("--ignore-times", action="store_true", help="times of files and of steps do not count")
    p.add_argument(
        "--contents", type=int, default=20, metavar="N", help="show where the first N files differ (default: 20)"
    )
    p.add_argument("-q", "--quiet", action="store_true", help="print nothing")
    p.add_argument("--format", default="text", choices=("text", "json"), help="how to show it")
    p.add_argument("a", metavar="A")
    p.add_argument("b", metavar="B")
    options = p.parse_args(argv)
    from shiplap.api.differing import diff, plain_difference

    try:
        found = diff(
            options.a,
            options.b,
            settings_of(options),
            platform=options.platform,
            times=not options.ignore_times,
            most_contents=0 if options.quiet else max(0, options.contents),
        )
    except Interrupted:
        raise
    except ShiplapError as error:
        error.exit_status = 2  # type: ignore[misc]
        raise
    except OSError as error:
        raise UsageError(str(error), code="system", hint="check permissions and free space") from None
    if options.format == "json":
        print(json.dumps(plain_difference(found), indent=2))
    elif not options.quiet:
        from shiplap.events.printable import printable

        for line in difference_lines(found):
            print(printable(line))
    return 0 if found.same else 1


def difference_lines(found: Difference) -> Iterator[str]:
    """A difference as people read it."""
    if found.same:
        if not found.identical:
            yield f"The same config and files, packed in different ways ({found.a.digest}, {found.b.digest})."
        return
    yield f"--- {found.a.name}  {found.a.digest}  {found.a.platform}"
    yield f"+++ {found.b.name}  {found.b.digest}  {found.b.platform}"
    if found.config:
        yield "config:"
        for change in found.config:
            yield f"  {change.path}: {_value(change.a)} -> {_value(change.b)}"
    if found.steps:
        yield f"steps: the first {found.same_steps} are the same" if found.same_steps else "steps: from the first on"
        for step in found.steps:
            yield from _step(step)
    if found.files:
        counts = [sum(test(file) for file in found.files) for test in (_added, _removed, _changed)]
        yield f"files: {counts[0]} added, {counts[1]} removed, {counts[2]} changed"
        for file in found.files:
            yield from _file(file)
    for number in found.layers_only:
        yield f"step {number}: the layer has other bytes, but no file differs: their order, or fractions of times"


def _added(file: Any) -> bool:
    return file.a is None


def _removed(file: Any) -> bool:
    return file.b is None


def _changed(file: Any) -> bool:
    return file.a is not None and file.b is not None


def _value(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _step(step: Any) -> Iterator[str]:
    if step.a is None or step.b is None:
        side, mark = (step.b, "+") if step.a is None else (step.a, "-")
        yield f"  {step.number} {mark} {_line(side.created_by)}"
        return
    if "created_by" in step.what:
        yield f"  {step.number} - {_line(step.a.created_by)}"
        yield f"  {step.number} + {_line(step.b.created_by)}"
    else:
        yield f"  {step.number}   {_line(step.a.created_by)}"
    for field in step.what:
        if field != "created_by":
            yield f"      {field}: {getattr(step.a, field) or 'none'} -> {getattr(step.b, field) or 'none'}"


def _line(text: str) -> str:
    return " ".join(text.split()) or "(unknown)"


def _file(file: Any) -> Iterator[str]:
    if file.a is None or file.b is None:
        fact, mark, step = (file.b, "+", file.b_step) if file.a is None else (file.a, "-", file.a_step)
        size = f" {fact.size}" if fact.kind == "file" else f" -> {fact.link}" if fact.link else ""
        where = f"  (step {step})" if step else ""
        yield f"  {mark} /{file.path}  {fact.kind} {fact.mode:04o} {fact.uid}:{fact.gid}{size}{where}"
        return
    changes = ", ".join(_change(file, what) for what in file.what)
    steps = " and ".join(dict.fromkeys(str(step) for step in (file.a_step, file.b_step) if step))
    yield f"  ~ /{file.path}  {changes}" + (f"  (step {steps})" if steps else "")
    if file.content is not None:
        yield from _content(file.content)


def _change(file: Any, what: str) -> str:
    a, b = file.a, file.b
    if what == "mode":
        return f"mode {a.mode:04o} -> {b.mode:04o}"
    if what == "owner":
        return f"owner {a.uid}:{a.gid} -> {b.uid}:{b.gid}"
    if what == "mtime":
        return f"mtime {_time(a.mtime)} -> {_time(b.mtime)}"
    if what == "xattrs":
        names = sorted({key for key, _ in set(a.xattrs) ^ set(b.xattrs)})
        return f"xattrs {', '.join(names)}"
    if what == "content":
        return "content"
    return f"{what} {getattr(a, what) or 'none'} -> {getattr(b, what) or 'none'}"


def _time(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def _content(found: Any) -> Iterator[str]:
    if found.lines:
        yield from (f"      {line}" for line in found.lines)
        if found.cut:
            yield "      …"
        return
    if found.offset < 0:
        yield "      they differ further in than the first 64 MiB"
        return
    yield f"      from byte {found.offset} on"
    for mark, data in (("-", found.a), ("+", found.b)):
        for at in range(0, len(data), 16):
            row = data[at : at + 16]
            letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            yield f"      {mark} {found.start + at:08x}  {row.hex(' '):<47}  {letters}"
        if not data:
            yield f"      {mark} {found.start:08x}  (ends here)"
