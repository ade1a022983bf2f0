"""A tiny model as the thing that is measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loopviz.lab import Subject
from loopviz.model import LoopLlamaForCausalLM

from ..engine import tiny

TEXT = "Once upon a time there was a small dog. The dog Lily saw the 3 🐕 dogs, and Lily ran. 从前有一只小狗。" * 2


def subject(seed: int = 0, **loop: Any) -> Subject:
    return Subject(tiny.model(seed, **loop), tiny.tokenizer(), "tiny", "made here")


def exact_subject(seed: int = 0, **loop: Any) -> Subject:
    """The tiny model in float64: what is measured can then be held against another way to compute it to eleven places."""
    found = subject(seed, **loop)
    found.model.double()
    return found


@torch.no_grad()
def exact_loss(model: LoopLlamaForCausalLM, ids: Tensor) -> float:
    """Mean loss of a text `[1, T]` in float64. The loss transformers gives for `labels` is float32 whatever the model is."""
    scores = model(ids, use_cache=False).logits[0, :-1].log_softmax(-1)  # [T - 1, vocab]
    assert scores.dtype == torch.float64
    return -scores.gather(1, ids[0, 1:, None]).mean().item()
