"""Training curves as SVG: one colour a row, a thin line a seed, a thick one their mean. Colours are the page's classes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ppcls_ssld.demo.charts import ticks

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 42

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """name: of the row. style: CSS class. seeds: for each seed its points (views, value), views ascending."""

    name: str
    style: str
    seeds: Sequence[Sequence[Point]]

    @property
    def mean(self) -> list[Point]:
        """At the views that all seeds have."""
        values = [dict(points) for points in self.seeds]
        shared = sorted(set.intersection(*map(set, values))) if values else []
        return [(views, statistics.fmean(v[views] for v in values)) for views in shared]


def curve_chart(curves: Sequence[Curve], percent: bool, label: str) -> str:
    """SVG of the curves over training views, y from 0. '' without points."""
    points = [point for curve in curves for seed in curve.seeds for point in seed]
    if not points:
        return ""
    x_top, y_top = max(x for x, _ in points) or 1, max(y for _, y in points) * 1.05 or 1

    def place(point: Point) -> str:
        return (f"{LEFT + point[0] / x_top * (WIDTH - LEFT - RIGHT):.1f} "
                f"{HEIGHT - BOTTOM - max(point[1], 0) / y_top * (HEIGHT - TOP - BOTTOM):.1f}")

    def path(line: Sequence[Point], style: str) -> str:
        return f'<path class="{style}" d="M{"L".join(map(place, line))}"/>' if line else ""

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for y in ticks(y_top):
        py, text = place((0, y)).split()[1], f"{100 * y if percent else y:g}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py}" y2="{py}"/><text class="tick" '
                     f'x="{LEFT - 8}" y="{float(py) + 4:.1f}" text-anchor="end">{text}</text>')
    for x in ticks(x_top, 4):
        parts.append(f'<text class="tick" x="{place((x, 0)).split()[0]}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                     f'{views_text(x)}</text>')
    parts.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">views</text>')
    for curve in curves:
        several = len(curve.seeds) > 1 and len(curve.mean) > 1
        lines = [path(seed, f"seed {curve.style}" if several else f"curve {curve.style}") for seed in curve.seeds]
        lines += [path(curve.mean, f"curve {curve.style}")] if several else []
        parts.append(f"<g><title>{escape(curve.name)}</title>{''.join(lines)}</g>")
    return "".join([*parts, "</svg>"])


def views_text(views: float) -> str:
    """400000 -> '400k', 1.2e9 -> '1.2G'."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if views >= size:
            return f"{views / size:g}{letter}"
    return f"{views:g}"
