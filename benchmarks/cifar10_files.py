"""CIFAR-10 as files, which is what the CIFAR-10 tables read: from the binary version of its authors.

    python benchmarks/cifar10_files.py cifar-10-binary.tar.gz --output dataset/cifar10

The archive: https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (Krizhevsky, "Learning Multiple Layers of Features from
Tiny Images", 2009). Writes train/<class>/00000.png ..., test/..., train_list.txt, test_list.txt (`path label`; the order is
drawn once from seed 0, as the first 5,000 lines are the labelled set) and classes.txt. The committed rows were trained on
JPEG files of the same images in another order, so that top-1 will not be the same to the digit.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ppcls_ssld.atomic import write_atomic  # noqa: E402
from ppcls_ssld.errors import DataError, SsldError  # noqa: E402

PARTS = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
IMAGES_OF_A_PART = 10_000
RECORD = 1 + 3 * 32 * 32  # the label; red, green, blue, each row by row


def write_files(archive: Path, output: Path) -> dict[str, int]:
    """{"train": images, "test": images}. DataError for an archive that is not CIFAR-10's binary version, or damaged."""
    members = _members(archive, ["batches.meta.txt", *(name for names in PARTS.values() for name in names)])
    classes = members["batches.meta.txt"].decode().split()
    written = {}
    for part, names in PARTS.items():
        if any(len(members[name]) != IMAGES_OF_A_PART * RECORD for name in names):
            raise DataError(f"{archive}: its {part} files are not {IMAGES_OF_A_PART:,} records of {RECORD} bytes each; "
                            "fetch the archive again")
        records = np.frombuffer(b"".join(members[name] for name in names), np.uint8).reshape(-1, RECORD)
        for label in classes:
            (output / part / label).mkdir(parents=True, exist_ok=True)
        lines = []
        for i, record in enumerate(records):
            path = f"{part}/{classes[record[0]]}/{i:05d}.png"
            rgb = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            (output / path).write_bytes(cv2.imencode(".png", rgb[:, :, ::-1])[1].tobytes())
            lines.append(f"{path} {record[0]}\n")
        order = np.random.default_rng(0).permutation(len(lines))
        write_atomic(output / f"{part}_list.txt", "".join(lines[i] for i in order))  # last: a list is of files that are there
        written[part] = len(lines)
    write_atomic(output / "classes.txt", "".join(f"{name}\n" for name in classes))
    return written


def _members(archive: Path, names: list[str]) -> dict[str, bytes]:
    try:
        with tarfile.open(archive) as tar:
            found = {Path(member.name).name: tar.extractfile(member).read() for member in tar
                     if member.isfile() and Path(member.name).name in names}
    except (OSError, EOFError, tarfile.TarError) as e:
        raise DataError(f"{archive}: cannot be read as a tar archive ({e}); expected cifar-10-binary.tar.gz") from e
    if missing := sorted(set(names) - set(found)):
        raise DataError(f"{archive}: has no {', '.join(missing)}; expected the binary version, cifar-10-binary.tar.gz")
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        written = write_files(args.archive, args.output)
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    print(f"{args.output}: {', '.join(f'{count:,} {part} images' for part, count in written.items())}")


if __name__ == "__main__":
    main()
