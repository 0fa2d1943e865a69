"""From a pool of unlabelled images to the list worth distilling on: near-copies out, teacher's scores, top-k per class."""

import logging

logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which build it has loaded
