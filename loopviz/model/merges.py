"""How the K/V of a pass's loop steps become one entry (`kv_cache_mode="merge_strategy"`), and the registry for new ways.

A merge is a running fold, `f(merged, new, step, alpha) -> Tensor`, called once for K and once for V after every step:
`merged` is `None` at step 1, `new` the step's K or V `[B, K, T, D]`, `step` r, `alpha` the block's `merge_ema_alpha`.
It must treat batch rows independently and must not write into `new`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from loopviz.loop_fields import registry

from .registry import check_finite, check_tensor, comes_with_loopviz, take_name

Merge = Callable[["Tensor | None", Tensor, int, float], Tensor]

MERGES: dict[str, Merge] = registry("merge_strategy")


def register_merge(name: str, *, replace: bool = False) -> Callable[[Merge], Merge]:
    """Make a merge known under `name` for `LoopLlamaConfig(merge_strategy=name)`.

    Args:
        name: the value of the configuration field.
        replace: take the place of another function of that name (the same function takes its own place anyway).

    Raises:
        ValueError: the name is taken. What the function returns is checked when it is used: shape, dtype and device of
            `new`, finite where what it was given is.
    """

    def add(function: Merge) -> Merge:
        take_name(MERGES, "register_merge", name, function, replace)
        MERGES[name] = function
        return function

    return add


def merge_step(name: str, merged: Tensor | None, new: Tensor, step: int, alpha: float) -> Tensor:
    """One step of the merge registered as `name`, `[B, K, T, D]`.

    Raises:
        ValueError: the function is a user's and gave something else; it says what.
    """
    function = MERGES[name]
    found = function(merged, new, step, alpha)
    if not comes_with_loopviz(function):
        check_tensor("register_merge", name, function, found, tuple(new.shape), new.dtype, new)
        check_finite("register_merge", name, function, found, merged, new)
    return found


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


@register_merge("first")
def first(merged: Tensor | None, new: Tensor, step: int, alpha: float) -> Tensor:
    """m_r = kv_1: only the first step's K/V is kept. What Ouro (arXiv 2510.25741) found to ruin decoding."""
    return new if merged is None else merged
