"""The only seed arithmetic: (seed, epoch, sample_id, stream) -> generator.

Order and augmentation are functions of these four numbers, so they cannot depend on worker count, rank count or
the order in which images are read.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a generator is for; two streams of one sample never share draws."""

    ORDER = 0
    AUGMENT = 1
    MIX = 2
    FRAMEWORK = 3
    SUBSET = 4
    VISITS = 5
    CONTROL = 6
    PARTNER = 7
    ROWS = 8
    VERIFY = 9


def generator(seed: int, epoch: int, sample_id: int, stream: Stream) -> np.random.Generator:
    """Independent PCG64 generator of one (seed, epoch, sample_id, stream); all non-negative integers."""
    numbers = (seed, epoch, sample_id, int(stream))
    if max(numbers) < 2**32 and min(numbers) >= 0:
        numbers = np.array(numbers, np.uint32)  # the same entropy, word by word, in half the time
    return np.random.Generator(np.random.PCG64(numbers))


def framework_seed(seed: int, step: int, rank: int) -> int:
    """Seed in [0, 2^31) for Paddle's own generator (dropout, drop-path) in one step of one rank."""
    return int(generator(seed, step, rank, Stream.FRAMEWORK).integers(2**31))
