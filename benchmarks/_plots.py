"""Plots as SVG, in colours that can be read on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

_TEXT = "#7f8790"
_LINE = "#7f879055"
_COLOURS = ("#e8590c", "#1c8fd6", "#2b9348", "#9c5fd6", "#d6336c", "#0e9aa7", "#b08900")
_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 860, 330, 30, 26, 24
_LEGEND_COLUMNS = 3


def dots(
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    *,
    label: Callable[[float], str],
    marks: Mapping[str, float] | None = None,
) -> str:
    """A row of dots for each name, on a logarithmic scale, a colour for each series.

    `rows` has the value of each series by name; `label` names places on the scale; `marks` has a
    place in each row to compare with.
    """
    series = list(dict.fromkeys(name for values in rows.values() for name in values))
    everything = [value for values in rows.values() for value in values.values()]
    everything += (marks or {}).values()
    low = math.floor(math.log10(min(everything)))
    high = max(math.ceil(math.log10(max(everything))), low + 1)

    def x_of(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log10(value) - low) / (high - low)

    bottom = _TOP + _ROW * len(rows)
    body = [_axis(x_of(10.0**power), bottom, label(10.0**power)) for power in range(low, high + 1)]
    for number, (name, values) in enumerate(rows.items()):
        y = _TOP + _ROW * (number + 0.5)
        body.append(_label(_LEFT - 12, y + 4, name, "end"))
        if marks and name in marks:
            x = x_of(marks[name])
            body.append(f'<path d="M{x:.1f} {y - 9:.1f}v18" stroke="{_TEXT}" stroke-width="2"/>')
        for one in reversed(series):
            if one in values:
                colour = _COLOURS[series.index(one) % len(_COLOURS)]
                hint = f"{name}, {one}: {label(values[one])}"
                body.append(_dot(x_of(values[one]), y, colour, hint))
    body += _legend(series, bottom + 34)
    height = bottom + 44 + 20 * math.ceil(len(series) / _LEGEND_COLUMNS)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="sans-serif" font-size="13"><title>{escape(title)}</title>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _axis(x: float, bottom: float, text: str) -> str:
    line = f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="{_LINE}"/>'
    return line + _label(x, bottom + 16, text, "middle")


def _legend(series: Sequence[str], top: float) -> list[str]:
    parts = []
    for number, name in enumerate(series):
        row, column = divmod(number, _LEGEND_COLUMNS)
        x, y = 20 + column * _WIDTH / _LEGEND_COLUMNS, top + 20 * row
        parts.append(_dot(x, y, _COLOURS[number % len(_COLOURS)], name))
        parts.append(_label(x + 12, y + 4, name, "start"))
    return parts


def _dot(x: float, y: float, colour: str, hint: str) -> str:
    place = f'cx="{x:.1f}" cy="{y:.1f}" r="5.5"'
    return f'<circle {place} fill="{colour}"><title>{escape(hint)}</title></circle>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{_TEXT}">{escape(text)}</text>'
