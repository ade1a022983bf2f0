"""How fast a model is on this machine: measured once, as it arrives, on a few of its own layers."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING

import torch
from torch import nn

from loopviz.engine.work import Rate
from loopviz.model.precision import weight_count
from loopviz.ttt import TTTForCausalLM

if TYPE_CHECKING:
    from loopviz.model import LoopLlamaForCausalLM

PROBED = 32  # tokens of the wider pass
PARAMETERS = 20_000_000  # of the layers that are tried out, or one layer
NOISE = 4  # on a busy machine the narrow pass may seem as slow as the wide one; no token costs this much less than its share
TRIES = 2  # the quicker counts: the first may read the weights from the disk

AGAIN = 10.0  # seconds until a rate that is doubted is measured once more

_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[Rate, float]] = weakref.WeakKeyDictionary()


def rate_of(model: LoopLlamaForCausalLM | TTTForCausalLM, *, doubted: bool = False) -> Rate:
    """The model's rate, measured the first time it is asked for (a tenth of a second or two); views share the weights.

    Args:
        doubted: measure again: other work only ever makes a machine look slower, so the quickest seen counts.
    """
    key = model.lm_head  # the same object in every view of a model
    known, at = _KNOWN.get(key, (None, 0.0))
    if known is None or (doubted and time.monotonic() - at > AGAIN):
        found = measured(model)
        known = found if known is None else Rate(*map(min, astuple(known), astuple(found)))
        _KNOWN[key] = known, time.monotonic()
    return known


def measured(model: LoopLlamaForCausalLM | TTTForCausalLM) -> Rate:
    """What a layer and the head cost for one token and for a few: a straight line through both.

    A TTT layer attends to nothing: there a query and a key cost nothing.
    """
    learns = isinstance(model, TTTForCausalLM)
    view = model.view() if isinstance(model, TTTForCausalLM) else model.with_loop(loop_layers=None)
    config, layers = view.config, list(view.model.layers)
    each = max(1, weight_count(layers[0]))
    tried = max(1, min(len(layers), PARAMETERS // each))
    view.model.layers = nn.ModuleList(layers[:tried])
    if not learns:  # a view of its own, its configuration too
        view.config.num_hidden_layers = tried
    with torch.inference_mode():
        layer_pass, layer_token = _line(lambda tokens: lambda: view.model(tokens, use_cache=False), view.device)
        head_pass, head_token = _line(lambda tokens: _head(view, tokens), view.device)
    width = config.num_attention_heads * config.head_dim
    per_token = layer_token / tried
    pair = 0.0 if learns else per_token * 2 * width / each
    return Rate(layer_pass / tried, per_token, pair, head_pass, head_token)


def _head(view: LoopLlamaForCausalLM | TTTForCausalLM, tokens: torch.Tensor) -> Callable[[], object]:
    states = view.model.embed_tokens(tokens)
    return lambda: view.lm_head(states)


def _line(work: Callable[[torch.Tensor], Callable[[], object]], device: torch.device) -> tuple[float, float]:
    """Seconds for however few tokens, and for each."""
    one, many = (_quickest(work(torch.zeros(1, n, dtype=torch.long, device=device)), device) for n in (1, PROBED))
    each = max((many - one) / (PROBED - 1), many / PROBED / NOISE)
    return max(0.0, one - each), each


def _quickest(work: Callable[[], object], device: torch.device) -> float:
    found = []
    for _ in range(TRIES):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found)
