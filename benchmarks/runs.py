"""One training run in a process of its own, that goes on where an earlier call of the benchmark left it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CURVE_POINTS = 60  # of the training loss, at most
SAVING_SECONDS = 120


def train_once(config: Path, overrides: Sequence[str], folder: Path, threads: int, processes: int = 1) -> dict:
    """{"top1", "images", "steps", "views", "seconds"} of the last evaluation of a finished run in `folder`.

    threads: of each process; 0 leaves that to the libraries. seconds: of the training steps alone, over all calls that the
    run took. SystemExit names the log when the run fails.
    """
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes),
              "--log_dir", str(folder.with_name(f"{folder.name}.launch"))] if processes > 1 else []
    command = [sys.executable, *launch, str(ROOT / "tools" / "train.py"), "-c", str(config), "--resume",
               *(part for o in (f"Global.output_dir={folder}", *overrides) for part in ("-o", o))]
    if not (folder / "done").exists():
        run_logged(command, folder.with_name(f"{folder.name}.log"), threads)
        (folder / "done").touch()
    rows = metrics(folder)
    final = [row for row in rows if row["kind"] == "eval"][-1]
    return {"top1": final["top1"], "images": final["images"], "steps": final["step"], "views": final["images_seen"],
            "seconds": round(seconds_of_steps(rows), 1)}


def seconds_of_steps(rows: Sequence[dict]) -> float:
    """From the rows of metrics.jsonl: an interruption, a start and an evaluation take no part in it."""
    train = [row for row in rows if row["kind"] == "train"]
    seen = [0, *(row["images_seen"] for row in train)]
    return sum((after - before) / row["images_per_s"] for before, after, row in zip(seen, seen[1:], train))


def run_logged(command: Sequence[str], log_file: Path, threads: int) -> None:
    """Run to the end, output appended to `log_file`; SystemExit names it when the command fails.

    What ends this process (Ctrl-C, SIGTERM as an exception) is passed on to the command and its children, which save.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    limits = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    with open(log_file, "a") as log:
        before = log.tell()
        # close_fds=False: a lock on the run's folder goes with the run, should this process die before it.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **limits},
                                   close_fds=False, start_new_session=True)
        try:
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    if code:
        lines = log_file.read_bytes()[before:].decode(errors="replace").strip().splitlines()
        last = ([line for line in lines if line.startswith("error: ")] or lines or [""])[-1]  # a launcher ends with words of its own
        raise SystemExit(f"{log_file.stem} ended with code {code}: {last}\n(the whole log: {log_file})")


def _end(process: subprocess.Popen) -> None:
    """SIGTERM to the command's whole group, SIGKILL to what is left of it after the time that saving takes."""
    with contextlib.suppress(ProcessLookupError):  # the whole group is gone; its leader, a launcher, may go first
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + SAVING_SECONDS
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)


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
