"""zlib before Paddle: loading Paddle 2.6.2 first can break later decompression."""

import zlib  # noqa: F401
