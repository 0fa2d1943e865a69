"""Stage 3: from stored scores to the list of a training run. The teacher is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config.mine import MineConfig, SelectConfig
from ..errors import ConfigError, DataError
from .listing import Listing
from .outputs import write_atomic, write_csv, write_list
from .select import RandomControl, Selection, Selector, budget, not_listed, scores_of, weights


_COLUMNS = ("index", "id", "classes", "log_probs", "logsumexp", "entropy")


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    selection: (image, class) pairs. images: int64, distinct chosen images, ascending. weights: float64 per image of
    those, or None. control: int64, as many images at random, or None. scored, excluded, above_min: numbers of images.
    before, after: int64 [C], images whose best class this is; images chosen for it.
    """

    selection: Selection
    images: np.ndarray
    weights: np.ndarray | None
    control: np.ndarray | None
    scored: int
    excluded: int
    above_min: int
    before: np.ndarray
    after: np.ndarray


def choose(config: MineConfig, parts: Callable[[Sequence[str]], Iterable[dict]], class_num: int) -> Choice:
    """parts: column names -> the score parts, one after the other; they are read once, and again for the control."""
    select = config.Select
    if select.classes_per_image > class_num:
        raise ConfigError(f"Select.classes_per_image: {select.classes_per_image}, but the teacher knows {class_num} "
                          "classes")
    listed_names, listed_ids = read_exclusions(select.exclude)
    columns = [*_COLUMNS, "name"] if listed_names else list(_COLUMNS)
    selector = Selector(class_num, select.top_k, select.classes_per_image, select.once, select.min_score)
    before = np.zeros(class_num, np.int64)
    scored = excluded = above_min = 0

    def left(part: dict) -> np.ndarray:
        keep = np.ones(len(part["index"]), bool)
        if listed_ids:
            keep &= not_listed(part["id"], listed_ids)
        if listed_names:
            keep &= not_listed(part["name"], listed_names)
        return keep

    for part in parts(columns):
        keep = left(part)
        scores = scores_of(part["log_probs"], part["logsumexp"], part["entropy"], select.score)[keep]
        classes = part["classes"][keep]
        scored, excluded = scored + len(keep), excluded + int((~keep).sum())
        before += np.bincount(classes[:, 0], minlength=class_num)
        candidates = scores[:, :select.classes_per_image].max(axis=1)
        above_min += int((candidates >= select.min_score).sum()) if select.min_score is not None else len(candidates)
        selector.add(classes, scores, part["id"][keep], part["index"][keep])
    selection = selector.result()
    if select.budget is not None:
        selection = budget(selection, select.budget)
    images = selection.images()
    control = None
    if select.control:
        drawn = RandomControl(len(images), config.seed)
        for part in parts(["index", "id", *(["name"] if listed_names else [])]):
            keep = left(part)
            drawn.add(part["id"][keep], part["index"][keep])
        control = drawn.result()
    return Choice(selection, images, None if select.floor is None else
                  weights(selection, class_num, select.floor, select.cap), control, scored, excluded, above_min, before,
                  selection.counts(class_num))


def read_exclusions(files: Sequence[str]) -> tuple[set[str], set[bytes]]:
    """(names, ids) in text files with one a line. An id is 32 hexadecimal digits, as in selected.csv."""
    names, ids = set(), set()
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"{file}: the exclusion list cannot be read ({e})") from e
        for line in filter(None, map(str.strip, lines)):
            try:
                is_id = len(line) == 32 and bytes.fromhex(line)
            except ValueError:
                is_id = False
            ids.add(bytes.fromhex(line)) if is_id else names.add(line)
    return names, ids


def write_choice(choice: Choice, listing: Listing, select: SelectConfig, class_names: Sequence[str],
                 folder: Path) -> list[Path]:
    """selected.txt, selected.csv, random.txt, selected_weights.txt as far as asked for; returns what was written."""
    files = [write_list(folder / "selected.txt", map(listing.name, choice.images.tolist()), select.format, select.root)]
    weight = choice.weights if choice.weights is not None else np.ones(len(choice.images))
    row = np.searchsorted(choice.images, choice.selection.index)
    files.append(write_csv(folder / "selected.csv", ("path", "id", "class", "class_name", "rank", "score", "weight"), (
        (listing.name(index), ids.tobytes().hex(), c, class_names[c], rank + 1, f"{score:.6g}", f"{weight[r]:.6g}")
        for index, ids, c, rank, score, r in zip(choice.selection.index.tolist(), choice.selection.ids,
                                                 choice.selection.classes.tolist(), choice.selection.ranks.tolist(),
                                                 choice.selection.scores.tolist(), row))))
    for name, wanted in (("random.txt", choice.control), ("selected_weights.txt", choice.weights)):
        if wanted is None:
            (folder / name).unlink(missing_ok=True)  # of an earlier selection
    if choice.control is not None:
        files.append(write_list(folder / "random.txt", map(listing.name, choice.control.tolist()), select.format,
                                select.root))
    if choice.weights is not None:
        files.append(write_atomic(folder / "selected_weights.txt", "".join(f"{w:.6g}\n" for w in choice.weights)))
    return files
