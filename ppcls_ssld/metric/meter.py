"""Running means."""

from __future__ import annotations


class Mean:
    """Weighted mean of the numbers seen since the last reset."""

    def __init__(self):
        self.reset()

    def update(self, value: float, weight: float = 1.0) -> None:
        self._sum += value * weight
        self._weight += weight

    def result(self) -> float | None:
        """The mean; None when nothing was seen."""
        return self._sum / self._weight if self._weight else None

    def reset(self) -> None:
        self._sum = self._weight = 0.0
