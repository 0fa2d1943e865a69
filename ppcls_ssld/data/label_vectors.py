"""Several labels an image (Global.use_multilabel): their text in a list, and how many images are known to have each.

PaddleClas's MultiLabelDataset (ppcls/data/dataloader/multilabel_dataset.py, d178931): `path<TAB>1,0,-1,...` a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ..structs import UNLABELLED

NO_VECTOR = -128  # fills the row of a line without one
_WHOLE_NUMBERS = re.compile(rb" *[+-]?\d{1,9} *(, *[+-]?\d{1,9} *)*")
_LABELS = {b"1": 1, b"+1": 1, b"0": 0, b"-1": UNLABELLED}


def are_labels(texts: Iterable[bytes]) -> np.ndarray:
    """bool [n]: whether a text is whole numbers with commas between them, as many as there are."""
    return np.array([_WHOLE_NUMBERS.fullmatch(text) is not None for text in texts], bool)


def label_vectors(texts: Iterable[bytes], class_num: int) -> np.ndarray:
    """int8 [n, class_num] of texts such as b"1,0,-1"; NO_VECTOR all over the row of a text that is not one."""
    known: dict[bytes, np.ndarray] = {}  # as many as there are different ones: attributes repeat
    rows = []
    for text in texts:
        if text not in known:
            labels = [_LABELS.get(part.strip(), NO_VECTOR) for part in text.split(b",")]
            good = len(labels) == class_num and NO_VECTOR not in labels
            known[text] = np.array(labels if good else [NO_VECTOR] * class_num, np.int8)
        rows.append(known[text])
    return np.stack(rows) if rows else np.zeros((0, class_num), np.int8)


def known_counts(labels: Iterable[np.ndarray]) -> np.ndarray:
    """int64 [2, C]: images of which a label is known to be no, and yes. labels: int8 [n, C], one array a source."""
    return sum(np.stack([(rows == 0).sum(0), (rows == 1).sum(0)]) for rows in labels).astype(np.int64)


def yes_share(counts: np.ndarray) -> np.ndarray:
    """float32 [C] in [0, 1] from `known_counts`: share of yes among what is known; 0 where nothing is.

    PaddleClas's label_ratio is the mean of the labels as written, in which -1 counts as less than no.
    """
    return (counts[1] / np.maximum(counts.sum(0), 1)).astype(np.float32)
