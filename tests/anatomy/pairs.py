"""Two Llamas on the same random weights: transformers' and the one from scratch."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import LlamaConfig
from transformers import LlamaForCausalLM as TheirLlama

from loopviz.anatomy.llama import LlamaForCausalLM

LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,  # slow, middle and quick pairs in a head as small as these
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
ROPES = (
    {"rope_type": "default", "rope_theta": 10000.0},
    {"rope_type": "linear", "rope_theta": 500000.0, "factor": 4.0},
    LLAMA_3,
)


def configuration(**fields: Any) -> LlamaConfig:
    values: dict[str, Any] = {
        "vocab_size": 67,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": None,
        "tie_word_embeddings": False,
    }
    return LlamaConfig(**{**values, **fields})


def random_configuration(seed: int) -> LlamaConfig:
    """Tied or not, one to all K/V heads, a head as wide as one likes, biases, all three rules of positions."""
    draw = random.Random(seed)
    heads = draw.choice((1, 2, 3, 4, 6))
    return configuration(
        hidden_size=heads * draw.choice((6, 8, 10)),
        intermediate_size=draw.randint(1, 50),
        num_hidden_layers=draw.randint(1, 3),
        num_attention_heads=heads,
        num_key_value_heads=draw.choice([k for k in range(1, heads + 1) if heads % k == 0]),
        head_dim=draw.choice((None, 2, 6, 12)) or 8,
        rms_norm_eps=draw.choice((1e-5, 1e-2)),
        tie_word_embeddings=draw.random() < 0.5,
        attention_bias=draw.random() < 0.3,
        mlp_bias=draw.random() < 0.3,
        rope_parameters=dict(draw.choice(ROPES)),
    )


def pair(
    config: LlamaConfig, dtype: torch.dtype = torch.float64, attention: str = "sdpa"
) -> tuple[TheirLlama, LlamaForCausalLM]:
    """Both, with weights, gains and biases far from what they start as."""
    torch.manual_seed(1)
    theirs = TheirLlama._from_config(config, attn_implementation=attention, dtype=dtype).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape) + (weight.dim() == 1))
    ours = LlamaForCausalLM(config).to(dtype).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 67, (rows, length), generator=torch.Generator().manual_seed(seed))
