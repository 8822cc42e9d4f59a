"""A chart as SVG: panels of lines over a linear x axis and a logarithmic y axis.

Owns: the drawing alone; it knows nothing of what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 34, 44
LEGEND = 24
# Told apart by the colour-blind too; with marks of different shapes for print.
COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
MARKS = ("circle", "square", "diamond", "triangle")
STYLE = "font-family:sans-serif;font-size:11px;fill:#333"


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Sequence[Line]


def chart(
    panels: Sequence[Panel], x_label: str, y_label: str, x_ticks: Sequence[float], tick_format: str = "{:.2f}"
) -> str:
    """Panels side by side on the same axes; points left of the first tick are left out."""
    kept = [
        Panel(p.title, [Line(line.name, [at for at in line.points if at[0] >= x_ticks[0]]) for line in p.lines])
        for p in panels
    ]
    heights = [y for panel in kept for line in panel.lines for _, y in line.points] or [1]
    y_ticks = nice(min(heights), max(heights))
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    keys, wide = legend(names)
    width, height = max(WIDTH * len(kept), wide), HEIGHT + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for at, panel in enumerate(kept):
        parts.append(f'<g transform="translate({at * WIDTH} 0)">')
        parts += axes(panel.title, x_label, y_label if at == 0 else "", [tick_format.format(tick) for tick in x_ticks], x_ticks, y_ticks)
        for line in panel.lines:
            parts += drawn(line, names.index(line.name), x_ticks, y_ticks)
        parts.append("</g>")
    return "\n".join([*parts, *keys, "</svg>"]) + "\n"


def nice(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from one at or below the lowest to one at or above the highest."""
    steps = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    first = max(step for step in steps if step <= low)
    last = min((step for step in steps if step >= high), default=steps[-1])
    return [step for step in steps if first <= step <= max(last, first * 2)]


def place(x: float, y: float, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> tuple[float, float]:
    across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
    up = math.log(y / y_ticks[0]) / math.log(y_ticks[-1] / y_ticks[0])
    return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def axes(
    title: str, x_label: str, y_label: str, x_words: Sequence[str], x_ticks: Sequence[float], y_ticks: Sequence[float]
) -> list[str]:
    middle, foot = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM
    parts = [text(middle, 20, title, "middle", "font-weight:bold")]
    for tick, words in zip(x_ticks, x_words):
        x, _ = place(tick, y_ticks[0], x_ticks, y_ticks)
        parts += [rule(x, TOP, x, foot), text(x, foot + 14, words, "middle")]
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick, x_ticks, y_ticks)
        parts += [rule(LEFT, y, WIDTH - RIGHT, y), text(LEFT - 5, y + 4, f"{tick:,.0f}", "end")]
    parts.append(text(middle, foot + 30, x_label, "middle"))
    if y_label:
        parts.append(f'<g transform="translate(13 {(TOP + foot) / 2}) rotate(-90)">{text(0, 0, y_label, "middle")}</g>')
    return parts


def drawn(line: Line, number: int, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    if not line.points:
        return []
    colour = COLOURS[number % len(COLOURS)]
    spots = [place(x, y, x_ticks, y_ticks) for x, y in sorted(line.points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(mark(x, y, number) for x, y in spots),
    ]


def mark(x: float, y: float, number: int) -> str:
    colour = COLOURS[number % len(COLOURS)]
    match MARKS[number % len(MARKS)]:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>'
        case "square":
            corners = ((-3, -3), (3, -3), (3, 3), (-3, 3))
        case "diamond":
            corners = ((0, -4), (4, 0), (0, 4), (-4, 0))
        case _:
            corners = ((0, -4), (4, 3), (-4, 3))
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{path}" fill="{colour}"/>'


def legend(names: Sequence[str]) -> tuple[list[str], int]:
    """The names with their marks, in a row; and how wide that is."""
    parts, x, y = [], float(LEFT), HEIGHT + 8
    for number, name in enumerate(names):
        parts += [mark(x, y - 4, number), text(x + 9, y, name, "start")]
        x += 30 + 6.5 * len(name)
    return parts, round(x)


def text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{STYLE};{more}">{escape(words)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'
