"""A tiny TTT model with the byte-level tokenizer of `tiny.py`; every parameter is drawn wide, so that the inner loop matters."""

from __future__ import annotations

from typing import Any

import torch

from loopviz.engine.ttt_local import LocalTTT
from loopviz.ttt import TTTConfig, TTTForCausalLM
from tests.engine import tiny


def model(seed: int = 0, **fields: Any) -> TTTForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = TTTConfig(
            **{
                "vocab_size": len(tiny.tokenizer()),
                "hidden_size": 24,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "mini_batch_size": 4,
                "bos_token_id": None,
                "eos_token_id": None,
                **fields,
            }
        )
        made = TTTForCausalLM(config)
        with torch.no_grad():
            for name, value in made.named_parameters():
                wide = 0.1 if name.endswith("learnable_token_idx") else 0.3
                value.copy_(wide * torch.randn_like(value) + ("norm" in name and name.endswith("weight")))
        return made.eval().requires_grad_(False)


def engine(seed: int = 0, **fields: Any) -> LocalTTT:
    return LocalTTT("tiny-ttt", model(seed, **fields), tiny.tokenizer())
