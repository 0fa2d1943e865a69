"""Random reads per second of stored targets, one process: records alone, with the answers, with what was drawn.

    python benchmarks/targets_access.py

1.28 million samples in 4 views, 10 of 1,000 classes in 12 bits, crop and flip; the content is made up. Files are in the
page cache, as far as memory goes: on a disk that has to be asked, the disk decides.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.rng import Stream, generator  # noqa: E402
from ppcls_ssld.targets import TargetStore  # noqa: E402
from ppcls_ssld.targets.header import HEADER, open_layout  # noqa: E402
from ppcls_ssld.targets.parts import write_part  # noqa: E402
from ppcls_ssld.targets.rows import block_of  # noqa: E402

CROP_AND_FLIP = [{"name": "RandCropImage", "arguments": {"size": 224}, "version": 1},
                 {"name": "RandFlipImage", "arguments": {"flip_code": 1}, "version": 1}]


def make(folder: Path, samples: int, views: int, order: str) -> TargetStore:
    block = block_of(samples)
    header = {"format": 1, "samples": {"count": samples, "list": ""}, "class_num": 1000, "transforms": CROP_AND_FLIP,
              "mix": [], "teacher": [], "temperature": 1.0, "tail": "student", "views": views, "seed": 0, "batch_size": 1,
              "answer": {"k": 10, "bits": 12}, "rows": {"order": order, "block": block}}
    _, layout = open_layout(header)
    header["record"] = {"descr": layout.dtype.descr}
    folder.mkdir()
    (folder / HEADER).write_text(json.dumps(header))
    store = TargetStore(folder, partial=True)
    rng = generator(0, 0, 0, Stream.SUBSET)
    for part in range(store.parts):
        rows = store.rows.part_rows(part)
        records = np.frombuffer(rng.bytes(len(rows) * views * layout.dtype.itemsize), layout.dtype).copy()
        records["view"]["height"] = 375
        layout.seal(records, np.arange(rows.start * views, rows.stop * views))
        write_part(folder, part, records.tobytes() + bytes(4 * len(rows)), store.identity)
    return TargetStore(folder)


def reads_per_second(store: TargetStore, batch: int, what: str, seconds: float) -> float:
    rng = np.random.default_rng(1)
    count, spent = 0, 0.0
    while spent < seconds:
        ids, views = rng.integers(store.samples, size=batch), rng.integers(store.views, size=batch)
        began = time.perf_counter()
        records = store.read(ids, views)
        if what != "records":
            store.targets(records)
        if what == "answers and draws":
            for record in records:
                store.drawn(record)
        spent += time.perf_counter() - began
        count += batch
    return count / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for order in ("sample_id", "shuffled"):
            store = make(Path(name) / order, args.samples, args.views, order)
            began = time.perf_counter()
            store = TargetStore(store.folder)
            opened = time.perf_counter() - began
            reads_per_second(store, 256, "records", args.seconds)  # maps and pages
            for batch in (64, 256):
                for what in ("records", "answers", "answers and draws"):
                    found = [reads_per_second(store, batch, what, args.seconds) for _ in range(args.repeats)]
                    rows.append({"rows": order, "batch": batch, "what": what,
                                 "reads_per_second": [round(x) for x in found]})
                    print(rows[-1], flush=True)
    report = {"what": "random reads of stored targets", "samples": args.samples, "views": args.views,
              "parts": store.parts, "record_bytes": store.record_bytes, "mib": round(store.bytes() / 2**20),
              "open_seconds": round(opened, 4),
              "rows": rows, "environment": environment()}
    path = result_path("targets_access")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"opened in {opened:.3f} s; written: {path}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
