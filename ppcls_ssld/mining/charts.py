"""Bars as SVG. Colours are the page's CSS classes; words stand beside it, in HTML, where no screen shrinks them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 1000, 100  # units of the drawing, which is stretched to its box


def bars(shares: np.ndarray, style: str, label: str) -> str:
    """SVG of bars side by side, as one outline: a thousand classes cost a few kilobytes.

    shares: [n], of the full height, cut at 1. style: CSS class. label: what a screen reader says.
    """
    step = WIDTH / max(len(shares), 1)
    gap = step * 0.18 if len(shares) <= 120 else 0.0
    path = []
    for i, share in enumerate(shares):
        if share > 0:
            height = min(max(share * HEIGHT, 1.0), HEIGHT)  # a few is not none
            path.append(f"M{_short(i * step + gap / 2)} {HEIGHT}V{_short(HEIGHT - height)}"
                        f"H{_short((i + 1) * step - gap / 2)}V{HEIGHT}z")
    return (f'<svg class="bars {style}" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(label)}"><path d="{"".join(path)}"/></svg>')


def logarithmic(values: np.ndarray, top: float) -> np.ndarray:
    """Heights in [0, 1] of counts whose largest would hide the others: log(1 + n), 0 stays 0 and `top` is 1."""
    return np.log1p(values) / np.log1p(max(top, 1))


def decades(top: float) -> list[tuple[int, float]]:
    """(count, height) of 10, 100, ... on the scale of `logarithmic`, those near the upper edge left out."""
    counts = [10 ** power for power in range(1, 10)]
    heights = [float(logarithmic(count, top)) for count in counts]
    return [(count, height) for count, height in zip(counts, heights) if height < 0.88]


def histogram(values: np.ndarray, low: float, high: float, bins: int = 50) -> np.ndarray:
    """int [bins], how many of the finite values lie in each of `bins` equal steps from low to high."""
    return np.histogram(values[np.isfinite(values)], bins=bins, range=(low, high if high > low else low + 1.0))[0]


def quantiles(values: np.ndarray, shares: Sequence[float] = (0.0, 0.05, 0.5, 0.95, 1.0)) -> list[float]:
    """Quantiles of the finite values; empty when there is none."""
    finite = values[np.isfinite(values)]
    return np.quantile(finite, shares).tolist() if len(finite) else []


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
