"""Pictures of a graph: text, mermaid, dot, SVG. Stages are boxes, operations stand in them, arrows go with the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from shiplap.errors import UsageError
from shiplap.graph.node import Node, walk
from shiplap.graph.operations import GitSource, HttpSource, ImageSource, LocalSource

STYLES = ("text", "mermaid", "dot", "svg")


def draw(targets: Sequence[Node], style: str, unneeded: Iterable[str] = ()) -> str:
    """Draw what ``targets`` reach; ``unneeded`` names stages that they do not. Raises UsageError for an unknown style."""
    nodes = list(walk(targets))
    skipped = list(unneeded)
    if style == "text":
        return _text(nodes, skipped)
    if style == "mermaid":
        return _mermaid(nodes, skipped)
    if style == "dot":
        return _dot(nodes, skipped)
    if style == "svg":
        return _svg(nodes, skipped)
    raise UsageError(f"unknown style {style!r}", code="unknown-style", hint="use one of " + ", ".join(STYLES))


def label(node: Node) -> str:
    """One line that says what a node does."""
    operation = node.operation
    if isinstance(operation, ImageSource):
        return f"image {operation.reference.partition('@')[0]}"
    if isinstance(operation, LocalSource):
        return f"local {operation.name}"
    if isinstance(operation, HttpSource | GitSource):
        return f"{'http' if isinstance(operation, HttpSource) else 'git'} {operation.url}"
    # The name without its counter, "[build 2/5] ": that is for progress.
    text = node.about.name.replace("\n", " ")
    text = text.partition("] ")[2] if text.startswith("[") and "] " in text else text
    return text if len(text) <= 72 else text[:71] + "…"


def _stages(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    stages: dict[str, list[Node]] = {}
    for node in nodes:
        stage = "" if isinstance(node.operation, LocalSource | ImageSource) else node.about.stage
        stages.setdefault(stage, []).append(node)
    return stages


def _ids(nodes: Sequence[Node]) -> dict[str, str]:
    return {node.digest: f"n{number}" for number, node in enumerate(nodes, 1)}


def _text(nodes: Sequence[Node], skipped: Sequence[str]) -> str:
    numbers = {node.digest: number for number, node in enumerate(nodes, 1)}
    lines = []
    for stage, members in _stages(nodes).items():
        lines.append(f"stage {stage}" if stage else "sources")
        for node in members:
            inputs = ", ".join(f"#{numbers[child.digest]}" for child in node.inputs)
            lines.append(f"  #{numbers[node.digest]} {label(node)}" + (f"  <- {inputs}" if inputs else ""))
    lines.extend(f"stage {name}\n  (not needed, not built)" for name in skipped)
    return "\n".join(lines) + "\n"


def _mermaid(nodes: Sequence[Node], skipped: Sequence[str]) -> str:
    ids = _ids(nodes)

    def quoted(text: str) -> str:
        return '"' + text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;") + '"'

    lines = ["flowchart TD"]
    for number, (stage, members) in enumerate(_stages(nodes).items()):
        indent = "  "
        if stage:
            lines.append(f"  subgraph s{number}[{quoted(stage)}]")
            indent = "    "
        lines.extend(f"{indent}{ids[node.digest]}[{quoted(label(node))}]" for node in members)
        if stage:
            lines.append("  end")
    lines.extend(f"  x{number}[{quoted(name + ' (not needed)')}]:::skipped" for number, name in enumerate(skipped))
    lines.extend(f"  {ids[child.digest]} --> {ids[node.digest]}" for node in nodes for child in _distinct(node))
    if skipped:
        lines.append("  classDef skipped stroke-dasharray: 4 4")
    return "\n".join(lines) + "\n"


def _dot(nodes: Sequence[Node], skipped: Sequence[str]) -> str:
    ids = _ids(nodes)

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph build {", "  node [shape=box, fontname=monospace, fontsize=10];"]
    for number, (stage, members) in enumerate(_stages(nodes).items()):
        if stage:
            lines.append(f"  subgraph cluster_{number} {{ label={quoted(stage)};")
        lines.extend(f"  {ids[node.digest]} [label={quoted(label(node))}];" for node in members)
        if stage:
            lines.append("  }")
    lines.extend(f"  x{n} [label={quoted(name + ' (not needed)')}, style=dashed];" for n, name in enumerate(skipped))
    lines.extend(f"  {ids[child.digest]} -> {ids[node.digest]};" for node in nodes for child in _distinct(node))
    return "\n".join([*lines, "}"]) + "\n"


def _distinct(node: Node) -> list[Node]:
    return list({child.digest: child for child in node.inputs}.values())


# -- SVG: each stage is a column, each node stands one row below the lowest of its inputs

_COLUMN, _ROW, _WIDTH, _HEIGHT, _MARGIN = 400, 56, 360, 34, 20


def _svg(nodes: Sequence[Node], skipped: Sequence[str]) -> str:
    stages = list(_stages(nodes).items())
    columns = {node.digest: number for number, (_, members) in enumerate(stages) for node in members}
    taken: set[tuple[int, int]] = set()
    rows: dict[str, int] = {}
    for node in nodes:
        row = max((rows[child.digest] + 1 for child in node.inputs), default=1)
        while (columns[node.digest], row) in taken:
            row += 1
        taken.add((columns[node.digest], row))
        rows[node.digest] = row
    width = _MARGIN * 2 + _COLUMN * (len(stages) + bool(skipped))
    height = _MARGIN * 2 + _ROW * (max([*rows.values(), len(skipped)], default=1) + 1)

    def at(column: int, row: int) -> tuple[int, int]:
        return _MARGIN + column * _COLUMN, _MARGIN + row * _ROW

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="ui-monospace, monospace" font-size="11">',
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#567"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for column, (stage, members) in enumerate(stages):
        x, y = at(column, 0)
        tall = max(rows[node.digest] for node in members) * _ROW + _HEIGHT + 10
        parts.append(
            f'<rect x="{x - 10}" y="{y}" width="{_WIDTH + 20}" height="{tall}" rx="8" fill="#f3f6fa" stroke="#c8d2dc"/>'
        )
        parts.append(f'<text x="{x}" y="{y + 22}" font-weight="bold">{escape(stage or "sources")}</text>')
    for node in nodes:
        x, y = at(columns[node.digest], rows[node.digest])
        for child in _distinct(node):
            cx, cy = at(columns[child.digest], rows[child.digest])
            parts.append(_arrow(cx, cy, x, y))
    for node in nodes:
        x, y = at(columns[node.digest], rows[node.digest])
        text = label(node)
        text = text if len(text) <= 52 else text[:51] + "…"
        parts.append(f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="#fff" stroke="#567"/>')
        parts.append(f'<text x="{x + 8}" y="{y + 21}"><title>{escape(node.about.name)}</title>{escape(text)}</text>')
    for number, name in enumerate(skipped):
        x, y = at(len(stages), number + 1)
        parts.append(
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="#fff" stroke="#aaa" '
            'stroke-dasharray="4 4"/>'
        )
        parts.append(f'<text x="{x + 8}" y="{y + 21}" fill="#888">{escape(name)} (not needed)</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(cx: int, cy: int, x: int, y: int) -> str:
    if cx == x:
        start, end = (cx + _WIDTH // 2, cy + _HEIGHT), (x + _WIDTH // 2, y)
        return f'<path d="M{start[0]},{start[1]} L{end[0]},{end[1]}" stroke="#567" fill="none" marker-end="url(#a)"/>'
    left_to_right = cx < x
    start = (cx + _WIDTH if left_to_right else cx, cy + _HEIGHT // 2)
    end = (x if left_to_right else x + _WIDTH, y + _HEIGHT // 2)
    bend = 40 if left_to_right else -40
    curve = f"M{start[0]},{start[1]} C{start[0] + bend},{start[1]} {end[0] - bend},{end[1]} {end[0]},{end[1]}"
    return f'<path d="{curve}" stroke="#567" fill="none" marker-end="url(#a)"/>'
