"""Class by class: how many images there were, how many were chosen, with what scores, and what they look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .charts import bars, decades, histogram, logarithmic, quantiles
from .report_pictures import Pictures
from .sheets import thumbnail

if TYPE_CHECKING:
    from .report import MiningResult
    from .select import Selection

CLASSES_SHOWN, BEST_SHOWN, LAST_SHOWN = 20, 6, 6  # in contact sheets
MOST_NAMED = 30  # classes drawn one by one with their names; more become a profile
SHORT_SHOWN, ENDS_SHOWN, MOST_BARS, MOST_ROWS = 40, 8, 2000, 2000


@dataclass(frozen=True)
class Chosen:
    """One chosen image for the contact sheets. rank: in its class, 1 is the best."""

    class_id: int
    rank: int
    name: str
    score: float


def classes_shown(class_num: int) -> list[int]:
    """The classes that get contact sheets: all up to 20, else 20 spread evenly over the class ids."""
    return np.unique(np.linspace(0, class_num - 1, min(class_num, CLASSES_SHOWN)).round().astype(int)).tolist()


def scores_at_ranks(selection: Selection, class_num: int, top_k: int) -> np.ndarray:
    """float64 [class_num, 3]: the scores of the first, the middle and the K-th image of a class; nan where none is."""
    table = np.full([class_num, 3], np.nan)
    for column, rank in enumerate(_ranks(top_k)):
        rows = selection.ranks == rank - 1
        table[selection.classes[rows], column] = selection.scores[rows]
    return table


def chosen_shown(selection: Selection, class_num: int, name: Callable[[int], str]) -> list[Chosen]:
    """What the contact sheets need of a selection. name: of the image with this index."""
    shown = []
    for c in classes_shown(class_num):
        first, end = np.searchsorted(selection.classes, [c, c + 1]).tolist()
        best = range(first, min(first + BEST_SHOWN, end))
        last = range(max(end - LAST_SHOWN, best.stop), end)
        shown += [Chosen(c, int(selection.ranks[i]) + 1, name(int(selection.index[i])), float(selection.scores[i]))
                  for i in (*best, *last)]
    return shown


def _ranks(top_k: int) -> tuple[int, int, int]:
    return 1, (top_k + 1) // 2, top_k


def histograms(result: MiningResult) -> dict[str, Any]:
    """Before and after, by class id and by size: bars with names for few classes, a profile for many."""
    count = len(result.class_names)
    before, after = (np.zeros(count, int) if values is None else np.asarray(values)
                     for values in (result.before, result.after))
    orders = {"by class id": np.arange(count), "by size, largest first": np.argsort(-before, kind="stable")}
    short = np.argsort(after, kind="stable")[:int((after < (result.top_k or 0)).sum())]
    size = orders["by size, largest first"]
    return {
        "count": count, "few": count <= MOST_NAMED, "group": -(-count // MOST_BARS),
        "before_top": int(before.max(initial=0)), "after_top": int(max(after.max(initial=0), result.top_k or 0)),
        "decades": decades(before.max(initial=0)),
        "orders": [{"name": name, **_bars(result, order, before, after)} for name, order in orders.items()],
        "largest": [(result.class_names[c], int(before[c])) for c in size[:ENDS_SHOWN]],
        "smallest": [(result.class_names[c], int(before[c])) for c in size[::-1][:ENDS_SHOWN]],
        "short": len(short), "short_rows": [(result.class_names[c], int(after[c])) for c in short[:SHORT_SHOWN]],
        "empty": int((after == 0).sum()),
        "rows": [_row(result, c, before, after) for c in range(min(count, MOST_ROWS))],
    }


def _bars(result: MiningResult, order: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    before_top, after_top = max(before.max(initial=0), 1), max(after.max(initial=0), result.top_k or 1)
    if len(order) <= MOST_NAMED:
        return {"rows": [{"name": result.class_names[c], "before": int(before[c]), "after": int(after[c]),
                          "before_share": before[c] / before_top, "after_share": after[c] / after_top} for c in order]}
    return {"before": bars(logarithmic(_grouped(before[order]), before_top), "before",
                           "Images by best class, before; logarithmic"),
            "after": bars(_grouped(after[order]) / after_top, "after", "Images chosen by class")}


def _grouped(values: np.ndarray) -> np.ndarray:
    """Means of neighbours, so that at most MOST_BARS are left."""
    size = -(-len(values) // MOST_BARS)
    starts = np.arange(0, len(values), size)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))


def _row(result: MiningResult, c: int, before: np.ndarray, after: np.ndarray) -> tuple[Any, ...]:
    scores = [] if result.rank_scores is None else list(result.rank_scores[c])
    return c, result.class_names[c], int(before[c]), int(after[c]), scores


def rank_scores(result: MiningResult) -> list[dict[str, Any]]:
    """Over the classes, how the scores at ranks 1, K/2 and K are spread; one scale for the three."""
    if result.rank_scores is None or not np.isfinite(result.rank_scores).any() or result.top_k is None:
        return []
    low, high = float(np.nanmin(result.rank_scores)), float(np.nanmax(result.rank_scores))
    ranks = _ranks(result.top_k)
    rows = []
    for i, (rank, column) in enumerate(zip(ranks, result.rank_scores.T)):
        if rank in ranks[:i]:  # a small K has fewer than three ranks
            continue
        known = int(np.isfinite(column).sum())
        label = f"Scores at rank {rank}, from {low:.3g} to {high:.3g}"
        bins = histogram(column, low, high, bins=50 if known > 100 else 25)
        rows.append({"rank": rank, "classes": known, "quantiles": quantiles(column), "low": low, "high": high,
                     "chart": bars(bins / max(bins.max(), 1), "after", label)})
    return rows


def sheets(result: MiningResult, pictures: Pictures) -> list[dict[str, Any]]:
    """Per class shown: its best images and the last ones that were chosen."""
    by_class: dict[int, list[Chosen]] = {}
    for image in result.chosen:
        by_class.setdefault(image.class_id, []).append(image)
    ids = sorted(by_class) if len(by_class) <= CLASSES_SHOWN else _spread(sorted(by_class))
    found = []
    for c in ids:
        images = sorted(by_class[c], key=lambda image: (image.rank, image.name))
        best = images[:BEST_SHOWN]
        last = images[max(len(images) - LAST_SHOWN, len(best)):]
        found.append({"id": c, "name": result.class_names[c] if c < len(result.class_names) else str(c),
                      "count": len(images) if result.after is None else int(result.after[c]),
                      "best": [_tile(image, pictures) for image in best],
                      "last": [_tile(image, pictures) for image in last]})
    return found


def _spread(ids: Sequence[int]) -> list[int]:
    return [ids[i] for i in classes_shown(len(ids))]


def _tile(image: Chosen, pictures: Pictures) -> dict[str, Any]:
    picture = pictures.pool(image.name).image
    return {"name": image.name, "rank": image.rank, "score": image.score, "picture": thumbnail(picture),
            "tiny": max(picture.shape[:2]) <= 64}
