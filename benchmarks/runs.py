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


def train_once(config: Path, overrides: Sequence[str], folder: Path, threads: int) -> dict:
    """{"top1", "images", "steps", "views", "seconds"} of the last evaluation of a finished run in `folder`.

    seconds: over all calls that the run took. SystemExit names the log when the run fails.
    """
    command = [sys.executable, str(ROOT / "tools" / "train.py"), "-c", str(config), "--resume",
               *(part for o in (f"Global.output_dir={folder}", *overrides) for part in ("-o", o))]
    clock, log_file = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("seconds", "log"))
    if not (folder / "done").exists():
        started = time.monotonic() - (float(clock.read_text()) if clock.exists() else 0.0)
        with open(log_file, "a") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT,
                                  env={**os.environ, "OMP_NUM_THREADS": str(threads)}).returncode
        if code:
            raise SystemExit(f"{folder.name} ended with code {code}: see {log_file}")
        clock.write_text(str(time.monotonic() - started))
        (folder / "done").touch()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    final = [row for row in rows if row["kind"] == "eval"][-1]
    return {"top1": final["top1"], "images": final["images"], "steps": final["step"], "views": final["images_seen"],
            "seconds": round(float(clock.read_text()))}
