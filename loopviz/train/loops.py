"""How many loop steps an optimisation step runs."""

from __future__ import annotations

import math

import numpy as np

from .recipe import Loops


def draw_loops(loops: Loops, rng: np.random.Generator, hops: int | None = None) -> int:
    """One draw, in `1..loops.max`.

    Args:
        loops: the recipe's settings; `lognormal_poisson` is the distribution of arXiv 2502.05171, section 3.
        rng: where the draw comes from.
        hops: the batch's deepest chain, for the sampler `hops`.

    Raises:
        ValueError: the sampler is `hops` and none were given.
    """
    if loops.sampler == "hops":
        if hops is None:
            raise ValueError("hops=None: loops.sampler='hops' needs the batch's deepest chain")
        drawn = hops + int(rng.integers(loops.extra + 1))
    elif loops.sampler == "fixed":
        drawn = int(loops.mean)
    elif loops.sampler == "uniform":
        drawn = int(rng.integers(loops.min, loops.max + 1))
    elif loops.mean == 1:
        drawn = 1  # Poisson(0); the logarithm below would have no value
    elif loops.sampler == "poisson":
        drawn = 1 + int(rng.poisson(loops.mean - 1))
    else:
        tau = rng.normal(math.log(loops.mean - 1) - loops.sigma**2 / 2, loops.sigma)
        # numpy refuses a Poisson rate beyond int64; a draw that large is clipped anyway.
        drawn = 1 + int(rng.poisson(min(math.exp(min(tau, 700.0)), 1e9)))
    return min(drawn, loops.max)
