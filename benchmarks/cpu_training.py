"""Images per second of Paddle's training on CPU, plain and with what ppcls_ssld/arch/cpu.py changes, side by side.

    python benchmarks/cpu_training.py
    python benchmarks/cpu_training.py --cases MobileNetV3_large_x1_0:32:64 --processes 2 --ways plain fast

A step is forward, backward and Momentum, on one batch of noise; no reader, no teacher. Every way runs in a process of
its own, because the settings of a process cannot be taken back; the ways alternate, and what is reported is the ratio
of neighbours as median and range, which holds when the machine's speed drifts. `--processes 2` runs two at once, as
two ranks would without their exchange of gradients, and adds their speeds up. The gradients of the plain and the
changed network are compared too. Runs of one commit and day add their rows to one file of results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402

WAYS = {"plain": (False, False), "process": (False, True), "products": (True, False), "fast": (True, True)}
CASES = ("MobileNetV3_large_x1_0:32:64", "MobileNetV3_small_x0_35:32:64", "ResNet50_vd:32:64", "PPLCNet_x1_0:32:64",
         "MobileNetV3_large_x1_0:224:16", "ResNet50_vd:224:8")


def measure(case: str, way: str, seconds: float) -> dict:
    """In this process: median step, as images per second; bytes of memory at the end."""
    import resource

    import numpy as np
    import paddle

    from ppcls_ssld.arch.cpu import prepare_process

    products, process = WAYS[way]
    if process:
        prepare_process()
    network, images = _network_and_images(case, products)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    times = []
    end = None
    while end is None or time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        (network(images) ** 2).mean().backward()
        optimizer.step()
        optimizer.clear_grad()
        if end is None:
            end = time.perf_counter() + seconds  # the first step is warm-up
        else:
            times.append(time.perf_counter() - start)
    return {"images_per_second": images.shape[0] / float(np.median(times)),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def differences(case: str) -> dict:
    """Of one step in this process: loss, and all gradients together, of the changed network relative to the plain.

    `ulp`: the same of the plain network for images larger by one part in 10 million. Batch norm over few pixels and
    ReLU enlarge rounding: this says by how much, whatever computes the convolutions.
    """
    import numpy as np
    import paddle

    results = []
    for products, scale in ((False, 1.0), (True, 1.0), (False, 1.0 + 1.2e-7)):
        network, images = _network_and_images(case, products)
        paddle.seed(1)
        loss = (network(images * scale) ** 2).mean()
        loss.backward()
        results.append((float(loss), np.concatenate([p.grad.numpy().ravel() for p in network.parameters()
                                                     if p.grad is not None])))
    (loss, plain), *others = results
    parts = [(abs(other - loss) / abs(loss), float(np.linalg.norm(changed - plain) / np.linalg.norm(plain)))
             for other, changed in others]
    return {"loss": parts[0][0], "gradient": parts[0][1], "ulp_loss": parts[1][0], "ulp_gradient": parts[1][1]}


def _network_and_images(case: str, products: bool):
    import numpy as np
    import paddle

    from ppcls_ssld.arch import build_network
    from ppcls_ssld.arch.cpu import fast_on_cpu
    from ppcls_ssld.config.schema import NetworkConfig

    name, size, batch = case.split(":")
    paddle.seed(0)
    network = build_network(NetworkConfig(role="Student", name=name), 10)
    network.train()
    images = np.random.default_rng(0).standard_normal((int(batch), 3, int(size), int(size))).astype("float32")
    return fast_on_cpu(network) if products else network, paddle.to_tensor(images)


def run(arguments: list[str], copies: int, threads: int) -> list[dict]:
    """`copies` processes of this file at once -> what each of them answers."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    env.pop("MKL_DEBUG_CPU_TYPE", None)
    started = [subprocess.Popen([sys.executable, __file__, *arguments], env=env, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for _ in range(copies)]
    answers = []
    for process in started:
        out, errors = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(arguments)} failed ({process.returncode}):\n{errors[-3000:]}")
        answers.append(json.loads(out.splitlines()[-1]))
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="NETWORK:SIZE:BATCH", help="batch of each process")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="the first is the measure")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of measuring, for each process")
    parser.add_argument("--threads", type=int, default=1, help="OMP threads of each process")
    parser.add_argument("--processes", type=int, default=1, help="at once")
    parser.add_argument("--no-store", action="store_true", help="print only")
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--differences", metavar="CASE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure or args.differences:
        print(json.dumps(measure(*args.measure, args.seconds) if args.measure else differences(args.differences)))
        return
    rows = []
    for case in args.cases:
        runs: dict[str, list[dict]] = {way: [] for way in args.ways}
        for _ in range(args.pairs):
            for way in args.ways:
                answers = run(["--measure", case, way, "--seconds", str(args.seconds)], args.processes, args.threads)
                runs[way].append({"images_per_second": sum(a["images_per_second"] for a in answers),
                                  "peak_mb": max(a["peak_mb"] for a in answers)})
        differ = run(["--differences", case], 1, args.threads)[0]
        for way in args.ways:
            ratios = [r["images_per_second"] / b["images_per_second"] for r, b in zip(runs[way], runs[args.ways[0]])]
            row = {"case": case, "way": way, "processes": args.processes, "threads": args.threads,
                   "differences": differ if WAYS[way][0] else None, "runs": runs[way],
                   "images_per_second": statistics.median(r["images_per_second"] for r in runs[way]),
                   "ratio_median": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
            rows.append(row)
            print(f"{case:32s} {way:9s} {row['images_per_second']:8.1f} images/s, {row['ratio_median']:5.2f} times "
                  f"({row['ratio_min']:.2f}-{row['ratio_max']:.2f}), {runs[way][-1]['peak_mb']} MB", flush=True)
        print(f"{case:32s} differs in loss by {differ['loss']:.1e}, in gradient by {differ['gradient']:.1e}; "
              f"images larger by 1.2e-7: {differ['ulp_loss']:.1e}, {differ['ulp_gradient']:.1e}", flush=True)
    if not args.no_store:
        path = result_path("cpu_training")
        stored = json.loads(path.read_text())["rows"] if path.exists() else []
        path.write_text(json.dumps({"what": "training steps on CPU, plain and changed", "environment": environment(),
                                    "rows": stored + rows}, indent=1) + "\n")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
