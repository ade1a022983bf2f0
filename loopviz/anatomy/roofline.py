"""Why decoding is bound by reading weights: this machine's two limits, and where a token stands under them.

A token of a decode reads every weight once (a looped layer's once a step), and multiplies each by one number; a prompt's pass
multiplies it by one number a token. The machine moves so many bytes and does so many operations a second: whichever takes
longer is the limit (Williams, Waterman, Patterson 2009, "Roofline").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from . import families
from .llama import head_width

READ = 2**28  # bytes that are read to measure the bandwidth: more than any cache of a processor here
WIDTH = 1024  # numbers of a row of them
SQUARE = 1024  # side of the matrices that are multiplied to measure operations
GPU_READ, GPU_SQUARE = 2**30, 8192  # on a GPU, so much more that telling it what to do takes no share of the time
TRIES = 5  # the quickest counts: other work only ever makes a machine look slower


@dataclass(frozen=True)
class Machine:
    """What a machine can do at most, as measured.

    Attributes:
        bytes_per_second: read from memory.
        flops_per_second: of a product of large matrices.
    """

    bytes_per_second: float
    flops_per_second: float

    @property
    def balance(self) -> float:
        """Operations for each byte at which both limits take as long: work with less is bound by memory."""
        return self.flops_per_second / self.bytes_per_second


@cache
def measure(kind: str = "cpu", dtype: torch.dtype = torch.float32) -> Machine:
    """This machine, by reading many bytes and multiplying two matrices with torch, with the threads it has; a second or less.

    Args:
        kind: of device, as torch calls it.
        dtype: of the numbers.
    """
    device, (read, side) = torch.device(kind), sizes(kind)
    rows = torch.ones(read // dtype.itemsize, dtype=dtype, device=device).view(-1, WIDTH)
    vector = torch.ones(WIDTH, dtype=dtype, device=device)
    square = torch.ones(side, side, dtype=dtype, device=device)
    return Machine(
        bytes_per_second=read / _quickest(lambda: rows @ vector, device),  # reads each byte once, as a decode does
        flops_per_second=2 * side**3 / _quickest(lambda: square @ square, device),
    )


def sizes(kind: str) -> tuple[int, int]:
    """With what a kind of device is measured: bytes that are read, and the side of the matrices that are multiplied."""
    return (GPU_READ, GPU_SQUARE) if kind == "cuda" else (READ, SQUARE)


def measuring_bytes(kind: str, itemsize: int) -> int:
    """Bytes held while it is measured."""
    read, side = sizes(kind)
    return read + 3 * itemsize * side**2


def _quickest(work: Callable[[], Any], device: torch.device) -> float:
    found = []
    for _ in range(TRIES):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found)


@dataclass(frozen=True)
class Pass:
    """What one pass costs.

    Attributes:
        bytes: read: weights, and the keys and values of the tokens before.
        flops: operations of its products of matrices.
    """

    bytes: float
    flops: float

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes

    def seconds(self, machine: Machine) -> float:
        """What it takes at least."""
        return max(self.bytes / machine.bytes_per_second, self.flops / machine.flops_per_second)

    def bound(self, machine: Machine) -> str:
        """`memory` or `arithmetic`: which of the two limits it meets."""
        return "memory" if self.intensity < machine.balance else "arithmetic"


def pass_of(
    config: Any,
    itemsize: int,
    *,
    tokens: int,
    past: int,
    layer_runs: float,
    key_runs: float | None = None,
    kv_itemsize: float | None = None,
) -> Pass:
    """A pass of a Llama: a prompt's (`tokens` many) or a decode's (1).

    Args:
        config: sizes with transformers' names.
        itemsize: bytes of a weight and of a cached number.
        tokens: read by the pass.
        past: tokens before, whose keys and values are read.
        layer_runs: runs of a layer: L, and more where layers loop. Each reads its weights anew, for they do not fit into a
            processor's cache.
        key_runs: the same, each as often as it reads slots of keys and values: V times where a step reads all V; None: one each.
        kv_itemsize: bytes of a cached number, where that is another than of a weight.
    """
    layers, hidden = int(config.num_hidden_layers), int(config.hidden_size)
    embedding = int(config.vocab_size) * hidden
    outside = embedding if getattr(config, "tie_word_embeddings", False) else 2 * embedding
    layer = (families.parameters(config) - outside - hidden) / layers  # numbers of one layer
    key_runs = layer_runs if key_runs is None else key_runs
    cached = 2 * families.key_value_heads(config) * head_width(config)  # of one token and layer
    read = layer_runs * layer + embedding  # all of the head, and of the embeddings a row
    keys = key_runs * cached * (past + tokens)
    pairs = tokens * past + tokens * (tokens + 1) / 2
    attention = 2 * pairs * int(config.num_attention_heads) * head_width(config)
    products = layer_runs * tokens * layer + key_runs * attention
    number = itemsize if kv_itemsize is None else kv_itemsize
    return Pass(bytes=itemsize * read + number * keys, flops=2 * (products + embedding))


def passes(config: Any, itemsize: int, layer_runs: int, context: int) -> Mapping[str, Pass]:
    """A prompt of `context` tokens, and a token after it."""
    return {
        "prefill": pass_of(config, itemsize, tokens=context, past=0, layer_runs=layer_runs),
        "decode": pass_of(config, itemsize, tokens=1, past=context, layer_runs=layer_runs),
    }
