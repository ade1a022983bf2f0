"""Bootstrap over windows (Efron 1979): how far another sample of such text might put a mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from loopviz.lab.task import MOST_SEED, param

MOST_DRAWS = 100_000
HELD = 2**20  # windows drawn at once
DRAWS = 10_000  # of the ends of an interval of few windows only the outermost thousandths count
FEWEST = (
    6  # windows: the whole range of fewer holds the median of such windows less than 95 times in 100 (1 - 2^(1 - W))
)


FIGURE_DRAWS = 2_000  # resamplings of an interval that a figure makes of a table's rows, with seed 0


def draws_param() -> Any:
    """A task's field `draws`."""
    return param(
        DRAWS,
        "Resamplings of the bootstrap interval (95 %, over windows; none under 6 windows); 0: none.",
        "自助法区间（95 %，按窗口；少于 6 个窗口时不给出）的重抽样次数；0 表示不计算。",
        low=0,
        high=MOST_DRAWS,
    )


def seed_param() -> Any:
    """A task's field `seed`, where it is of the resampling alone."""
    return param(0, "Seed of the resampling.", "重抽样的随机种子。", low=0, high=MOST_SEED)


def mean_interval(
    sums: np.ndarray, counts: np.ndarray, draws: int, seed: int, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Interval of `sum(sums) / sum(counts)` when whole windows are drawn anew, with replacement.

    Windows, not tokens: tokens of one window are not independent. The same seed draws the same windows, so intervals
    of several settings on one text can be compared. Of few windows a percentile interval is too narrow; its ends are
    moved outwards as far as Student's t says (:func:`tail`), and under `FEWEST` windows there is none.

    Args:
        sums: `[W]` a window's summed values (nats).
        counts: `[W]` values in each.
        draws: resamplings.
        seed: of the drawing.
        confidence: share of such intervals that hold the value of all such text.

    Returns:
        Low and high; `(None, None)` under `FEWEST` windows, and for `draws=0`.
    """
    W = len(sums)
    if W < FEWEST or draws < 1:
        return None, None
    generator, share, parts = np.random.default_rng(seed), np.full(W, 1 / W), max(1, HELD // W)
    means = np.empty(draws)
    for start in range(0, draws, parts):  # the same draws as all at once, and never the memory of all
        some = slice(start, min(start + parts, draws))
        times = generator.multinomial(W, share, size=some.stop - start)  # [<= parts, W]
        means[some] = (times @ sums) / (times @ counts)
    outside = tail(W, confidence)
    low, high = np.quantile(means, (outside, 1 - outside))
    return float(low), float(high)


def interval_of(
    statistic: Callable[[np.ndarray], float], n: int, draws: int, seed: int, confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """As :func:`mean_interval`, of any statistic of `n` things that are drawn anew, with replacement.

    Args:
        statistic: of how often each was drawn, `[n]` int64 that sum to `n`.
    """
    if n < FEWEST or draws < 1:
        return None, None
    generator, share = np.random.default_rng(seed), np.full(n, 1 / n)
    found = np.array([statistic(generator.multinomial(n, share)) for _ in range(draws)])
    outside = tail(n, confidence)
    low, high = np.quantile(found, (outside, 1 - outside))
    return float(low), float(high)


def tail(windows: int, confidence: float) -> float:
    """Share of the resampled means left out at each end: Φ(-√(W / (W - 1)) t), t Student's with W - 1 degrees of freedom.

    The expanded percentile interval (Hesterberg, arXiv 1411.5279): resampled means spread less than the
    mean itself, by √((W - 1) / W), and their ends follow the normal distribution where Student's is due.
    """
    t = student(1 - (1 - confidence) / 2, windows - 1)
    return NormalDist().cdf(-math.sqrt(windows / (windows - 1)) * t)


def student(share: float, freedom: int) -> float:
    """Quantile of Student's t by its expansion around the normal one (Abramowitz & Stegun 26.7.5).

    From 5 degrees on too small by at most 0.2 % at 97.5 % (an interval of 95 %) and 0.6 % at 99.5 % (one of 99 %).
    """
    z, n = NormalDist().inv_cdf(share), freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
