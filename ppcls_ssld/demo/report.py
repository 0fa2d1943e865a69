"""The demo's report: one HTML file that needs nothing else, for reading on a desk or a phone, in light or dark."""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import paddle
from markupsafe import Markup

from ..data.pixels import center_crop, read, resize_short
from ..rng import Stream, generator
from .charts import Line, line_chart
from .images import by_class, spread
from .recipe import STUDENT, TEACHER
from .report_mining import mining_context
from .story import Row, Story

THUMB_PX = 64
MOST_CLASSES_SHOWN = 24  # class by class; the rest is summed up in words
LABELLED_SHOWN, UNLABELLED_SHOWN, TEST_SHOWN, FIXED_SHOWN, BROKEN_SHOWN, SOFT_SHOWN = 7, 143, 400, 12, 6, 4
STAGES = {"teacher": "teacher", "mining": "mining", "baseline": "baseline", "ssld": "SSLD", "finetune": "fine-tuning",
          "export": "export", "other": "start, images, report"}


def write_report(path: Path, story: Story, seconds: float) -> Path:
    """Write `report.html`. seconds: of the whole demo so far."""
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page.filters.update(percent=lambda share: f"{share:.1%}", thousands=lambda n: f"{n:,}")
    path.write_text(page.get_template("template.html.j2").render(**_context(story, seconds)), encoding="utf-8")
    return path


def _context(story: Story, seconds: float) -> dict[str, Any]:
    images = story.images
    truth = np.array([item.label for item in images.test])
    before, after = story.probabilities["baseline"], story.probabilities["ssld"]
    right_before, right_after = before.argmax(1) == truth, after.argmax(1) == truth
    gain = story.row("ssld").top1 - story.row("baseline").top1
    few_classes = len(images.classes) <= MOST_CLASSES_SHOWN
    return {
        "images": images, "seed": story.seed, "output": story.output, "seconds": seconds,
        "versions": f"Paddle {paddle.__version__}, Python {platform.python_version()}",
        "rows": [_row(row, len(images.test)) for row in story.rows],
        "by_name": {row.name: row for row in story.rows},
        "gain": gain, "student": STUDENT, "teacher": TEACHER,
        "parameters": {name: _short_number(count) for name, count in story.parameters.items()},
        "longest_name": max(map(len, images.classes)),
        "smaller": story.parameters[TEACHER] / story.parameters[STUDENT],
        "views": story.views, "distilled": len(images.labelled) + len(story.mined.chosen),
        "mining": mining_context(story, _thumbnail),
        "labelled": _labelled(story), "unlabelled": _unlabelled(story),
        "soft": _soft_answers(story),
        "accuracy_chart": Markup(_accuracy_chart(story)),
        "passed_at": next((int(views) for views, top1 in _points(story, "ssld", "eval", "top1")
                           if top1 > story.row("baseline").top1), None),
        "loss_charts": [(name, text, Markup(_loss_chart(story, name))) for name, text in (
            ("baseline", "Cross-entropy against labels"), ("ssld", "Symmetric KL against the teacher"))],
        "fixed": [_case(story, i) for i in _surest(np.flatnonzero(~right_before & right_after), after, FIXED_SHOWN)],
        "broken": [_case(story, i) for i in _surest(np.flatnonzero(right_before & ~right_after), after, BROKEN_SHOWN)],
        "counts": {"fixed": int((~right_before & right_after).sum()),
                   "broken": int((right_before & ~right_after).sum()),
                   "both_right": int((right_before & right_after).sum()),
                   "both_wrong": int((~right_before & ~right_after).sum()), "test": len(truth)},
        "wall": [_case(story, i) for i in spread(len(truth), TEST_SHOWN)],
        "per_class": _per_class(images.classes, truth, right_before, right_after) if few_classes else [],
        "confusions": [(name, title, _confusion(truth, story.probabilities[name].argmax(1), len(images.classes)))
                       for name, title in (("baseline", "Baseline"), ("ssld", "SSLD"))] if few_classes else [],
        "stages": _stages(story, seconds),
        "exported": story.exported,
    }


def _row(row: Row, count: int) -> dict[str, Any]:
    low, high = interval(row.top1, count)
    return {"name": row.name, "network": row.network, "trained_on": row.trained_on, "labels_used": row.labels_used,
            "top1": row.top1, "low": low, "high": high, "command": row.command}


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share measured on `count` images."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _labelled(story: Story) -> list[tuple[str, list[str]]]:
    groups = by_class(story.images.labelled)
    return [(story.images.classes[label], [_thumbnail(item.path) for item in items[:LABELLED_SHOWN]])
            for label, items in list(groups.items())[:MOST_CLASSES_SHOWN]]


