"""What every process of ours does first, so that this one computes with the same kernels as those that tests start.

zlib before Paddle: loading Paddle 2.6.2 first can break later decompression.
"""

import zlib  # noqa: F401

from ppcls_ssld.arch.cpu import prepare_process

prepare_process()
