"""What a measured number needs beside it: versions, machine, commit; and where results go."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def commit() -> str:
    """Short hash of the checkout, with `-dirty` when tracked files differ from it."""
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=7"], cwd=ROOT, capture_output=True,
                          text=True)
    return done.stdout.strip() or "unknown"


def environment() -> dict[str, Any]:
    """Versions, processor and commit, as JSON."""
    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else ""
    return {
        "date": datetime.date.today().isoformat(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit(), "python": platform.python_version(),
        "cpu": model, "cores": len(os.sched_getaffinity(0)), "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        **{p: version(p) for p in ("paddlepaddle", "paddlepaddle-gpu", "paddleclas", "numpy",
                                   "opencv-python-headless")},
    }


def result_path(name: str) -> Path:
    """benchmarks/results/<date>_<commit>_<name>.json; the folder exists."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS / f"{datetime.date.today().isoformat()}_{commit()}_{name}.json"
