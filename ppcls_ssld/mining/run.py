"""One mining run from beginning to end: the order of events, nothing else."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence

from .. import parallel
from ..config.mine import MineConfig
from ..errors import ConfigError
from . import stages
from .calibrate import Estimate
from .choose import Choice, write_choice
from .dedup import Thresholds
from .false_alarms import leave_one_out
from .outputs import write_json
from .results import class_names_of, write_results
from .workspace import Workspace, read_json

STAGES = ("dedup", "score", "select")


def mine(config: MineConfig, wanted: Sequence[str] = STAGES, dry_run: bool = False,
         say: Callable[[str], None] = print) -> Choice | None:
    """Run stages of mining in config.output_dir; returns what was chosen, on rank 0, if `select` was among them.

    dry_run: choose and print, write nothing. Errors: ConfigError and DataError for what the user gave, CheckpointError
    when the disk refuses, StoppedBySignal; in each case what is finished is kept and the same call goes on from there.
    """
    if wanted != ["dedup"] and config.Teacher is None:
        raise ConfigError("no teacher: give --teacher ARCH and --teacher-weights FILE (or run `mine dedup` alone)")
    parallel.init(config.device)
    ws = Workspace(config, say)
    if "dedup" in wanted:
        stages.dedup(ws)
    if "score" in wanted:
        stages.score(ws)
    choice = None
    if "select" in wanted and ws.rank == 0:
        choice, dedup, scores = stages.select(ws)
        ws.say(_summary(ws, choice))
        if not dry_run:
            names = class_names_of(ws, len(choice.before))
            written = write_choice(choice, ws.pool, config.Select, names, ws.folder)
            with ws.clock("report"):
                estimates = _estimates(ws, Thresholds(dedup["cells"], dedup["correlation"], dedup["matches"]))
                report = write_results(ws, choice, dedup, scores, estimates, written, shlex.join(sys.argv))
            ws.say(f"list for training: {written[0]}\nreport: {report}")
    parallel.barrier()
    return choice


def _summary(ws: Workspace, choice: Choice) -> str:
    short = int((choice.after < ws.config.Select.top_k).sum())
    return (f"chosen: {len(choice.images):,} of {choice.scored:,} scored images for {len(choice.after):,} classes, "
            f"{choice.after.min():,} to {choice.after.max():,} a class; {short:,} classes have fewer than "
            f"{ws.config.Select.top_k:,}")


def _estimates(ws: Workspace, thresholds: Thresholds) -> dict[str, tuple[Estimate, str]]:
    """False-alarm rates by threshold: from the user's negatives, else from the protected images against each other."""
    config = ws.config.Dedup
    if ws.protected is None or config.method == "paper":
        return {}
    if config.negatives:
        found = read_json(ws.folder / "thresholds.json")["estimates"]
        source = f"your negatives: {', '.join(config.negatives)}"
        return {key: (Estimate(**values), source) for key, values in found.items()}
    file = ws.folder / "false_alarms.json"
    asked = [ws.about["protected"]["digest"], thresholds.cells, thresholds.correlation]
    if not (file.is_file() and read_json(file)["asked"] == asked):
        found = leave_one_out(ws, stages.protect(ws), thresholds)
        write_json(file, {"asked": asked, "estimates": {key: vars(value) for key, value in found.items()}})
    source = "protected images against the other protected ones; copies among them count as alarms too"
    return {key: (Estimate(**values), source) for key, values in read_json(file)["estimates"].items()}
