"""python deploy/predict.py --model DIR IMAGE_OR_FOLDER... : likeliest classes or attributes, one line per image.

Exit code 0, or 2 when an image could not be read (each is named on stderr; the others are predicted all the same).
"""

from __future__ import annotations

import zlib  # noqa: F401  before Paddle: loading Paddle 2.6.2 first can break later decompression
import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script from a clone
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy.predictor import Classifier, Predictor
from ppcls_ssld.errors import EXIT_DONE, EXIT_USER, DataError, SsldError
from ppcls_ssld.inference import read_labels

# Those of ppcls_ssld.data.lists, which reads the folders of a training run, and would bring its configs along.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def list_images(paths: Iterable[str]) -> list[str]:
    """Files as given, folders searched through, sorted, without hidden names; links are followed, no folder is entered
    twice. DataError for a path that is not there or holds no image."""
    images: list[str] = []
    for path in map(Path, paths):
        if path.is_file():
            images.append(str(path))
            continue
        if not path.is_dir():
            raise DataError(f"{path}: no such file or folder")
        found = sorted(_images_below(path))
        if not found:
            raise DataError(f"{path}: no image in this folder; expected files ending in {' '.join(IMAGE_SUFFIXES)}")
        images += found
    return images


def _images_below(top: Path) -> Iterator[str]:
    seen = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith("."))
        if real not in seen:
            yield from (str(Path(folder, f)) for f in files
                        if f.lower().endswith(IMAGE_SUFFIXES) and not f.startswith("."))
        seen.add(real)


def print_predictions(classifier: Classifier, images: Iterable[str], batch_size: int, as_json: bool) -> int:
    """One line per image with PaddleClas's keys, or with its attributes, each a yes or no; the exit code."""
    corrupt: list[str] = []

    def on_corrupt(error: DataError) -> None:
        corrupt.append(str(error))
        print(f"skipped: {error}", file=sys.stderr, flush=True)

    for p in classifier.stream(images, batch_size, on_corrupt):
        scores = [round(s, 5) for s in p.scores]
        if p.yes:
            answers = zip(p.labels or map(str, p.class_ids), scores, p.yes)
            row = {"attributes": [{"name": name, "score": score, "yes": yes} for name, score, yes in answers],
                   "file_name": p.path}
        else:
            row = {"class_ids": list(p.class_ids), "scores": scores, "file_name": p.path, "label_names": list(p.labels)}
        print(_json(row) if as_json else row, flush=True)
    if corrupt:
        print(f"{len(corrupt)} image(s) could not be read", file=sys.stderr, flush=True)
    return EXIT_USER if corrupt else EXIT_DONE


def _json(row: dict[str, Any]) -> str:
    """One line of UTF-8; what is not UTF-8 in a file name is escaped, and comes back when the line is parsed."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


warnings.filterwarnings("ignore", message="No ccache found")  # Paddle's, about compiling; nothing is compiled here


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, found {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deploy/predict.py", description="Likeliest classes or attributes of images.")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model", required=True, metavar="DIR", help="folder of an exported network")
    parser.add_argument("--topk", type=int, help="classes per image (default: what inference.yml says)")
    parser.add_argument("--labels", metavar="FILE", help="class names: `id name` or `name` a line")
    parser.add_argument("--device", default="cpu", help="cpu, gpu or gpu:N")
    parser.add_argument("--threads", type=_positive, help="CPU threads (default: OMP_NUM_THREADS, or all cores)")
    parser.add_argument("--batch-size", type=_positive, default=32)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    args = parser.parse_args(argv)
    try:
        images = list_images(args.images)
        labels = read_labels(args.labels) if args.labels else None
        predictor = Predictor(args.model, args.device, args.threads, args.topk, labels)
        return print_predictions(predictor, images, args.batch_size, args.json)
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        return e.exit_code


if __name__ == "__main__":
    sys.exit(main())
