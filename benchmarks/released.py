"""PaddleClas's released `_ssld` weights on the user's ImageNet validation images: expected, measured, verdict.

    python benchmarks/reproduce.py --table released --imagenet FOLDER [--weights FOLDER] [--models NAME ...|all]
    python benchmarks/reproduce.py --table released --list FILE --root FOLDER --images 5000

FOLDER holds val_list.txt (PaddleClas's: `path label` a line) or a sub-folder a class, whose sorted names are the class ids,
as those of ImageNet's synsets are. Weights that --weights does not hold are downloaded there. The speed of each network is
measured first and the minutes are said; then each is evaluated by the engine of `tools/eval.py` and its result written to
results/rows/released. A network with a result is not evaluated again, unless its weights, an image's path or a label has
changed since; what is expected, and so the verdict, is always the table's of today.

Verdict: on all images, within 0.1 point of what PaddleClas prints. On a part of them (--images N, evenly spaced in the
list), the expected value lies inside the 95 % interval of a share measured on N images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.download import download, sha256  # noqa: E402
from benchmarks.environment import ROOT, environment  # noqa: E402
from benchmarks.intervals import share_interval  # noqa: E402
from benchmarks.table import RESULTS, TABLES  # noqa: E402
from ppcls_ssld.atomic import write_atomic  # noqa: E402
from ppcls_ssld.config.schema import SourceConfig  # noqa: E402
from ppcls_ssld.data import ImageList, read_source  # noqa: E402
from ppcls_ssld.errors import EXIT_USER, ConfigError, DataError, SsldError, WeightsError  # noqa: E402

HERE = Path(__file__).resolve().parent
TABLE = TABLES / "released.yaml"
TOLERANCE = 0.001  # a tenth of a point, on all images
RESIZE = {"resize_short": 256}
PROBE_BATCHES, BATCH = 6, 32


@dataclass(frozen=True)
class Job:
    """One network to evaluate. limit: images asked for, None = all of `total`. list_sha256: of those asked for."""

    row: dict[str, Any]
    weights: Path
    sha256: str
    limit: int | None
    total: int
    list_sha256: str

    @property
    def images(self) -> int:
        return min(self.limit or self.total, self.total)


def read_table(path: Path) -> dict[str, Any]:
    """The table, or a ConfigError with its first mistake."""
    try:
        table = yaml.safe_load(path.read_text())
        for key in ("images", "class_num"):
            _check(type(table[key]) is int and table[key] > 0, f"{key} is {table[key]!r}, no whole number above 0")
        names = [row["row"] for row in table["rows"]]
        _check(len(set(names)) == len(names), "two rows have one name")
        _check(set(table["usual"]) <= set(names), f"usual names a row that is none of {', '.join(names)}")
        for row in table["rows"]:
            top1, url, resize = row["expected"]["top1"], row["url"], row.get("resize", RESIZE)
            _check(isinstance(top1, (int, float)) and 0 <= top1 <= 1, f"{row['row']}: expected top1 is {top1!r}")
            _check(isinstance(url, str) and "/" in url, f"{row['row']}: url is {url!r}")
            _check(isinstance(resize, dict), f"{row['row']}: resize is {resize!r}, no arguments of ResizeImage")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as e:
        said = f"without {e}" if isinstance(e, KeyError) else f"{e}"
        raise ConfigError(f"{path}: not a table of released weights ({said}); expected images, class_num, usual (names of "
                          "rows) and rows (row, url, expected: {top1: a share from 0 to 1, source})") from e
    return table


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def list_digest(images: ImageList, count: int) -> str:
    """SHA-256 of path and label of `count` images, evenly spaced in the list as EvalReader takes them."""
    digest = hashlib.sha256()
    for i in range(count):
        index = i * len(images) // count
        digest.update(os.fsencode(images.path(index)) + b"\0%d\n" % images.labels[index])
    return digest.hexdigest()


def source_of(args: argparse.Namespace, class_num: int) -> dict[str, Any]:
    """The validation images as a source of DataLoader.Eval. DataError says what was found instead of them."""
    if args.list:
        return {"name": "validation", "list": str(args.list.resolve()), "root": str((args.root or args.list.parent).resolve())}
    if args.imagenet is None:
        raise DataError("no validation images: give --imagenet FOLDER, or --list FILE and --root FOLDER")
    folder = args.imagenet.resolve()
    if (folder / "val_list.txt").is_file():
        return {"name": "validation", "list": str(folder / "val_list.txt"), "root": str(folder)}
    found = {}
    for place in (folder, folder / "val"):
        found[place] = sum(p.is_dir() for p in place.iterdir()) if place.is_dir() else 0
        if found[place] == class_num:
            return {"name": "validation", "folder": str(place)}
    raise DataError(f"{folder}: expected val_list.txt, or {class_num:,} sub-folders, one a class, here or in val; found "
                    f"{found[folder]:,} and {found[folder / 'val']:,}. Missing classes would give all later ones wrong ids")


def weights_of(row: dict[str, Any], folder: Path) -> Path:
    """The row's weights file, downloaded if it is not in `folder` yet. WeightsError when that fails."""
    path = folder / row["url"].rsplit("/", 1)[1]
    if not path.exists():
        print(f"{row['row']}: downloading {row['url']}", flush=True)
    return download(row["url"], path)


