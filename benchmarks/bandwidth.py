"""The limit of decoding: a token's weights are read from memory once, and no quicker than one read of the same bytes.

A read is a reduction of every tensor, in the order of the layers, with torch's own threads, as decoding has them. Which one goes
through memory quickest differs between processors, so all of `READS` are timed and the quickest is the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loopviz.model.precision import Int8Linear

WORD = 8  # bytes: of a tensor, what is left over after whole ones is not read


def _largest(part: Tensor) -> Tensor:
    return torch.max(part.view(torch.int32))


def _square(part: Tensor) -> Tensor:
    """Of float32 alone, else as the largest: other bytes taken as floats may be denormal, which some processors are slow with."""
    return torch.dot(part, part) if part.dtype == torch.float32 else _largest(part)


READS: dict[str, Callable[[Tensor], Tensor]] = {
    "largest": _largest,
    "sum": lambda part: part.view(torch.int64).sum(),
    "square": _square,
}


def read_weights(model: Any) -> list[Tensor]:
    """The tensors that one decoded token reads whole, in the order of the layers and each flat, of a LoopLlama without a loop.

    The embedding is among them where it is the head as well: else a token reads one row of it.
    """
    whole = (each for module in (model.model.layers, model.model.norm, model.lm_head) for each in _held(module))
    laid = (tensor if tensor.is_contiguous() else tensor.t() for tensor in whole)  # as they lie in memory: no copy
    flat = [tensor.detach().reshape(-1) for tensor in laid]
    return [each[: each.numel() * each.element_size() // WORD * WORD // each.element_size()] for each in flat]


def _held(module: nn.Module) -> Iterator[Tensor]:
    for each in module.modules():
        yield from each.parameters(recurse=False)
        if isinstance(each, Int8Linear):
            yield from (tensor for tensor in (each.quantised, each.scale, each.bias) if tensor is not None)


def n_bytes(parts: Sequence[Tensor]) -> int:
    """How many bytes one read takes in."""
    return sum(part.numel() * part.element_size() for part in parts)


def reads(parts: Sequence[Tensor], how: str) -> Iterator[None]:
    """One read of all of it each time it is asked, by one of `READS`."""
    read = READS[how]
    while True:
        for part in parts:
            read(part)
        yield
