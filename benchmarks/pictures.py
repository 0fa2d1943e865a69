"""Pictures of measured tables, for documents: docs/images/<table>.png.

    python benchmarks/pictures.py [TABLE ...]

Left: each row's runs (dots), their mean (bar) and what was published (diamond). Right: top-1 over training views, means
over seeds.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from textwrap import fill

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.measured import Row, Table, read  # noqa: E402
from benchmarks.environment import ROOT  # noqa: E402
from benchmarks.table import RESULTS, TABLES  # noqa: E402

IMAGES = ROOT / "docs" / "images"
LABEL_WIDTH = 38  # characters of a row's label before it is broken


def draw(table: Table, path: Path) -> None:
    """One picture; rows without a run say so."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    curves = {row.name: curve for row in table.rows if len(curve := _curve(row)) > 1}
    figure, axes = plt.subplots(1, 2 if curves else 1, figsize=(11, 0.9 + 0.42 * len(table.rows)), layout="constrained",
                                squeeze=False, width_ratios=[3, 2] if curves else None)
    left = axes[0, 0]
    palette = plt.get_cmap("tab10").colors + plt.get_cmap("Dark2").colors
    colours = {row.name: palette[i % len(palette)] for i, row in enumerate(table.rows)}
    for i, row in enumerate(table.rows):
        if row.results:
            values = [100 * v for v in row.top1.values()]
            left.plot([mean(values)], [i], "|", color=colours[row.name], markersize=18, markeredgewidth=3)
            left.plot(values, [i] * len(values), "o", color=colours[row.name], alpha=0.6)
            left.annotate(f"{mean(values):.1f}", (max(values), i), xytext=(9, 0), textcoords="offset points", va="center")
        else:
            left.annotate("not run", (0.02, i), xycoords=("axes fraction", "data"), va="center", color="grey")
        if row.expected is not None:
            left.plot([100 * row.expected], [i], "D", color="black", fillstyle="none")
    left.set_yticks(range(len(table.rows)), [fill(row.what or row.name, LABEL_WIDTH) for row in table.rows], fontsize="small")
    left.set_ylim(len(table.rows) - 0.5, -0.5)
    left.margins(x=0.16)
    left.set_xlabel("top-1 in %")
    left.grid(axis="x", alpha=0.3)
    if curves:
        right = axes[0, 1]
        for name, curve in curves.items():
            right.plot(*zip(*curve), ".-", color=colours[name], label=name)
        right.set_xlabel("image views")
        right.set_ylabel("top-1 in %")
        right.grid(alpha=0.3)
        right.locator_params(axis="x", nbins=5)
        right.xaxis.set_major_formatter("{x:,.0f}")
        right.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(table.title, fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(row: Row) -> list[tuple[int, float]]:
    """(views, mean top-1 in % of the seeds that were scored there)."""
    points: dict[int, list[float]] = defaultdict(list)
    for result in row.results.values():
        for point in result["curve"]:
            if "top1" in point:
                points[point["views"]].append(100 * point["top1"])
    return [(views, mean(values)) for views, values in sorted(points.items())]


def main() -> None:
    tables, _ = read(TABLES, RESULTS)
    for table in tables:
        if table.name in sys.argv[1:] or (not sys.argv[1:] and any(row.results for row in table.rows)):
            path = IMAGES / f"{table.name}.png"
            draw(table, path)
            print(f"written: {path}")


if __name__ == "__main__":
    main()