def _unlabelled(story: Story) -> list[str]:
    """Some of them, from all classes, in an order that tells no class."""
    chosen = spread(len(story.images.unlabelled), UNLABELLED_SHOWN)
    generator(story.seed, 2, 0, Stream.SUBSET).shuffle(chosen)
    return [_thumbnail(story.images.unlabelled[i].path) for i in chosen]


def _soft_answers(story: Story) -> list[dict[str, Any]]:
    """The images, right at first guess, whose answers say most beyond it: those of the highest entropy."""
    says = story.teacher_says
    entropy = -(says * np.log(np.maximum(says, 1e-12))).sum(axis=1)
    truth = np.array([story.images.unlabelled[i].label for i in story.asked])
    chosen = np.argsort(np.where(says.argmax(1) == truth, -entropy, np.inf), kind="stable")[:SOFT_SHOWN]
    return [{"picture": _thumbnail(story.images.unlabelled[story.asked[i]].path),
             "answers": [(story.images.classes[c], float(says[i, c])) for c in np.argsort(-says[i])[:3]]}
            for i in chosen]


def _accuracy_chart(story: Story) -> str:
    lines = [Line(name, style, _points(story, run, "eval", "top1"))
             for name, style, run in (("baseline", "baseline", "baseline"), ("SSLD", "ssld", "ssld"))]
    return line_chart(lines, 1.0, True, "Accuracy on the test images by images seen",
                      ("teacher", "teacher", story.row("teacher").top1))


def _loss_chart(story: Story, run: str) -> str:
    points = _points(story, run, "train", "loss")
    name, top = "SSLD" if run == "ssld" else run, max(y for _, y in points) * 1.05
    return line_chart([Line(name, run, points)], top, False, f"Training loss of {name} by images seen")


def _points(story: Story, run: str, kind: str, key: str) -> list[tuple[float, float]]:
    return [(row["images_seen"], row[key]) for row in story.metrics[run] if row["kind"] == kind]


def _surest(indices: np.ndarray, probabilities: np.ndarray, limit: int) -> list[int]:
    """Of these images, those on which the network is most sure."""
    return indices[np.argsort(-probabilities[indices].max(axis=1), kind="stable")][:limit].tolist()


def _case(story: Story, index: int) -> dict[str, Any]:
    item = story.images.test[index]
    case: dict[str, Any] = {"picture": _thumbnail(item.path), "truth": story.images.classes[item.label]}
    for name in ("baseline", "ssld"):
        row = story.probabilities[name][index]
        guess = int(row.argmax())
        case[name] = {"guess": story.images.classes[guess], "sure": float(row[guess]), "right": guess == item.label}
    case["kind"] = {(True, True): "both-right", (False, True): "fixed", (True, False): "broken",
                    (False, False): "both-wrong"}[case["baseline"]["right"], case["ssld"]["right"]]
    return case


def _per_class(classes: Sequence[str], truth: np.ndarray, before: np.ndarray, after: np.ndarray
               ) -> list[dict[str, Any]]:
    return [{"name": name, "count": int((truth == c).sum()), "baseline": float(before[truth == c].mean()),
             "ssld": float(after[truth == c].mean())} for c, name in enumerate(classes)]


def _confusion(truth: np.ndarray, guess: np.ndarray, class_count: int) -> list[list[tuple[int, float]]]:
    """Per true class and guess: (images, share of the true class)."""
    counts = np.zeros([class_count, class_count], int)
    np.add.at(counts, (truth, guess), 1)
    return [[(int(n), n / max(row.sum(), 1)) for n in row] for row in counts]


def _stages(story: Story, seconds: float) -> list[dict[str, Any]]:
    known = {**story.seconds, "other": seconds - sum(story.seconds.values())}
    return [{"name": STAGES[name], "style": name, "seconds": value, "share": value / seconds}
            for name, value in known.items()]


def _thumbnail(path: str) -> str:
    """Data URI of an image: as it is when small, else its centre in 64 x 64."""
    image = read(path)
    if max(image.shape[:2]) > THUMB_PX:
        image = center_crop(resize_short(image, THUMB_PX, "area"), (THUMB_PX, THUMB_PX))
    is_grey = (image == image[..., :1]).all()
    kind = "png" if is_grey and max(image.shape[:2]) <= 32 else "jpeg"
    _, encoded = cv2.imencode(f".{kind}", image[..., 0] if is_grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _short_number(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"
