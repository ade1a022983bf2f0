"""Percentile bootstrap over windows (Efron 1979): how far another sample of such text might put a mean."""

from __future__ import annotations

import numpy as np


def mean_interval(
    sums: np.ndarray, counts: np.ndarray, draws: int, seed: int, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Interval of `sum(sums) / sum(counts)` when whole windows are drawn anew, with replacement.

    Windows, not tokens: tokens of one window are not independent. The same seed draws the same windows, so intervals
    of several settings on one text can be compared.

    Args:
        sums: `[W]` a window's summed values (nats).
        counts: `[W]` values in each.
        draws: resamplings.
        seed: of the drawing.
        confidence: share of resamplings inside.

    Returns:
        Low and high; `(None, None)` for a single window, which says nothing about others, and for `draws=0`.
    """
    W = len(sums)
    if W < 2 or draws < 1:
        return None, None
    times = np.random.default_rng(seed).multinomial(W, np.full(W, 1 / W), size=draws)  # [draws, W]
    means = (times @ sums) / (times @ counts)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
