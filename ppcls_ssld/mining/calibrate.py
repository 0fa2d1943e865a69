"""Thresholds and false-alarm rates from the scores of innocents: images known to be no copies of the protected ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from ..errors import ConfigError, DataError

ENOUGH_ALARMS = 10  # allowed by the target among the innocents before counting alone is trusted
FEWEST_SCORES = 50
_TAIL_SHARE, _SMALLEST_TAIL, _FEWEST_BEYOND = 0.1, 30, 10


@dataclass(frozen=True)
class Estimate:
    """How often an innocent image is taken for a copy at one threshold.

    count: innocents looked at. alarms: of them at or above the threshold. rate: alarms / count; when extrapolated,
    from a fitted tail. low, high: 95 % bounds from the counts alone (Clopper and Pearson 1934), extrapolated or not.
    """

    count: int
    alarms: int
    rate: float
    low: float
    high: float
    extrapolated: bool = False


def estimate(scores: np.ndarray, threshold: float) -> Estimate:
    """Count the innocents at or above the threshold."""
    scores = _checked(scores).astype(np.float64)
    alarms = int(np.count_nonzero(scores >= threshold))
    return Estimate(len(scores), alarms, alarms / len(scores), *bounds(alarms, len(scores)))


def bounds(alarms: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson bounds of a rate: exact, two-sided."""
    miss = (1 - confidence) / 2
    low = 0.0 if alarms == 0 else float(betaincinv(alarms, count - alarms + 1, miss))
    high = 1.0 if alarms == count else float(betaincinv(alarms + 1, count - alarms, 1 - miss))
    return low, high


def threshold_for(scores: np.ndarray, target: float) -> tuple[float, Estimate]:
    """Smallest threshold at which at most `target` of the innocents raise an alarm.

    scores: integers (cells) or floats (correlations), one per innocent image: its highest against all protected.
    With target * count >= 10 by counting. Else from a generalised Pareto tail fitted to the highest tenth (Hosking and
    Wallis 1987, probability-weighted moments), taken one standard error heavier, and never below what counting gives;
    the Estimate says `extrapolated`. Where the tail shows no spread, just above the highest score, and the bounds tell
    what that is worth. A threshold beyond what a score can reach says that these scores cannot promise this target.
    DataError: fewer than 50 scores.
    """
    scores = _checked(scores)
    if not 0 < target < 1:
        raise ConfigError(f"expected a target rate between 0 and 1, found {target}")
    if len(scores) < FEWEST_SCORES:
        raise DataError(f"found {len(scores)} scores of innocent images, expected {FEWEST_SCORES} or more; give more "
                        "images that are known to be no copies")
    whole = scores.dtype.kind in "iu"
    ordered = np.sort(scores.astype(np.float64))[::-1]
    # int(): of exactly target * count alarms; 1e-9 for targets that floats cannot hold
    by_count = _above(ordered[int(target * len(ordered) + 1e-9)], scores.dtype)
    threshold, rate = by_count, None
    if target * len(ordered) < ENOUGH_ALARMS:
        tail = _fit_tail(ordered, whole)
        if tail is not None:
            threshold = max(by_count, tail.level(target))
            rate = tail.rate(threshold)
    found = estimate(scores, threshold)
    if rate is not None:
        found = Estimate(found.count, found.alarms, rate, found.low, found.high, True)
    return float(threshold), found


@dataclass(frozen=True)
class _Tail:
    """P(score >= t) = share * (1 + shape * (t - start) / scale) ** (-1 / shape), t >= start; exponential at shape 0."""

    start: float
    share: float
    scale: float
    shape: float  # < 0: ends at start - scale / shape
    whole: bool  # scores are integers: t stands for the interval from t - 1/2

    def rate(self, t: float) -> float:
        beyond = (t - (0.5 if self.whole else 0) - self.start) / self.scale
        if abs(self.shape) < 1e-6:
            return self.share * float(np.exp(-beyond))
        return self.share * float(max(0, 1 + self.shape * beyond) ** (-1 / self.shape))

    def level(self, target: float) -> float:
        """Smallest t with rate(t) <= target."""
        log = np.log(self.share / target)
        beyond = self.scale * (log if abs(self.shape) < 1e-6 else np.expm1(self.shape * log) / self.shape)
        t = self.start + beyond
        return float(np.ceil(t + 0.5 - 1e-9)) if self.whole else float(t)


def _fit_tail(ordered: np.ndarray, whole: bool) -> _Tail | None:
    """Tail of descending scores from the highest tenth; None when they do not spread."""
    count = len(ordered)
    wanted = max(_SMALLEST_TAIL, int(_TAIL_SHARE * count))
    start = ordered[wanted - 1]
    size, above = np.count_nonzero(ordered >= start), np.count_nonzero(ordered > start)
    if size > 2 * wanted and above >= _FEWEST_BEYOND:  # most innocents share one score, such as 0: no part of the tail
        start, size = ordered[above - 1], above
    if ordered[0] == start:
        return None
    start -= 0.5 if whole else 0  # an integer stands for the interval of width 1 around it
    beyond = ordered[:size] - start
    mean = beyond.mean()
    # the i-th of descending values is exceeded by a share of about (i + 0.35) / size (plotting position of the source)
    moment = float((beyond * (np.arange(size) + 0.35)).mean() / size)
    # One standard error (of an exponential tail's shape) heavier than it looks: a threshold too low costs more than one
    # too high. At 1 a tail has no mean.
    shape = min(2 - mean / (mean - 2 * moment) + (4 / 3 / size) ** 0.5, 0.9)
    shape = max(shape, 0.0) if whole else shape  # small integers make a tail look lighter than it is
    scale = mean * (1 - shape)
    return _Tail(float(start), size / count, float(scale), float(shape), whole)


def _above(score: float, dtype: np.dtype) -> float:
    """Smallest threshold that this score does not reach, also where scores are compared in their own dtype."""
    return score + 1 if dtype.kind in "iu" else float(np.nextafter(dtype.type(score), dtype.type(np.inf)))


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.ndim != 1 or not len(scores) or scores.dtype.kind not in "iuf":
        raise DataError(f"expected a list of scores of innocent images, found {scores.dtype} {list(scores.shape)}")
    if np.isnan(scores).any():
        raise DataError(f"{np.count_nonzero(np.isnan(scores))} of {len(scores)} scores are not a number; give "
                        "innocents without evidence the lowest score instead")
    return scores
