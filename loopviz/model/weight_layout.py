"""How the matrices of a model lie in memory: by rows, as torch makes them, or by columns where that is read quicker.

A token's product with W `[out, in]` takes as long as W is read, and a processor's float32 product of one row of activations reads
a W that lies by columns up to twice as fast (its sums run over `out` at once, and not within a row). The numbers are the same, and
so is everything that is computed of them but for the order of the sums: results differ in their last bits, as between processors.
`weight` stays `[out, in]` and the same Parameter: embedding and head that share it go on sharing it, readers of weights see nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

Shape = tuple[int, int]  # (out, in)
Seconds = Mapping[str, tuple[float, float]]  # by layout: for products with one row, and with ROWS

LAYOUTS = ("rows", "columns")
LEAST = 2**14  # numbers of a matrix that is worth a look
SAMPLE = 8_000_000  # numbers of a shape that are read: more than the caches of a processor keep of a large model
ROWS = 8  # of a pass that several runs share, or of a short prompt
TRIES = 5  # the quickest counts: other work only ever makes a machine look slower
GAIN = 1.1  # times as quick for one row: less is within what measurements differ by


def matrices(model: nn.Module) -> dict[Shape, list[nn.Parameter]]:
    """The matrices that tokens are multiplied with and that may lie either way, by shape: float32, on the CPU, not too small."""
    found: dict[Shape, list[nn.Parameter]] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None) if isinstance(module, nn.Linear) else None
        if not isinstance(weight, nn.Parameter) or weight.dtype != torch.float32 or weight.device.type != "cpu":
            continue
        if weight.numel() < LEAST:
            continue
        out, into = weight.shape
        of_shape = found.setdefault((out, into), [])
        if all(weight is not other for other in of_shape):
            of_shape.append(weight)
    return found


@torch.no_grad()
def lay(weights: list[nn.Parameter], layout: str) -> None:
    """Let matrices lie by "rows" or by "columns", in place, one after the other: at most one is held twice."""
    for weight in weights:
        weight.data = weight.data.contiguous() if layout == "rows" else weight.data.t().contiguous().t()


def lay_by_rows(model: nn.Module) -> None:
    """Undo :func:`lay` for all of a model: what files are written from."""
    for weights in matrices(model).values():
        lay([weight for weight in weights if not weight.is_contiguous()], "rows")


def better(seconds: Seconds) -> str:
    """The layout for a shape: columns where one row is clearly quicker so, and passes of several do not lose more than that is worth."""
    (one, several), (one_columns, several_columns) = (seconds[layout] for layout in LAYOUTS)
    gains = one >= GAIN * one_columns
    return "columns" if gains and 2 * one_columns + several_columns <= 2 * one + several else "rows"


@torch.inference_mode()
def timed(weights: list[nn.Parameter]) -> dict[str, tuple[float, float]]:
    """How long products with some matrices of one shape take in either layout; the matrices stay as they are."""
    sample, numbers = [], 0
    for weight in weights:
        sample.append(weight.detach())
        numbers += weight.numel()
        if numbers >= SAMPLE:
            break
    laid = {
        "rows": [weight.contiguous() for weight in sample],
        "columns": [weight.t().contiguous().t() for weight in sample],
    }
    found = {layout: [float("inf")] * 2 for layout in LAYOUTS}
    for _ in range(TRIES):  # in turn, so that what else the machine does is shared
        for layout, held in laid.items():
            for place, rows in enumerate(_inputs(sample[0].shape[1])):
                found[layout][place] = min(found[layout][place], _seconds(held, rows))
    return {layout: (one, several) for layout, (one, several) in found.items()}


def _inputs(width: int) -> Iterator[Tensor]:
    yield torch.ones(1, 1, width)  # [B, T, in]
    yield torch.ones(ROWS, 1, width)


def _seconds(weights: list[Tensor], rows: Tensor) -> float:
    started = time.perf_counter()
    for weight in weights:
        nn.functional.linear(rows, weight)
    return time.perf_counter() - started
