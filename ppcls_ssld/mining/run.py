"""One mining run from beginning to end: the order of events, nothing else."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

import numpy as np

from .. import parallel
from ..config.mine import MineConfig
from ..errors import ConfigError
from ..inference import read_labels
from . import stages
from .blocks import Stoppable
from .calibrate import Estimate
from .choose import Choice, Exclusions, write_choice
from .dedup import Thresholds
from .false_alarms import at_threshold, leave_one_out
from .outputs import write_json
from .results import class_names_of, write_results
from .score import check_teacher, check_transforms
from .workspace import Workspace, digest_of, read_json

STAGES = ("dedup", "score", "select")


def mine(config: MineConfig, wanted: Sequence[str] = STAGES, dry_run: bool = False,
         say: Callable[[str], None] = print) -> Choice | None:
    """Run stages of mining in config.output_dir; returns what was chosen, on rank 0, if `select` was among them.

    dry_run: choose and print, write nothing. Errors: ConfigError and DataError for what the user gave, CheckpointError
    when the disk refuses, StoppedBySignal; in each case what is finished is kept and the same call goes on from there.
    """
    parallel.set_device(config.device)
    if parallel.is_main():
        _check(config, wanted)
    with Stoppable() as stop:
        ws = Workspace(config, say, stop, dry_run)
        if "dedup" in wanted:
            stages.dedup(ws)
        if "score" in wanted:
            stages.score(ws)
        choice = _select(ws, dry_run) if "select" in wanted and ws.rank == 0 else None
        stop.check()
    return choice


def _check(config: MineConfig, wanted: Sequence[str]) -> None:
    """What a later stage would find wrong, found before the first image is read."""
    if set(wanted) - {"dedup"} and config.Teacher is None:
        raise ConfigError("no teacher: give --teacher ARCH and --teacher-weights FILE (or run `mine dedup` alone)")
    if "score" in wanted:
        check_transforms(config)
        check_teacher(config)
    if "select" in wanted:
        Exclusions(config.Select)
        if config.Select.class_names:
            read_labels(config.Select.class_names, config.class_num)


def _select(ws: Workspace, dry_run: bool) -> Choice:
    choice, dedup, scores = stages.select(ws)
    ws.say(_summary(ws, choice))
    if not len(choice.images):
        ws.say("warning: nothing is chosen, and training refuses an empty list; see the report's funnel")
    if dry_run:
        return choice
    names = class_names_of(ws, len(choice.before))
    ws.keep_config()
    written = write_choice(choice, ws.pool, ws.config.Select, names, ws.folder, ws.say)
    with ws.clock("report"):
        estimates = _estimates(ws, Thresholds(dedup["cells"], dedup["correlation"], dedup["matches"]))
        report = write_results(ws, choice, dedup, scores, estimates, written, shlex.join(sys.argv))
    ws.say(f"list for training: {written[0]}\nreport: {report}")
    return choice


def _summary(ws: Workspace, choice: Choice) -> str:
    config = ws.config.Select
    lines = [f"chosen: {len(choice.images):,} of {choice.scored:,} scored images"
             + (f", {choice.excluded:,} excluded by {choice.exclusion_lines:,} lines" if choice.exclusion_lines else "")
             + (f", {choice.above_min:,} at or above {config.min_score:g}" if config.min_score is not None else ""),
             f"  a class: {_spread(choice.after)} images; {int((choice.after < config.top_k).sum()):,} of "
             f"{len(choice.after):,} classes have fewer than {config.top_k:,}"]
    last = [choice.selection.scores[choice.selection.classes == c][-1] for c in np.flatnonzero(choice.after)[:1000]]
    if last:
        lines.append(f"  {config.score} of the last image of a class: {_spread(np.array(last), '.4g')}")
    if choice.weights is not None and len(choice.weights):
        lines.append(f"  sampling weights: {_spread(choice.weights, '.3g')}, {choice.weights.sum():,.0f} views a pass")
    return "\n".join(lines)


def _spread(values: np.ndarray, form: str = ",.0f") -> str:
    return " / ".join(f"{v:{form}}" for v in (values.min(), np.median(values), values.max())) + " (least, median, most)"


def _estimates(ws: Workspace, thresholds: Thresholds) -> dict[str, tuple[Estimate, str]]:
    """False-alarm rates by threshold: from the user's negatives, else from the protected images against each other."""
    config = ws.config.Dedup
    if ws.protected is None or config.method == "paper":
        return {}
    if config.negatives:
        found = read_json(ws.folder / "thresholds.json")
        source = f"your negatives: {', '.join(config.negatives)}"
        return {key: (at_threshold(found, key, value), source)
                for key, value in (("cells", thresholds.cells), ("correlation", thresholds.correlation))}
    file = ws.folder / "false_alarms.json"
    asked = [digest_of(stages.evidence_settings(ws)), thresholds.cells, thresholds.correlation]
    if not (file.is_file() and read_json(file)["asked"] == asked):
        found = leave_one_out(ws, stages.open_protected(ws), thresholds)
        write_json(file, {"asked": asked, "estimates": {key: vars(value) for key, value in found.items()}})
    source = "protected images against the other protected ones; copies among them count as alarms too"
    return {key: (Estimate(**values), source) for key, values in read_json(file)["estimates"].items()}
