"""How the K/V of a pass's loop steps become one entry (`kv_cache_mode="merge_strategy"`), and the registry for new ways.

A merge is a running fold, `f(merged, new, step, alpha) -> Tensor`, called once for K and once for V after every step:
`merged` is `None` at step 1, `new` the step's K or V `[B, K, T, D]`, `step` r, `alpha` the block's `merge_ema_alpha`.
It must treat batch rows independently and must not write into `new`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Merge = Callable[["Tensor | None", Tensor, int, float], Tensor]

MERGES: dict[str, Merge] = {}


def register_merge(name: str) -> Callable[[Merge], Merge]:
    """Make a merge known under `name` for `LoopLlamaConfig(merge_strategy=name)`.

    Raises:
        ValueError: the name is taken.
    """

    def add(function: Merge) -> Merge:
        if name in MERGES:
            raise ValueError(f"register_merge({name!r}): this name is taken; choose another")
        MERGES[name] = function
        return function

    return add


@register_merge("ema")
def ema(merged: Tensor | None, new: Tensor, step: int, alpha: float) -> Tensor:
    """m_1 = kv_1, m_r = alpha * m_{r-1} + (1 - alpha) * kv_r."""
    return new if merged is None else merged.lerp(new, 1 - alpha)


@register_merge("average")
def average(merged: Tensor | None, new: Tensor, step: int, alpha: float) -> Tensor:
    """Running mean: m_r = m_{r-1} + (kv_r - m_{r-1}) / r."""
    return new if merged is None else merged.lerp(new, 1 / step)


@register_merge("last")
def last(merged: Tensor | None, new: Tensor, step: int, alpha: float) -> Tensor:
    """m_r = kv_r: only the last step's K/V is kept."""
    return new
