"""What packing does to the pixels that training sees: the same random crop from the original and from the packed image.

    python benchmarks/packing.py --root data/photos --list data/photos/list.txt

Boxes are drawn as RandCropImage draws them; from the packed image the same part of the picture is resampled, to a fraction
of a pixel. For comparison, the original with its box moved by half a pixel.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.data import pixels  # noqa: E402
from ppcls_ssld.data.transforms import RandCropImage  # noqa: E402
from ppcls_ssld.pack.encode import encode, shrink  # noqa: E402
from ppcls_ssld.rng import Stream, generator  # noqa: E402

SIZE = 224
SETTINGS = ((256, 90), (256, 95), (320, 90), (400, 90), (10_000, 90))  # short side (never enlarged), quality
Box = tuple[float, float, float, float]  # left, top, width, height


def view(image: np.ndarray, box: Box) -> np.ndarray:
    """float64 [224, 224, 3] of a part of uint8 [H, W, 3], bilinear, at a fraction of a pixel."""
    left, top, width, height = box
    x, y = width / SIZE, height / SIZE
    matrix = np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5]])
    return cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE).astype(np.float64)


def compared(names: list[str], other: Callable[[np.ndarray, Box], tuple[np.ndarray, int]]) -> dict[str, float]:
    """Means over images. other: (image, box) -> the view to compare with the original's, and its bytes."""
    crop, rows = RandCropImage(SIZE), []
    for i, name in enumerate(names):
        image = pixels.decode(Path(name).read_bytes(), name)
        box = crop.draw(generator(0, 0, i, Stream.AUGMENT), *image.shape[:2])[:4]
        found, size = other(image, box)
        difference = found - view(image, box)
        rows.append((size / 1e3, np.abs(difference).mean(), 10 * np.log10(255**2 / (difference**2).mean()),
                     difference.mean()))
    return dict(zip(("kilobytes", "mean_absolute_levels", "psnr_db", "mean_levels"), np.mean(rows, axis=0).tolist()))


def packed(short_side: int, quality: int) -> Callable[[np.ndarray, Box], tuple[np.ndarray, int]]:
    def other(image: np.ndarray, box: Box) -> tuple[np.ndarray, int]:
        data = encode(shrink(image, short_side), quality)
        small = pixels.decode(data, "packed")
        y, x = small.shape[0] / image.shape[0], small.shape[1] / image.shape[1]
        return view(small, (box[0] * x, box[1] * y, box[2] * x, box[3] * y)), len(data)

    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--list", type=Path, required=True, help="`path label` a line")
    parser.add_argument("--images", type=int, default=200, help="of the list, evenly spaced")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    lines = args.list.read_text().splitlines()
    names = [str(args.root / lines[i * len(lines) // args.images].rsplit(" ", 1)[0]) for i in range(args.images)]
    rows = [{"short_side": side, "quality": quality, **compared(names, packed(side, quality))}
            for side, quality in SETTINGS]
    shifted = compared(names, lambda image, box: (view(image, (box[0] + 0.5, *box[1:])), 0))
    best = rows[0]
    report = {"what": "pixels of packed images against the originals'", "images": args.images, "rows": rows,
              "box_moved_by_half_a_pixel": shifted, "environment": environment(),
              "headline": f"short side {best['short_side']}, quality {best['quality']}: {best['kilobytes']:.1f} KB, "
                          f"{best['mean_absolute_levels']:.1f} levels, {best['psnr_db']:.1f} dB; box moved by half a pixel: "
                          f"{shifted['mean_absolute_levels']:.1f} levels"}
    path = result_path("packing")
    path.write_text(json.dumps(report, indent=1) + "\n")
    for row in rows:
        print(", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    print(f"box moved by half a pixel: {shifted}\nwritten: {path}")


if __name__ == "__main__":
    main()
