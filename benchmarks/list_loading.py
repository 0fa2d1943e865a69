"""Time and memory of a long list: 5 million lines, four worker processes, in images of this machine.

    python benchmarks/list_loading.py

Every line names the same small image, so that batches can be read; the list itself is as long and as varied as a real
one. Memory is the proportional set size of the main process and its workers together: pages that they share count once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.config.schema import LoaderConfig, SourceConfig  # noqa: E402
from ppcls_ssld.data import TrainReader  # noqa: E402


def proportional_mib() -> float:
    """Memory of this process and its children, MiB; shared pages are split among those that share them."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    total = 0
    for pid in (str(os.getpid()), *children):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cv2.imwrite(str(root / "image.png"), np.zeros((64, 64, 3), np.uint8))
        for i in range(1000):  # class folders that all lead to the one image
            (root / f"n{i:08d}").symlink_to(root)
        with open(root / "list.txt", "w") as f:
            # distinct text of a real list's length, and a path that exists: `./` repeated changes nothing
            f.writelines(f"n{i % 1000:08d}/{'./' * (i % 8)}image.png {i % 1000}\n" for i in range(args.lines))
        size_mib = (root / "list.txt").stat().st_size / 2**20
        source = SourceConfig("long", list=str(root / "list.txt"), root=str(root))
        config = LoaderConfig((source,), ({"DecodeImage": {}}, {"RandCropImage": {"size": 32}},
                                          {"NormalizeImage": {"order": ""}}), batch_size=64, shuffle=True,
                              num_workers=args.workers)
        before = proportional_mib()
        started = time.perf_counter()
        reader = TrainReader(config, 1000, seed=0)
        load_s = time.perf_counter() - started
        batches = reader.batches(0, 40)
        for _ in range(30):
            next(batches)
        first_batches_s = time.perf_counter() - started - load_s
        with_workers = proportional_mib()
        batches.close()
    report = {"what": "loading a long list", "lines": args.lines, "list_mib": round(size_mib), "workers": args.workers,
              "load_seconds": round(load_s, 2), "thirty_batches_seconds": round(first_batches_s, 2),
              "memory_before_mib": round(before), "memory_with_workers_mib": round(with_workers),
              "environment": environment()}
    path = result_path("list_loading")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