def config_of(row: dict[str, Any], weights: Path, source: dict[str, Any], class_num: int, args: argparse.Namespace
              ) -> dict[str, Any]:
    """PaddleClas's evaluation of the network, as a config of ours."""
    return {
        "Global": {"device": args.device, "image_shape": [3, 224, 224], "pretrained_model": str(weights)},
        "Arch": {"name": row["row"], "class_num": class_num},
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},  # every config has one; nothing is trained here
        "DataLoader": {"Eval": {
            "sources": [source], "batch_size": args.batch_size, "num_workers": args.workers,
            "transform_ops": [{"DecodeImage": {"to_rgb": True, "channel_first": False}},
                              {"ResizeImage": row.get("resize", RESIZE)}, {"CropImage": {"size": 224}},
                              {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406],
                                                  "std": [0.229, 0.224, 0.225], "order": ""}}]}},
        "Metric": {"Eval": [{"TopkAcc": {"topk": [1, 5]}}]},
    }


def evaluate(job: Job, source: dict[str, Any], class_num: int, limit: int | None, args: argparse.Namespace
             ) -> dict[str, Any]:
    """What benchmarks/timed_eval.py found, in as many processes as asked for. WeightsError when it failed."""
    with tempfile.TemporaryDirectory(prefix="released_") as name:
        folder = Path(name)
        (folder / "eval.yaml").write_text(yaml.safe_dump(config_of(job.row, job.weights, source, class_num, args)))
        launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(args.processes), "--log_dir",
                  str(folder / "log")] if args.processes > 1 else []
        command = [sys.executable, *launch, str(HERE / "timed_eval.py"), "-c", str(folder / "eval.yaml"), "--output",
                   str(folder / "result.json"), *(["--images", str(limit)] if limit else [])]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        env = {"GLOG_minloglevel": "2", "OMP_NUM_THREADS": str(max(1, cores // args.processes)), **os.environ}
        done = run_command(command, env, shows=not launch)
        if done.returncode or not (folder / "result.json").exists():
            said = (done.stdout or "") + done.stderr + "".join(p.read_text() for p in sorted(folder.glob("log/workerlog.*")))
            errors = [line for line in said.splitlines() if line.startswith("error: ")]
            raise WeightsError(errors[0].removeprefix("error: ") if errors else
                               f"the evaluation ended with code {done.returncode}:\n{said[-3000:]}")
        return json.loads((folder / "result.json").read_text())


def run_command(command: list[str], env: dict[str, str], shows: bool) -> subprocess.CompletedProcess:
    """shows: what it prints on standard output; else that is kept, as standard error is."""
    return subprocess.run(command, env=env, stderr=subprocess.PIPE, stdout=None if shows else subprocess.PIPE, text=True,
                          cwd=ROOT)


def verdict(top1: float, expected: float, images: int, all_images: int) -> tuple[str, tuple[float, float] | None]:
    """('agrees' or 'differs', the 95 % interval that decided, None on all images)."""
    if images == all_images:
        return ("agrees" if abs(top1 - expected) <= TOLERANCE + 1e-9 else "differs"), None
    low, high = share_interval(top1, images)
    return ("agrees" if low <= expected <= high else "differs"), (low, high)


def earlier_result(path: Path, job: Job, whole_list_sha256: str, table: dict[str, Any]) -> dict[str, Any] | None:
    """A result of the same weights on the same images, or on all of them, judged by the table of today; else None.

    A file that is no such result is told of, and the network evaluated again.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        same = (found["weights"]["sha256"], found["settings"]["resize"]) == (job.sha256, job.row.get("resize", RESIZE))
        if not same or found["settings"].get("list_sha256") not in (job.list_sha256, whole_list_sha256):
            return None
        result = judged(found, job.row, table)
        sentence(result)  # it has what is printed of it
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        print(f"{job.row['row']}: {path} is no result of a network ({type(e).__name__}: {e}); evaluated again", flush=True)
        return None
    if result != found:
        write_result(path, result)
    return result


def write_result(path: Path, result: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(result, indent=1) + "\n")


def judged(result: dict[str, Any], row: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """The result with what the table expects of it today, difference and verdict."""
    expected = row["expected"]
    said, interval = verdict(result["top1"], expected["top1"], result["images"], table["images"])
    return {**result, "what": row.get("what", ""), "expected": expected, "verdict": said,
            "difference": result["top1"] - expected["top1"], "interval": interval and list(interval)}


def result_of(job: Job, found: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """The row's JSON, of the form that all tables have."""
    surroundings = environment()
    return judged({
        "table": "released", "row": job.row["row"], "seed": 0,
        "top1": found["top1"], "top5": found["top5"], "images": found["images"], "steps": None, "views": None,
        "seconds": found["seconds"], "processes": found["processes"], "curve": [],
        "settings": {"resize": job.row.get("resize", RESIZE), "of_images": job.total, "limit": job.limit,
                     "list_sha256": job.list_sha256},
        "command": f"python benchmarks/reproduce.py --table released --models {job.row['row']}"
                   + (f" --images {job.limit}" if job.limit else ""),
        "engine": found["engine"], "engine_reason": found["engine_reason"], "images_per_s": found["images_per_s"],
        "skipped": found["skipped"],
        "weights": {"file": job.weights.name, "url": job.row["url"], "sha256": job.sha256,
                    "report": found["weights_report"].replace(str(job.weights), job.weights.name)},
        "commits": [surroundings["commit"]], "environment": surroundings,
    }, job.row, table)


def sentence(result: dict[str, Any]) -> str:
    """'MobileNetV3_large_x1_0   expected 78.96  measured 78.96  difference +0.00  agrees  50,000 images, ...'"""
    interval = result["interval"]
    bounds = f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]" if interval else ""
    expected = 100 * result["expected"]["top1"]
    return (f"{result['row']:24s} expected {expected:.2f}  measured {100 * result['top1']:.2f}{bounds}  difference "
            f"{100 * result['difference']:+.2f}  {result['verdict']}  {result['images']:,} images, "
            f"{result['seconds']:,.0f} s, {result['engine']}, sha256 {result['weights']['sha256'][:12]}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--imagenet", type=Path, help="folder with val_list.txt, or with a sub-folder a class")
    parser.add_argument("--list", type=Path, help="`path label` a line, in the place of --imagenet")
    parser.add_argument("--root", type=Path, help="folder that the list's paths start from (the list's own)")
    parser.add_argument("--weights", type=Path, default=Path("output/released"),
                        help="folder of *_ssld_pretrained.pdparams; what is missing is downloaded there (output/released)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="rows of the table, or all (the paper's two)")
    parser.add_argument("--images", type=int, help="evaluate at most so many, evenly spaced in the list (all)")
    parser.add_argument("--processes", type=int, default=1, help="under paddle.distributed.launch")
    parser.add_argument("--workers", type=int, default=2, help="reading processes of each process")
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the rows' JSON files: released/NAME_seed0.json")
    parser.add_argument("--table-file", type=Path, default=TABLE, help=argparse.SUPPRESS)


def chosen_rows(table: dict[str, Any], names: list[str] | None) -> list[dict[str, Any]]:
    known = {row["row"]: row for row in table["rows"]}
    names = list(known) if names == ["all"] else names or table["usual"]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--models {unknown[0]}: no row of the table; expected all, or some of {', '.join(known)}")
    return [known[name] for name in names]


def run(args: argparse.Namespace) -> int:
    """Evaluate the chosen rows. Returns an exit code: 0 when each of them has a result."""
    if args.images is not None and args.images < 1 or args.processes < 1:
        raise ConfigError("--images and --processes: expected 1 or more")
    table = read_table(args.table_file)
    class_num = table["class_num"]
    rows, source = chosen_rows(table, args.models), source_of(args, class_num)
    images = read_source(SourceConfig(**source), class_num)
    total = len(images)
    whole = list_digest(images, total)
    part = list_digest(images, args.images) if args.images and args.images < total else whole
    folder, not_run, jobs, before = args.results / "released", {}, [], []
    for row in rows:
        try:
            weights = weights_of(row, args.weights.resolve())
        except WeightsError as e:
            not_run[row["row"]] = str(e)
            continue
        job = Job(row, weights, sha256(weights), args.images, total, part)
        print(f"{row['row']}: {weights.name}, sha256 {job.sha256}", flush=True)
        if earlier := earlier_result(folder / f"{row['row']}_seed0.json", job, whole, table):
            before.append(earlier)
        else:
            jobs.append(job)
    for job in probe(jobs, source, class_num, args, not_run):
        try:
            result = result_of(job, evaluate(job, source, class_num, job.limit, args), table)
        except SsldError as e:
            not_run[job.row["row"]] = str(e)
            continue
        write_result(folder / f"{result['row']}_seed0.json", result)
        print(sentence(result), flush=True)
    for result in before:
        print(f"{sentence(result)}, evaluated before")
    for name, reason in not_run.items():
        print(f"{name:24s} not run: {reason}")
    return EXIT_USER if not_run else 0


def probe(jobs: list[Job], source: dict[str, Any], class_num: int, args: argparse.Namespace, not_run: dict[str, str]
          ) -> list[Job]:
    """The jobs that are to be done, after saying how long they will take. Those that cannot start go to `not_run`.

    So few images that measuring takes as long as evaluating them are not worth it.
    """
    todo, minutes, images = [], 0.0, PROBE_BATCHES * args.batch_size * args.processes
    for job in jobs:
        if job.images <= images:
            todo.append(job)
            continue
        try:
            found = evaluate(job, source, class_num, images, args)
        except SsldError as e:
            not_run[job.row["row"]] = str(e)
            continue
        todo.append(job)
        speed = found["images_per_s"] or found["images"] / found["seconds"]
        minutes += job.images / speed / 60
        print(f"{job.row['row']}: {speed:.1f} images/s, {job.images:,} images in about {job.images / speed / 60:,.1f} minutes",
              flush=True)
    if minutes:
        print(f"all together about {minutes:,.1f} minutes", flush=True)
    return todo


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args(arguments)
    try:
        code = run(args)
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        code = e.exit_code
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
