"""The report's section on mining: what was in the pool, where it ended, and pictures of each group."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..rng import Stream, generator
from .images import spread
from .mined import CHOSEN, ENDS, PASSED, REAL, REMOVED, UNREADABLE, Mined
from .pool import BROKEN, COPY, STRANGER, Planted
from .story import Story, mining_command

NAMES = {REAL: "images without labels", COPY: "copies of test images", STRANGER: "strangers", BROKEN: "broken files",
         UNREADABLE: "unreadable", REMOVED: "removed as copies", PASSED: "not chosen", CHOSEN: "chosen"}
COPIES_SHOWN, MISTAKES_SHOWN, OTHERS_SHOWN = 12, 6, 30


def mining_context(story: Story, picture: Callable[[str], str]) -> dict[str, Any]:
    """What the template needs. picture: data URI of an image file."""
    mined, planted = story.mined, {p.path: p for p in story.pool.planted}
    copies, real = mined.ended[COPY], mined.ended[REAL]
    found = _some(copies[REMOVED], COPIES_SHOWN, story.seed)
    missed = sorted((*copies[PASSED], *copies[CHOSEN]))
    return {
        "mined": mined, "command": mining_command(story.output),
        "sizes": {kind: mined.count(kind) for kind in mined.ended},
        "strangers": _words({p.what for p in planted.values() if p.kind == STRANGER}),
        "broken": _words({p.what for p in planted.values() if p.kind == BROKEN}),
        "edits": _words({p.what for p in planted.values() if p.kind == COPY}),
        "table": [(NAMES[kind], [(NAMES[end], mined.count(kind, end)) for end in ENDS]) for kind in mined.ended],
        "funnel": _funnel(mined),
        "found": [_pair(planted[path], mined.removed[path].copy_of, _evidence(mined, path), picture) for path in found],
        "missed": [_pair(planted[path], planted[path].source, "not found", picture)
                   for path in missed[:MISTAKES_SHOWN]], "missed_count": len(missed),
        "innocent": [{"one": picture(path), "two": picture(mined.removed[path].copy_of), "what": _evidence(mined, path),
                      "says": ""} for path in _some(real[REMOVED], MISTAKES_SHOWN, story.seed)],
        "groups": [(text, len(paths), [picture(path) for path in _some(paths, OTHERS_SHOWN, story.seed)])
                   for text, paths in (("Strangers that were not chosen", mined.ended[STRANGER][PASSED]),
                                       ("Strangers that were chosen all the same", mined.ended[STRANGER][CHOSEN]),
                                       ("Real images that were not chosen", real[PASSED]),
                                       ("Real images that were chosen", real[CHOSEN])) if paths],
    }


def _funnel(mined: Mined) -> list[dict[str, Any]]:
    """A bar per step; a loss hangs at the end of the bar before it. start, size: per cent of the pool."""
    pool = mined.total()
    left = pool - mined.total(UNREADABLE) - mined.total(REMOVED)
    rows = (("in the pool", 0, pool, ""),
            ("unreadable", pool - mined.total(UNREADABLE), mined.total(UNREADABLE), "wrong"),
            ("taken for copies", left, mined.total(REMOVED), "wrong"),
            ("seen by the teacher", 0, left, ""),
            ("chosen", 0, mined.total(CHOSEN), "ssld"))
    return [{"name": name, "start": 100 * start / pool, "size": 100 * count / pool, "count": count, "style": style}
            for name, start, count, style in rows]


def _pair(planted: Planted, other: str, says: str, picture: Callable[[str], str]) -> dict[str, str]:
    return {"one": picture(planted.path), "two": picture(other), "what": planted.what, "says": says}


def _evidence(mined: Mined, path: str) -> str:
    """The stage that decided, with its score."""
    removal = mined.removed[path]
    if math.isnan(removal.score):
        return f"same {removal.stage}"
    return f"{removal.score:.0f} places" if removal.stage == "keypoints" else f"likeness {removal.score:.2f}"


def _some(paths: Sequence[str], limit: int, seed: int) -> list[str]:
    """Up to `limit`, from all over, in an order that tells nothing."""
    chosen = spread(len(paths), limit) if paths else []
    generator(seed, 4, 0, Stream.SUBSET).shuffle(chosen)
    return [paths[i] for i in chosen]


def _words(names: set[str]) -> str:
    return ", ".join(sorted(names))
