"""One training run in a process of its own, that goes on where an earlier call of the benchmark left it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CURVE_POINTS = 60  # of the training loss, at most


def train_once(config: Path, overrides: Sequence[str], folder: Path, threads: int, processes: int = 1) -> dict:
    """{"top1", "images", "steps", "views", "seconds"} of the last evaluation of a finished run in `folder`.

    threads: of each process; 0 leaves that to the libraries. seconds: over all calls that the run took. SystemExit
    names the log when the run fails.
    """
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes),
              "--log_dir", str(folder.with_name(f"{folder.name}.launch"))] if processes > 1 else []
    command = [sys.executable, *launch, str(ROOT / "tools" / "train.py"), "-c", str(config), "--resume",
               *(part for o in (f"Global.output_dir={folder}", *overrides) for part in ("-o", o))]
    clock = folder.with_name(f"{folder.name}.seconds")
    if not (folder / "done").exists():
        started = time.monotonic() - (float(clock.read_text()) if clock.exists() else 0.0)
        try:
            run_logged(command, folder.with_name(f"{folder.name}.log"), threads)
        finally:
            clock.parent.mkdir(parents=True, exist_ok=True)
            clock.write_text(str(time.monotonic() - started))
        (folder / "done").touch()
    final = [row for row in metrics(folder) if row["kind"] == "eval"][-1]
    return {"top1": final["top1"], "images": final["images"], "steps": final["step"], "views": final["images_seen"],
            "seconds": round(float(clock.read_text()))}


def run_logged(command: Sequence[str], log_file: Path, threads: int) -> None:
    """Run to the end, output appended to `log_file`; SystemExit names it when the command fails."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    limits = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    with open(log_file, "a") as log:
        # close_fds=False: a lock on the run's folder goes with the run, should this process die before it.
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **limits},
                              close_fds=False).returncode
    if code:
        last = log_file.read_text(errors="replace").strip().splitlines()[-1:]
        raise SystemExit(f"{log_file.stem} ended with code {code}: {' '.join(last)}\n(the whole log: {log_file})")


def last_weights(folder: Path) -> Path:
    """The student after the last step of a finished run, whatever step scored best."""
    return max((folder / "checkpoints").iterdir()) / "student.pdparams"


def curve(folder: Path) -> list[dict]:
    """[{"views", "loss"} or {"views", "top1"}, ...]: the training loss, thinned, and every evaluation."""
    rows = metrics(folder)
    losses = [{"views": r["images_seen"], "loss": round(r["loss"], 4)} for r in rows if r["kind"] == "train"]
    kept = losses[::-1][::-(-len(losses) // CURVE_POINTS) or 1][::-1]  # from the end, so that the last one is kept
    return kept + [{"views": r["images_seen"], "top1": r["top1"]} for r in rows if r["kind"] == "eval"]


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
