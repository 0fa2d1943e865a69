"""Images per second of one core: the JPEG decoder alone, our reader in its ways, PaddleClas's reader on the same files.

    python benchmarks/reader.py --root photos --list photos/list.txt --paddleclas ~/PaddleClas

The full pipeline of training: read, decode, random resized crop, flip, batch. All are pinned to one core and take
turns, pass by pass over the same files; what counts is the ratio of neighbours, as median and range. PaddleClas's
reader makes float32 batches, as its training needs them; ours are uint8, normalised in the network's first operation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.config.schema import LoaderConfig, SourceConfig  # noqa: E402
from ppcls_ssld.data import TrainReader, read_source  # noqa: E402
from ppcls_ssld.data.files import Archives, read_bytes  # noqa: E402
from ppcls_ssld.data.pixels import decode  # noqa: E402
from ppcls_ssld.pack.encode import Encoding  # noqa: E402
from ppcls_ssld.pack.inputs import open_inputs  # noqa: E402
from ppcls_ssld.pack.run import PackConfig, pack  # noqa: E402

HERE = Path(__file__).resolve().parent
NOT_RUN = "not run (--paddleclas CHECKOUT)"
Pass = Callable[[], float]  # one pass over all images -> seconds


def timed(work: Callable[[], object]) -> Pass:
    def run() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return run


def decoder(source: SourceConfig) -> Pass:
    """Read and decode, all pixels, nothing else."""
    images, archives = read_source(source, 1), Archives()

    def work() -> None:
        for i in range(len(images)):
            path = images.path(i)
            decode(read_bytes(path, archives), path)

    return timed(work)


def ours(source: SourceConfig, args: argparse.Namespace, reduced: bool = False) -> Pass:
    """What each worker process of a TrainReader does: the same call, into memory that is used again."""
    ops = ({"DecodeImage": {"reduced": reduced}}, {"RandCropImage": {"size": args.size}}, {"RandFlipImage": {}},
           {"NormalizeImage": {"order": ""}})
    reader = TrainReader(LoaderConfig((source,), ops, batch_size=args.batch, num_workers=0), 1, seed=0)
    assembler, keys_of, passes = reader._assembler, reader._sampler.batch, iter(range(10**6))
    slot = np.zeros((args.batch, args.size, args.size, 3), np.uint8)

    def work() -> None:
        n = next(passes)
        for m in range(n * reader.batches_per_epoch, (n + 1) * reader.batches_per_epoch):
            assembler.assemble(keys_of(m), slot)

    return timed(work)


def paddleclas(args: argparse.Namespace, listing: Path) -> Pass:
    """Its reader in a process of its own, pinned like this one."""
    process = subprocess.Popen(
        [args.paddleclas_python, str(HERE / "paddleclas_reader.py"), str(args.paddleclas), str(args.root), str(listing),
         str(args.batch), str(args.size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True)

    def answer(word: str) -> str:
        for line in process.stdout:
            if line.startswith(word):
                return line
        raise SystemExit(f"PaddleClas's reader ended ({process.wait()}); run benchmarks/paddleclas_reader.py by hand")

    answer("ready")

    def run() -> float:
        process.stdin.write("go\n")
        process.stdin.flush()
        return float(answer("seconds").split()[1])

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--list", type=Path, required=True, help="`path label` a line; labels are not looked at")
    parser.add_argument("--paddleclas", type=Path, help="a checkout of PaddleClas (develop)")
    parser.add_argument("--paddleclas-python", default=sys.executable, help="a Python with what PaddleClas imports")
    parser.add_argument("--images", type=int, default=256, help="evenly spaced in the list")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--passes", type=int, default=9)
    args = parser.parse_args()
    args.root = args.root.resolve()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[-1:])
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        listing, packed = Path(name) / "list.txt", Path(name) / "packed"
        paths = [line.rsplit(" ", 1)[0] for line in args.list.read_text().splitlines() if line.strip()]
        args.images = min(args.images, len(paths)) // args.batch * args.batch
        chosen = [paths[i * len(paths) // args.images] for i in range(args.images)]
        listing.write_text("".join(f"{path} 0\n" for path in chosen))
        pack(open_inputs(str(listing), str(args.root)), PackConfig(packed, Encoding(args.short_side, args.quality)))
        plain = SourceConfig("photos", list=str(listing), root=str(args.root))
        small = SourceConfig("packed", list=str(packed / "list.txt"), root=str(packed))
        ways = {"decoder alone": decoder(plain), "our reader": ours(plain, args),
                "our reader, reduced decoding": ours(plain, args, reduced=True)}
        if args.paddleclas:
            ways["PaddleClas's reader"] = paddleclas(args, listing)
        ways |= {"decoder alone, packed": decoder(small), "our reader, packed": ours(small, args)}
        for run in ways.values():
            run()  # files into memory, code into caches
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(args.passes):
            for way, run in ways.items():
                speeds[way].append(args.images / run())
        sizes = {"files": mean_bytes(plain), "packed": mean_bytes(small)}
    rows = [row(way, speeds) for way in speeds]
    report = {"what": "images per second of one core, from file to batch",
              "arguments": {k: v for k, v in vars(args).items() if isinstance(v, int)},
              "mean_bytes": {way: round(size) for way, size in sizes.items()}, "rows": rows,
              "environment": environment(),
              "paddleclas": "see rows" if args.paddleclas else NOT_RUN}
    path = result_path("reader")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{args.images} images of {sizes['files'] / 1e3:.0f} KB, packed {sizes['packed'] / 1e3:.0f} KB, one core, "
          f"{args.passes} passes in turns: median (range)")
    print(f"{'':30s} {'images/s':>9s}   {'of the decoder':>20s}   {'of PaddleClas':>20s}")
    for r in rows:
        print(f"{r['way']:30s} {r['images_per_second']:9.0f}   {spread(r['of_decoder']):>20s}   "
              f"{spread(r['of_paddleclas']) if args.paddleclas else 'not run':>20s}")
    print(f"written: {path}")


def mean_bytes(source: SourceConfig) -> float:
    images = read_source(source, 1)
    return sum(len(read_bytes(images.path(i))) for i in range(len(images))) / len(images)


def row(way: str, speeds: dict[str, list[float]]) -> dict:
    """Speed and its ratios to the decoder (on files of the same kind) and to PaddleClas, pass by pass."""
    of = {"of_decoder": "decoder alone, packed" if "packed" in way else "decoder alone",
          "of_paddleclas": "PaddleClas's reader"}
    ratios = {key: [a / b for a, b in zip(speeds[way], speeds[other])] if other in speeds else None
              for key, other in of.items()}
    return {"way": way, "images_per_second": statistics.median(speeds[way]),
            **{key: values and {"median": statistics.median(values), "min": min(values), "max": max(values)}
               for key, values in ratios.items()}}


def spread(ratio: dict) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"


if __name__ == "__main__":
    main()
