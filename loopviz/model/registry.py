"""Functions that users add to the model by name (criteria, merges): taking a name, and checking what they return."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from loopviz.loop_fields import comes_with_loopviz as comes_with_loopviz


def take_name(
    registry: MutableMapping[str, Any], register: str, name: Any, function: Callable[..., Any], replace: bool
) -> None:
    """Make sure that ``function`` may stand under ``name``.

    A function takes its own place again (a notebook's cell run twice, a module reloaded): same module, same qualified
    name. What comes with LoopViz keeps its name, or saved models would mean something else.

    Args:
        registry: name to what is registered (a function, or something with ``.function``).
        register: how the caller is called, for the message.
        replace: whether another function's place may be taken.

    Raises:
        ValueError: the name is no text, or taken.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{register}({name!r}): the name must be a non-empty text")
    if name not in registry:
        return
    held = registry[name]
    held = getattr(held, "function", held)
    if comes_with_loopviz(held):
        if _address(held) != _address(function):
            raise ValueError(f"{register}({name!r}): this name is taken by LoopViz's own; choose another")
    elif not replace and (_address(held) != _address(function) or "<lambda>" in _address(function)):
        raise ValueError(
            f"{register}({name!r}): this name is taken by {_address(held)}; choose another, "
            f"or write {register}({name!r}, replace=True)"
        )


def check_tensor(
    register: str, name: str, function: Callable[..., Any], got: Any, shape: tuple[int, ...], dtype: Any, like: Tensor
) -> None:
    """Check what a registered function gave.

    Args:
        register, name: what it is registered as, for the message.
        got: what it returned.
        shape, dtype: what it should have.
        like: a tensor on the device where it should be.

    Raises:
        ValueError: naming the function, what came and what was wanted.
    """
    wanted = f"a {_short(dtype)} tensor {list(shape)} on {like.device}"
    if not isinstance(got, Tensor):
        came = f"{type(got).__name__} {got!r:.80}"
    elif tuple(got.shape) != tuple(shape) or got.dtype != dtype or got.device != like.device:
        came = f"a {_short(got.dtype)} tensor {list(got.shape)} on {got.device}"
    else:
        return
    raise ValueError(f"{register}({name!r}), {_address(function)}: returned {came}, where {wanted} is wanted")


def check_finite(register: str, name: str, function: Callable[..., Any], got: Tensor, *given: Tensor | None) -> None:
    """Check that numbers stay numbers: where all that was given is finite, what came must be.

    Raises:
        ValueError: naming the function and how many values are not finite.
    """
    bad = int((~torch.isfinite(got)).sum())
    if bad and all(bool(torch.isfinite(x).all()) for x in given if x is not None):
        raise ValueError(
            f"{register}({name!r}), {_address(function)}: returned {bad} values that are not finite (NaN or infinite), "
            "from finite ones"
        )


def _address(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or '?'}.{name}"


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
