"""What a few seeds, or a part of the images, say about the number behind them: 95 % intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit  # Student's t by degrees of freedom; SciPy comes with scikit-learn

Z_975 = 1.959964  # of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """n values: their mean, standard deviation (n - 1) and half the width of Student's 95 % interval of the mean.

    deviation and half_width are None for a single value, about whose spread nothing is known.
    """

    n: int
    mean: float
    deviation: float | None
    half_width: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """ValueError without values."""
    n, mean = len(values), statistics.fmean(values) if values else math.nan
    if not n:
        raise ValueError("no values; an estimate needs one or more")
    if n == 1:
        return Estimate(1, mean, None, None)
    deviation = statistics.stdev(values)
    return Estimate(n, mean, deviation, float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n))


def paired(of: Mapping[int, float], against: Mapping[int, float]) -> dict[int, float]:
    """of - against, by the seeds that both have, in their order."""
    return {seed: of[seed] - against[seed] for seed in sorted(of.keys() & against.keys())}


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share measured on `count` images."""
    middle = (share + Z_975**2 / (2 * count)) / (1 + Z_975**2 / count)
    half = Z_975 / (1 + Z_975**2 / count) * math.sqrt(share * (1 - share) / count + Z_975**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
