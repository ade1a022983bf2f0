"""Leaving work in the middle of a pass: what `interruptible` was given is looked at before every layer.

The stop belongs to who calls, not to the model: weights are shared, and others' passes over them go on. A pass of many
tokens is looked at before every operation too, and the largest of these are done in pieces, so that a layer of thousands
of tokens can be left as soon as one of ten. On a GPU, which is told far ahead what to do, what it has been told is done.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from math import prod
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

MANY = 256  # rows (tokens of all sequences) from which single operations are looked at; that costs some 1.5 us each
PIECE = 2**31  # multiply-adds of one operation: about half a second of a slow core

Y = TypeVar("Y")
R = TypeVar("R")


class Interrupted(Exception):
    """A stop was set, and the work is left where it was: caches are as before the pass, no result is there."""


class Stop(Protocol):
    """What ends work: a `threading.Event`, or whatever can say the same."""

    def is_set(self) -> bool:
        """Whether it is to end now."""


_STOPS: ContextVar[tuple[Stop, ...]] = ContextVar("loopviz_stops", default=())
_INSIDE: ContextVar[bool] = ContextVar("loopviz_inside_operations", default=False)


@contextmanager
def interruptible(stop: Stop) -> Iterator[None]:
    """What this thread computes in the block ends as soon as `stop` is set; blocks may stand in each other.

    A generator must not yield in the block (its consumer would be interrupted too): see :func:`until`.

    Raises:
        Interrupted: from the work in the block.
    """
    token = _STOPS.set((*_STOPS.get(), stop))
    try:
        yield
    finally:
        _STOPS.reset(token)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """What this thread computes in the block ends by no stop of its own: others wait for it."""
    token = _STOPS.set(())
    try:
        yield
    finally:
        _STOPS.reset(token)


def stopped() -> bool:
    """Whether the work at hand is to end; outside of `interruptible` it never is."""
    return any(stop.is_set() for stop in _STOPS.get())


def check() -> None:
    """Raises Interrupted where the work at hand is to end; outside of `interruptible` there is nothing to look at."""
    if stopped():
        raise Interrupted("stopped in the middle of the work")


def until(stop: Stop, steps: Generator[Y, None, R]) -> Generator[Y, None, R | None]:
    """The steps of a generator until `stop` is set, inside of a step too; closing this closes them.

    Returns what they return, or None when they were stopped.

    Raises:
        Interrupted: by another stop, of who runs this.
    """
    with closing(steps):
        while not stop.is_set():
            try:
                with interruptible(stop):
                    step = next(steps)
            except StopIteration as end:
                return end.value
            except Interrupted:
                if stop.is_set():
                    return None
                raise
            yield step
    return None


def within_operations(rows: int) -> AbstractContextManager[Any]:
    """Inside of `interruptible`, work on so many rows is looked at before every operation; else nothing is changed."""
    if rows < MANY or not _STOPS.get() or _INSIDE.get():
        return nullcontext()
    return _each_operation()


@contextmanager
def _each_operation() -> Iterator[None]:
    token = _INSIDE.set(True)
    try:
        with _Operations():
            yield
    finally:
        _INSIDE.reset(token)


class _Operations(TorchFunctionMode):
    """Looks at the stops before each of PyTorch's functions, and does the largest of them in pieces."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        check()
        in_pieces = _IN_PIECES.get(func)
        done = None if in_pieces is None or torch.is_grad_enabled() else in_pieces(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if done is None else done


def _rows_in_pieces(func: Callable[..., Tensor], a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    """A product `[..., N, K] x [..., K, M]` (or of F.linear), some of `a`'s N rows at a time; None where it is small."""
    linear = func is F.linear
    if a.device.type != "cpu" or min(a.ndim, b.ndim) < 2 or "out" in kwargs:
        return None
    rows = a.flatten(0, -2) if linear else a  # [..., N, K]
    N, M = rows.shape[-2], b.shape[0] if linear else b.shape[-1]
    batch = 1 if linear else prod(torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    size = _size(N, batch * N * a.shape[-1] * M)
    if size is None:
        return None
    out: Tensor | None = None
    for start in range(0, N, size):
        check()
        part = func(rows[..., start : start + size, :], b, *args, **kwargs)
        if out is None:
            out = part.new_empty(*part.shape[:-2], N, M)
        out[..., start : start + size, :] = part
    assert out is not None
    return out.unflatten(0, a.shape[:-1]) if linear else out


def _attention_in_pieces(
    func: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **kwargs: Any,
) -> Tensor | None:
    """Attention of some queries at a time, `[..., L, D] -> [..., L, E]`: their softmaxes know nothing of each other."""
    L, S = query.shape[-2], key.shape[-2]
    size = _size(L, 2 * query.numel() * S)
    if query.device.type != "cpu" or dropout_p or size is None:
        return None
    parts = []
    for start in range(0, L, size):
        check()
        stop = min(start + size, L)
        mask, seen = attn_mask, S
        if is_causal:
            seen = min(stop, S)
            mask = torch.ones(stop - start, seen, dtype=torch.bool).tril(start)
        elif mask is not None and mask.ndim > 1 and mask.shape[-2] == L:
            mask = mask[..., start:stop, :]
        keys, values = key[..., :seen, :], value[..., :seen, :]
        parts.append(func(query[..., start:stop, :], keys, values, attn_mask=mask, **kwargs))
    return torch.cat(parts, dim=-2)


def _size(rows: int, cost: int) -> int | None:
    """Rows of one piece of work that costs so many multiply-adds; None where it is small enough, or cannot be cut."""
    return None if cost <= PIECE or rows < 2 else max(1, rows * PIECE // cost)


_IN_PIECES: dict[Any, Callable[..., Tensor | None]] = {
    F.scaled_dot_product_attention: _attention_in_pieces,
    **dict.fromkeys(
        (F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm),
        _rows_in_pieces,
    ),
}
