"""`ppcls-ssld targets` as a file, for `python -m paddle.distributed.launch`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # also without `pip install -e .`

from ppcls_ssld.cli.main import main  # noqa: E402

sys.exit(main(["targets", *sys.argv[1:]]))
