"""Draws a board as lines: a pure function of the board, the time and the size. Imports rich (for cell widths, colours).

The words are those of ``docker buildx build`` in a terminal, so that nobody has to learn to read them anew.
"""

from __future__ import annotations

from itertools import zip_longest

from rich.cells import cell_len, set_cell_size
from rich.color import ColorSystem
from rich.style import Style

from shiplap.events.board import Board, Step, Transfer
from shiplap.events.plain import size_text
from shiplap.events.printable import printable

Piece = tuple[str, str]
"""Text and the name of its style."""
Line = tuple[Piece, ...]

STYLES = {
    "": Style.null(),
    "head": Style(bold=True),
    "done": Style(color="blue"),
    "run": Style(),
    "error": Style(color="red", bold=True),
    "dim": Style(dim=True),
    "bytes": Style(color="cyan"),
    "warn": Style(color="yellow"),
}
COLUMN = 48
"""Cells that a stage needs beside others; fewer, and instructions can no longer be told apart."""
GAP = "  "
TAIL = 5
"""Lines of output that are shown of a running step, if there is room."""
TRANSFERS = 4
BAR = 16
TAB = 4


def draw(board: Board, now: float, width: int, height: int) -> list[Line]:
    """A picture of at most ``height`` lines and ``width`` cells while the build runs."""
    lines = [_header(board, now, width)]
    rows = max(height - 1, 0)
    steps = [step for step in board.steps.values() if not step.cached]
    stages = list(dict.fromkeys(step.stage for step in steps if step.stage))
    busy = list(dict.fromkeys(step.stage for step in steps if step.stage and step.ended is None))
    most = (width + len(GAP)) // (COLUMN + len(GAP))
    if most < 2 or len(busy) < 2:
        order = {name: index for index, name in enumerate(stages)}
        return lines + _block(sorted(steps, key=lambda step: _place(step, order, stages, steps)), now, width, rows)
    shown = sorted(
        [*busy, *[name for name in reversed(stages) if name not in busy]][: max(most, len(busy))], key=stages.index
    )
    loose = [step for step in steps if step.stage not in shown]
    top = _block(loose, now, width, min(max(rows // 3, 1), rows))
    return lines + top + _columns(shown, steps, now, width, rows - len(top), most)


def final(board: Board, now: float, width: int) -> list[Line]:
    """What stays on the screen when all is over: every step that was run, what was reused, how long it took."""
    lines = [_header(board, now, width)]
    reused = board.reused()
    if reused:
        lines.append((_piece(f" => CACHED {_count(reused, 'step')}", width, "done"),))
    for step in board.steps.values():
        if not step.cached:
            lines.append(_step(step, now, width))
            lines += [_sum(list(step.transfers.values()), width)] if step.transfers else []
    return lines


def paint(line: Line, colour: bool) -> str:
    """A line as a terminal takes it."""
    if not colour:
        return "".join(text for text, _ in line)
    return "".join(STYLES[style].render(text, color_system=ColorSystem.STANDARD) for text, style in line)


def cells(line: Line) -> int:
    """How many cells a line takes."""
    return sum(cell_len(text) for text, _ in line)


def fit(text: str, width: int) -> str:
    """``text``, made safe to show, in at most ``width`` cells; an ellipsis stands for what was cut off."""
    text = printable(text[: 4 * width + 64]).replace("\n", " ").expandtabs(TAB)
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


# -- parts


def _header(board: Board, now: float, width: int) -> Line:
    ended = sum(step.ended is not None for step in board.steps.values())
    seconds = board.finished.seconds if board.finished is not None else now - (board.began or now)
    text = f"[+] {'Stopping' if board.stopping and board.finished is None else board.title} {seconds:.1f}s"
    text += f" ({ended}/{len(board.steps)})"
    if board.finished is not None:
        text += " CANCELED" if board.finished.canceled else " ERROR" if board.finished.error else " FINISHED"
    reused = board.reused()
    if reused and board.finished is None:
        text += f", {_count(reused, 'step')} reused"
    if board.warnings and board.finished is None:
        text += f", {_count(len(board.warnings), 'warning')}"
    return (_piece(text, width, "head"),)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _place(step: Step, order: dict[str, int], stages: list[str], steps: list[Step]) -> tuple[int, int]:
    # Stages one under the other, each in its own order; what belongs to none comes before the first or after the last.
    if step.stage:
        return order[step.stage], step.number
    first = min((other.number for other in steps if other.stage), default=step.number + 1)
    return (-1 if step.number < first else len(stages)), step.number


def _columns(stages: list[str], steps: list[Step], now: float, width: int, rows: int, most: int) -> list[Line]:
    """Stages side by side, and under each other where there are more than ``most``."""
    bands = [stages[at : at + most] for at in range(0, len(stages), most)]
    lines: list[Line] = []
    for number, band in enumerate(bands):
        share = (rows - len(lines)) // (len(bands) - number)
        if share < 2:
            break
        column = (width - len(GAP) * (len(band) - 1)) // len(band)
        blocks = []
        for stage in band:
            own = [step for step in steps if step.stage == stage]
            title: Line = (_piece(f"{stage} ", column, "head"), ("", ""))
            rule = column - cells(title)
            blocks.append([(title[0], ("─" * rule, "dim")), *_block(own, now, column, share - 1, titled=True)])
        for row in zip_longest(*blocks, fillvalue=()):
            lines.append(_beside(row, column))
    return lines


def _beside(row: tuple[Line, ...], column: int) -> Line:
    pieces: list[Piece] = []
    for line in row[:-1]:
        pieces.extend(line)
        pieces.append((" " * (column - cells(line)) + GAP, ""))
    return (*pieces, *row[-1])


def _block(steps: list[Step], now: float, width: int, rows: int, *, titled: bool = False) -> list[Line]:
    """Steps under each other, in at most ``rows`` lines: running ones before details, details before what is done.

    ``titled``: the stage stands above, so that steps need not name it.
    """
    running = [step for step in steps if step.ended is None]
    done = [step for step in steps if step.ended is not None]
    if rows <= 0:
        return []
    if len(running) > rows:
        hidden = len(running) - rows + 1
        return [
            *(_step(step, now, width, titled=titled) for step in running[: rows - 1]),
            _more(f"{hidden} more running", width),
        ]
    left = rows - len(running)
    reserve = min(len(done), left // 2 if running else left)
    details = _share({step.id: _details(step, width) for step in running}, left - reserve)
    left -= sum(map(len, details.values()))
    fold = len(done) - left
    lines: list[Line] = []
    if fold > 0:
        if left > 0:
            fold += 1
            lines.append(_more(f"{_count(fold, 'step')} done", width))
        done = done[fold:]
    kept = {step.id for step in (*running, *done)}
    for step in steps:
        if step.id in kept:
            lines.append(_step(step, now, width, titled=titled))
            lines.extend(details.get(step.id, ()))
    return lines


def _share(details: dict[str, list[Line]], rows: int) -> dict[str, list[Line]]:
    """Give ``rows`` lines out evenly; who gets fewer than there are keeps the last ones."""
    granted = dict.fromkeys(details, 0)
    while rows > 0 and any(granted[step] < len(lines) for step, lines in details.items()):
        for step, lines in details.items():
            if rows > 0 and granted[step] < len(lines):
                granted[step] += 1
                rows -= 1
    return {step: lines[len(lines) - granted[step] :] for step, lines in details.items()}


def _details(step: Step, width: int) -> list[Line]:
    moving = [transfer for transfer in step.transfers.values() if not transfer.done]
    lines = []
    if len(moving) > TRANSFERS or (step.transfers and not moving):
        lines.append(_sum(list(step.transfers.values()), width))
    lines += [_transfer(transfer, width) for transfer in moving[:TRANSFERS]]
    return lines + [(_piece(f" => => # {text}", width, "dim"),) for text in step.last_lines(TAIL)]


def _step(step: Step, now: float, width: int, *, titled: bool = False) -> Line:
    seconds = (step.ended if step.ended is not None else now) - step.began
    time = f" {max(seconds, 0.0):.1f}s"
    if step.canceled:
        mark, style = "CANCELED ", "warn"
    elif step.error:
        mark, style = "ERROR ", "error"
    else:
        mark, style = "", "done" if step.ended is not None else "run"
    shown = step.name.replace(f"[{step.stage} ", "[", 1) if titled else step.name
    name = fit(f" => {mark}{shown}", width - len(time))
    return ((name, style), (" " * (width - len(time) - cell_len(name)) + time, style))


def _more(text: str, width: int) -> Line:
    return (_piece(f" => … {text}", width, "dim"),)


def _transfer(transfer: Transfer, width: int) -> Line:
    speed = transfer.speed()
    told = size_text(transfer.current)
    bar = ""
    if transfer.total:
        told = f"{told:>8} / {size_text(transfer.total)}"
        filled = min(transfer.current * BAR // transfer.total, BAR)
        bar = f" [{'=' * filled}{' ' * (BAR - filled)}]"
    told = f"{told}{f'  {size_text(speed)}/s' if speed is not None else ''}"
    return _with_bytes(_short(transfer.item), bar, told, width)


def _sum(transfers: list[Transfer], width: int) -> Line:
    done = sum(transfer.done for transfer in transfers)
    current, total = sum(t.current for t in transfers), sum(t.total for t in transfers)
    told = f"{size_text(current)} / {size_text(total)}" if total else size_text(current)
    count = _count(len(transfers), "transfer")
    return _with_bytes(count if done == len(transfers) else f"{done} of {count} done", "", told, width)


def _with_bytes(name: str, bar: str, told: str, width: int) -> Line:
    left = fit(f" => => {name}", max(width - cell_len(told) - 1, 8))
    room = width - cell_len(left) - cell_len(told) - 2
    if room < len(bar):
        bar = ""
    return _cut(((left, "dim"), (bar, "bytes"), (f"  {told}" if room >= 0 else f" {told}", "bytes")), width)


def _cut(line: Line, width: int) -> Line:
    pieces: list[Piece] = []
    for text, style in line:
        text = fit(text, width)
        width -= cell_len(text)
        pieces.append((text, style))
    return tuple(pieces)


def _short(item: str) -> str:
    """A digest as docker shortens it; anything else as it is."""
    algorithm, colon, rest = item.partition(":")
    return f"{algorithm}:{rest[:12]}" if colon and algorithm in ("sha256", "sha512") else item


def _piece(text: str, width: int, style: str) -> Piece:
    return fit(text, width), style
