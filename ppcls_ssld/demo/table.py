"""The demo's result as text."""

from __future__ import annotations

from .story import Story


def text_table(story: Story, seconds: float) -> str:
    """A table for the terminal, and what it means in three sentences."""
    head = ("row", "network", "trained on", "labels", "top-1")
    cells = [(r.name, r.network, r.trained_on, f"{r.labels_used:,}", f"{r.top1:.1%}") for r in story.rows]
    widths = [max(len(line[i]) for line in (head, *cells)) for i in range(len(head))]

    def line(values: tuple[str, ...]) -> str:
        left = [value.ljust(width) for value, width in zip(values[:3], widths)]
        return "  ".join([*left, *(value.rjust(width) for value, width in zip(values[3:], widths[3:]))])

    gain = (story.row("ssld").top1 - story.row("baseline").top1) * 100
    verdict = (f"SSLD without a label: {gain:+.1f} points over the same network trained on "
               f"{len(story.images.labelled)} labels ({len(story.images.test)} test images, "
               f"seed {story.seed}, {seconds:.0f} s).")
    labels = "The teacher read the labels of all training images; of the students, only the baseline read any."
    mined = f"Mining: {story.mined.line()}."
    rows = [line(head), line(tuple("-" * width for width in widths)), *map(line, cells)]
    return "\n".join([*rows, "", verdict, labels, mined])
