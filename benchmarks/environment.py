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


# What decides what is run and how; a file here that git does not know is not in the commit.
_DECISIVE = ("ppcls_ssld", "configs", "tools", "benchmarks", ":(exclude)benchmarks/results")


def commit(root: Path = ROOT) -> str:
    """Short hash of the checkout, with `-dirty` when tracked files differ from it or code, configs or tables are untracked."""
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()

    name = git("describe", "--always", "--dirty", "--abbrev=7") or "unknown"
    untracked = name != "unknown" and git("ls-files", "--others", "--exclude-standard", "--", *_DECISIVE)
    return f"{name}-dirty" if untracked and not name.endswith("-dirty") else name


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
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(), "python": platform.python_version(),
        "cpu": model, "cores": len(os.sched_getaffinity(0)), "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        **{p: version(p) for p in ("paddlepaddle", "paddlepaddle-gpu", "paddleclas", "numpy",
                                   "opencv-python-headless")},
    }


def result_path(name: str) -> Path:
    """benchmarks/results/<date>_<commit>_<name>.json; the folder exists."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS / f"{datetime.date.today().isoformat()}_{commit()}_{name}.json"
