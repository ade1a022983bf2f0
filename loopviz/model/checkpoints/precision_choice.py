"""Which precision a model is loaded in, where it is not said in so many words: measured on this machine, in well under a second.

What decides is a processor's own: float16 is the quickest on one, bfloat16 on the next, and on an older one neither gains. So one
matrix as wide as the model's is read with a token and with a few, in every format, and the times are kept in LoopViz's cache by
processor, threads, shape and version of torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from loopviz.checks import check_one_of
from loopviz.machine import PRECISIONS
from loopviz.model.configuration import LoopLlamaConfig
from loopviz.model.precision import Int8Linear
from loopviz.model.weight_layout import lay

from .errors import Note
from .kept_measurement import kept

HALVES = ("float16", "bfloat16")
FORMATS = ("float32", *HALVES, "int8")
NUMBERS = 8_000_000  # of the matrix that is read: more than caches of a processor keep of a model
ROWS = 16  # tokens of the wider pass
TRIES = 5  # the quickest counts: other work only ever makes a machine look slower
PROMPT, NEW = 48, 64  # tokens read and written of the run that a format is chosen for
READ_ALONG = 8.0  # tokens a second, about six words: as quick as one reads along, so what is as quick stays exact
ENOUGH = 1000 / READ_ALONG  # ms a token
SMALL = 50_000_000  # weights read for a token: they keep up wherever one takes no more than 2.5 ns, 1.6 GB of float32 a second
FILE = "precision.json"
COLUMNS = "float32 by columns"

Times = Mapping[str, tuple[float, float]]  # by format: ns a weight with one token, and with one of ROWS


@dataclass(frozen=True)
class Choice:
    """What a model is loaded in.

    Attributes:
        dtype: for `load_checkpoint`.
        notes: why, where it was not said in so many words.
    """

    dtype: torch.dtype
    notes: tuple[Note, ...] = ()


def choose(config: LoopLlamaConfig, precision: str) -> Choice:
    """The dtype that a precision means for a model, on the CPU of this machine.

    Args:
        config: of the model, its loop as it will run.
        precision: `exact`, `half` (the quicker of float16 and bfloat16), `int8`, or `auto`: exact where a model reads no more than
            `SMALL` weights for a token (nothing is measured then) or a token is expected within `ENOUGH` ms, else half where that
            is, else the quickest.

    Raises:
        FieldError: another precision.
    """
    check_one_of("precision", precision, PRECISIONS)
    if surely_exact(config, precision):
        return Choice(torch.float32)
    if precision == "int8":
        return Choice(torch.int8)
    times = times_of(config)
    return _half(times) if precision == "half" else _auto(config, times)


def surely_exact(config: LoopLlamaConfig, precision: str) -> bool:
    """Whether a precision is float32 of a model wherever it is loaded: nothing needs to be measured."""
    return precision == "exact" or (precision == "auto" and weights_read(config) <= SMALL)


def _half(times: Times) -> Choice:
    """The quicker half, or float32 where there is none here."""
    found = sorted((each for each in HALVES if each in times), key=lambda each: _of_a_run(times, each))
    if not found:
        text = "neither float16 nor bfloat16 is computed on this machine, so it is held in float32"
        return Choice(torch.float32, (Note("precision_no_half", text),))
    first, values = found[0], {f"{each}_ns": round(times[each][0], 4) for each in found}
    said = ", ".join(
        f"{each} {times[each][0]:.3f} ns a weight and token, {times[each][1]:.3f} in a prompt" for each in found
    )
    text = f"its weights are held in {first}, the quicker half on this machine ({said})"
    return Choice(getattr(torch, first), (Note("precision_half", text, {"dtype": first, **values}),))


def _of_a_run(times: Times, name: str) -> float:
    one, many = times[name]
    return NEW * one + PROMPT * many


def _auto(config: LoopLlamaConfig, times: Times) -> Choice:
    """Exact where it is quick enough, else the mildest that is, else the quickest."""
    expected = {name: token_ms(config, times, name) for name in times}
    half = _half(times)
    mildest = ["float32", str(half.dtype).removeprefix("torch."), *(["int8"] if "int8" in times else [])]
    quick = [name for name in mildest if expected[name] <= ENOUGH]
    chosen = quick[0] if quick else min(mildest, key=lambda name: expected[name])
    exact = expected["float32"]
    values = {"dtype": chosen, "exact_ms": round(exact, 2), "chosen_ms": round(expected[chosen], 2), "enough": ENOUGH}
    if chosen == "float32":
        text = f"it is held in float32: a token is expected to take {exact:.3g} ms on this machine, and "
        enough = Note("precision_auto_exact", f"{text}up to {ENOUGH:.3g} ms stay exact", values)
        none = Note("precision_auto_none", f"{text}no other format is quicker", values)
        return Choice(torch.float32, (enough if quick else none,))
    text = (
        f"it is held in {chosen}: a token is expected to take {exact:.3g} ms in float32 and {expected[chosen]:.3g} in {chosen} on this "
        f"machine, and up to {ENOUGH:.3g} stay exact"
    )
    return Choice(getattr(torch, chosen), (Note("precision_auto", text, values),))


def weights_read(config: LoopLlamaConfig) -> int:
    """Weights that a token reads, in the layers as often as they run, every loop at its most, and in the head."""
    H = config.hidden_size
    heads = config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    layer = 2 * H * heads + 3 * H * config.intermediate_size
    runs = config.num_hidden_layers + sum((each.max_steps - 1) * len(each.layers) for each in config.loop_blocks())
    return int(layer * runs + H * config.vocab_size)


def token_ms(config: LoopLlamaConfig, times: Times, name: str) -> float:
    """Milliseconds that a token's weights take to read in a format, every loop at its most; attention and all else left out."""
    return weights_read(config) * times[name][0] / 1e6


