"""`python -m ppcls_ssld VERB`."""

import sys

from .cli.main import main

sys.exit(main())
