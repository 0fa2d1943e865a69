"""`ppcls-ssld export` under the name that PaddleClas users know."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # also without `pip install -e .`

from ppcls_ssld.cli.main import main  # noqa: E402

sys.exit(main(["export", *sys.argv[1:]]))
