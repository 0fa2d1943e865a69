"""Learning curves as SVG. Colours are the page's CSS classes, so that a dark page has a dark chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 96, 14, 40  # margins; the right one holds the names of the lines


@dataclass(frozen=True)
class Line:
    """name: written at the line's end. style: CSS class. points: (x, y), x ascending."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def line_chart(lines: Sequence[Line], y_top: float, percent: bool, label: str,
               level: tuple[str, str, float] | None = None) -> str:
    """SVG of curves over images seen, y from 0 to y_top. level: (name, CSS class, y) of a dashed horizontal line."""
    x_top = max(x for line in lines for x, _ in line.points)

    def place(x: float, y: float) -> tuple[float, float]:
        y = min(max(y, 0.0), y_top)
        return (LEFT + x / x_top * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - y / y_top * (HEIGHT - TOP - BOTTOM))

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for y in ticks(y_top):
        px, py = place(0, y)
        text = f"{y:.0%}" if percent else f"{y:g}"
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
                     f'<text class="tick" x="{px - 8:.1f}" y="{py + 4:.1f}" text-anchor="end">{text}</text>')
    for x in ticks(x_top, 4):
        px, py = place(x, 0)
        text = f"{x / 1000:g}k" if x else "0"
        parts.append(f'<text class="tick" x="{px:.1f}" y="{py + 18:.1f}" text-anchor="middle">{text}</text>')
    parts.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
                 'images seen</text>')
    names = []
    if level:
        (x1, y1), (x2, _) = place(0, level[2]), place(x_top, level[2])
        parts.append(f'<line class="level {level[1]}" x1="{x1}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y1:.1f}"/>')
        names.append((y1, level[0], level[1]))
    for line in lines:
        placed = [place(x, y) for x, y in line.points]
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(placed))
        parts.append(f'<path class="curve {line.style}" d="{path}"/>'
                     f'<circle class="end {line.style}" cx="{placed[-1][0]:.1f}" cy="{placed[-1][1]:.1f}" r="4"/>')
        names.append((placed[-1][1], line.name, line.style))
    for y, name, style in spread_labels(names):
        parts.append(f'<text class="name {style}" x="{WIDTH - RIGHT + 10}" y="{y + 4:.1f}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def ticks(top: float, about: int = 5) -> list[float]:
    """0 and its round multiples up to `top`: steps of 1, 2 or 5 times a power of ten."""
    raw = top / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [round(i * step, 10) for i in range(int(top / step + 1e-9) + 1)]


def spread_labels(names: Sequence[tuple[float, str, str]], gap: float = 17) -> list[tuple[float, str, str]]:
    """(y, name, style), moved apart so that no two lie closer than `gap`, inside the chart, in the order of y."""
    placed: list[tuple[float, str, str]] = []
    for y, name, style in sorted(names):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, name, style))
    below = placed[-1][0] - (HEIGHT - BOTTOM) if placed else 0
    for i in range(len(placed) - 1, -1, -1):
        if below <= 0:
            break
        y, name, style = placed[i]
        placed[i] = (y - below, name, style)
        below = placed[i - 1][0] + gap - placed[i][0] if i else 0
    return placed