# -- measured, once ------------------------------------------------------------------------------------------------------------------


def times_of(config: LoopLlamaConfig) -> Times:
    """How long each format takes for matrices of a model's width: as kept in the cache, else measured and kept.

    Returns:
        By format, those that are not computed here left out; float32 always is.
    """
    return kept(FILE, f"{config.hidden_size}, float32 as it lies best", lambda: measured(config.hidden_size), _times)


def _times(value: Any) -> Times | None:
    """What a cache holds as times, if it is that."""
    if not isinstance(value, dict) or "float32" not in value or not set(value) <= set(FORMATS):
        return None
    for pair in value.values():
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(each) is float and each > 0 for each in pair):
            return None
    return {name: (one, many) for name, (one, many) in value.items()}


@torch.inference_mode()
def measured(width: int, numbers: int = NUMBERS) -> Times:
    """Time a matrix of `width` columns in each format.

    Args:
        numbers: of the matrix, about.
    """
    plain = nn.Linear(width, max(1, numbers // width), bias=False, device="meta").to_empty(device="cpu")
    plain.weight.fill_(0.01)  # zeros of a fresh page would be read from one place
    kinds: dict[str, tuple[nn.Module, torch.dtype]] = {
        "float32": (plain, torch.float32),
        COLUMNS: (_by_columns(plain), torch.float32),
        **{name: (_cast(plain, getattr(torch, name)), getattr(torch, name)) for name in HALVES},
        "int8": (Int8Linear(plain), torch.float32),
    }
    found = {name: [float("inf")] * 2 for name in kinds}
    for _ in range(TRIES):  # in turn, so that what else the machine does is shared
        for name, (module, dtype) in list(kinds.items()):
            try:
                for place, rows in enumerate((1, ROWS)):
                    found[name][place] = min(
                        found[name][place], _seconds(module, torch.ones(rows, width, dtype=dtype)) / rows
                    )
            except (RuntimeError, AttributeError):  # this processor, or this build of torch, does not compute it
                if name == "float32":
                    raise
                del kinds[name], found[name]
    by_columns = found.pop(COLUMNS)  # how a model in float32 lies where that is quicker (`layout_choice`)
    found["float32"][0] = min(found["float32"][0], by_columns[0])
    each = plain.weight.numel()
    return {name: (max(one, 1e-12) / each * 1e9, max(many, 1e-12) / each * 1e9) for name, (one, many) in found.items()}


def _by_columns(plain: nn.Linear) -> nn.Linear:
    made = nn.Linear(1, 1, bias=False, device="meta")
    made.weight = nn.Parameter(plain.weight.detach().clone(), requires_grad=False)
    lay([made.weight], "columns")
    return made


def _cast(plain: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    made = nn.Linear(1, 1, bias=False, device="meta")
    made.weight = nn.Parameter(plain.weight.to(dtype), requires_grad=False)
    return made


def _seconds(module: nn.Module, rows: torch.Tensor) -> float:
    started = time.perf_counter()
    module(rows)
    return time.perf_counter() - started
