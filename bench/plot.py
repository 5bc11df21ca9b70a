"""The figures as one picture: a bar for each builder, a group for each scenario, logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from xml.etree import ElementTree

_COLOURS = ("#0b6e4f", "#5aa786", "#2b6cb0", "#90b4dc", "#b7791f")
_LEFT, _WIDTH, _BAR = 330, 560, 13


def svg(groups: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """An SVG document. ``groups``: title, and seconds by builder. The scale begins at 10 ms."""
    names = list(dict.fromkeys(name for _, seconds in groups for name in seconds))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    longest = max((value for _, seconds in groups for value in seconds.values()), default=1.0)
    decades = max(1.0, math.log10(longest / 0.01))
    parts: list[str] = []
    y = 44
    for number, name in enumerate(names):
        parts.append(f'<rect x="{_LEFT + 110 * number}" y="10" width="12" height="12" fill="{colours[name]}"/>')
        parts.append(f'<text x="{_LEFT + 110 * number + 17}" y="20">{escape(name)}</text>')
    for title, seconds in groups:
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 10}" text-anchor="end">{escape(title)}</text>')
        for name, value in seconds.items():
            width = max(1.0, _WIDTH * math.log10(max(value, 0.0101) / 0.01) / decades)
            parts.append(
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 2}" fill="{colours[name]}"/>'
                f'<text x="{_LEFT + width + 4:.1f}" y="{y + 9}" font-size="10">{value:.2f} s</text>'
            )
            y += _BAR
        y += 9
    document = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 80}" height="{y + 10}" '
        f'font-family="sans-serif" font-size="12">{"".join(parts)}</svg>\n'
    )
    ElementTree.fromstring(document)  # a picture that no viewer opens is none
    return document
