"""Stage 3: from stored scores to the list of a training run. The teacher is not asked again."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atomic import write_atomic
from ..config.mine import MineConfig, SelectConfig
from ..data.files import split_member
from ..errors import ConfigError, DataError
from .listing import Listing
from .outputs import write_csv, write_list
from .select import RandomControl, Selection, Selector, budget, not_listed, scores_of, weights
from .sources import names_in_list

_SCORES = ("classes", "log_probs", "logsumexp", "entropy")
_ID = re.compile(rb"[0-9a-f]{32}")


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    selection: (image, class) pairs. images: int64, distinct chosen images, ascending. weights: float64 per image of
    those, or None. control: int64, as many images at random, or None. scored, excluded, above_min: numbers of images.
    exclusion_lines, exclusion_digest: of the exclusion lists.
    before, after: int64 [C], images whose best class this is; images chosen for it.
    """

    selection: Selection
    images: np.ndarray
    weights: np.ndarray | None
    control: np.ndarray | None
    scored: int
    excluded: int
    exclusion_lines: int
    exclusion_digest: str
    above_min: int
    before: np.ndarray
    after: np.ndarray


def choose(config: MineConfig, parts: Callable[[Sequence[str]], Iterable[dict]], class_num: int) -> Choice:
    """parts: column names -> the score parts, one after the other; they are read once, and again for the control."""
    select = config.Select
    if select.classes_per_image > class_num:
        raise ConfigError(f"Select.classes_per_image: {select.classes_per_image}, but the teacher knows {class_num} "
                          "classes")
    exclusions = Exclusions(select)
    selector = Selector(class_num, select.top_k, select.classes_per_image, select.once, select.min_score)
    before = np.zeros(class_num, np.int64)
    scored = excluded = above_min = 0
    for part in parts([*exclusions.columns, *_SCORES]):
        keep = exclusions.left(part)
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
        for part in parts(exclusions.columns):
            keep = exclusions.left(part)
            drawn.add(part["id"][keep], part["index"][keep])
        control = drawn.result()
    return Choice(selection, images, None if select.floor is None else
                  weights(selection, class_num, select.floor, select.cap), control, scored, excluded, exclusions.lines,
                  exclusions.digest, above_min, before, selection.counts(class_num))


class Exclusions:
    """Images to leave out, from text files: a name a line as in a pool's list (`selected.txt` of another run will do;
    relative names are below Select.root, else beside the file), or an id, 32 hexadecimal digits as in selected.csv.

    DataError when a file cannot be read. lines: of all files. digest: of their content.
    """

    def __init__(self, select: SelectConfig):
        self.names: set[str] = set()
        self.ids: set[bytes] = set()
        self.lines, digest = 0, hashlib.sha256()
        for file in select.exclude:
            try:
                content = Path(file).read_bytes()
            except OSError as e:
                raise DataError(f"{file}: the exclusion list cannot be read ({e.strerror})") from e
            digest.update(content)
            words = [line.strip() for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n")]
            found = {bytes.fromhex(word.decode()) for word in words if _ID.fullmatch(word)}
            self.lines += sum(map(bool, words))
            self.ids |= found
            if any(word and not _ID.fullmatch(word) for word in words):
                self.names.update(names_in_list(file, select.root or os.path.dirname(os.path.abspath(file))))
        self.digest = digest.hexdigest() if select.exclude else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """What `left` needs of a score part."""
        return ("index", "id", "name") if self.names else ("index", "id")

    def left(self, part: dict) -> np.ndarray:
        """bool: images of a score part that are not excluded."""
        keep = np.ones(len(part["index"]), bool)
        if self.ids:
            keep &= not_listed(part["id"], self.ids)
        if self.names:
            keep &= not_listed(part["name"], self.names)
        return keep


def write_choice(choice: Choice, listing: Listing, select: SelectConfig, class_names: Sequence[str],
                 folder: Path, say: Callable[[str], None]) -> list[Path]:
    """selected.txt, selected.csv, random.txt, selected_weights.txt as far as asked for; returns what was written."""
    strange = sum(" " in name or split_member(name) is not None for name in map(listing.name, choice.images.tolist()))
    if select.format == "paddleclas" and strange:
        say(f"warning: PaddleClas's own reader cannot open {strange:,} of these images (a space in the name, or inside "
            "a tar archive); ours can")
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
        files.append(write_atomic(folder / "selected_weights.txt", "".join(f"{w:.9g}\n" for w in choice.weights)))
    return files
