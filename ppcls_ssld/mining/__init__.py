"""From a pool of unlabelled images to a list worth distilling on: no near-copies, teacher's scores, top-k per class."""

import logging

logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which build it has loaded
