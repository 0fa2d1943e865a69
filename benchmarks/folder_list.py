"""A list (`path label` a line) of a folder that has a folder per class, such as ImageNet's: what the tables' inputs need.

    python benchmarks/folder_list.py dataset/ILSVRC2012/train --output dataset/ILSVRC2012/train_list.txt
    python benchmarks/folder_list.py dataset/ILSVRC2012/val --output dataset/ILSVRC2012/val_list.txt

Labels are the folders' places in sorted order: of ImageNet's n01440764 ... that is the order of the published weights.
Paths are relative to the list's folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ppcls_ssld.atomic import write_atomic  # noqa: E402
from ppcls_ssld.config.schema import SourceConfig  # noqa: E402
from ppcls_ssld.data.lists import read_folder  # noqa: E402
from ppcls_ssld.errors import SsldError  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="has a folder per class")
    parser.add_argument("--classes", type=int, default=1000, help="how many are expected (1000)")
    parser.add_argument("--output", type=Path, required=True, help="the list")
    args = parser.parse_args(arguments)
    try:
        images = read_folder(SourceConfig("images", folder=str(args.folder)), args.classes)
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    base = args.output.resolve().parent
    lines = [f"{os.path.relpath(images.path(i), base)} {label}\n" for i, label in enumerate(images.labels)]
    print(f"{len(lines):,} images: {write_atomic(args.output, ''.join(lines).encode('utf-8', 'surrogateescape'))}")


if __name__ == "__main__":
    main()
