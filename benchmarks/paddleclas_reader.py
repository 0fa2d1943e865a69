"""PaddleClas's own reader, as `benchmarks/reader.py` runs it: for each line on standard input one pass, seconds out.

    python benchmarks/paddleclas_reader.py CHECKOUT ROOT LIST BATCH SIZE

Its ImageNetDataset with the transforms of its own training configs, and Paddle's collation, in this process: what a
worker of its DataLoader does, without the way to the main process.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    checkout, root, images, batch, size = sys.argv[1:]
    sys.path.insert(0, checkout)
    from paddle.io.dataloader.collate import default_collate_fn
    from ppcls.data.dataloader.imagenet_dataset import ImageNetDataset

    normalize = {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": ""}
    dataset = ImageNetDataset(root, images, [
        {"DecodeImage": {"to_rgb": True, "channel_first": False}}, {"RandCropImage": {"size": int(size)}},
        {"RandFlipImage": {"flip_code": 1}}, {"NormalizeImage": normalize}])
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for first in range(0, len(dataset), int(batch)):
            default_collate_fn([dataset[i] for i in range(first, min(first + int(batch), len(dataset)))])
        print("seconds", time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
