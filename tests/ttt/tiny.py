"""Tiny TTT models for tests, and the folders with the official code's numbers."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from loopviz.ttt import InnerStep, TTTConfig, TTTForCausalLM

DATA = Path(__file__).parent / "data"
ORACLES = ["linear", "mlp", "linear_shareqk", "linear_preconv", "linear_gate", "linear_all", "mlp_all"]
ALL_ON = {"share_qk": True, "pre_conv": True, "use_gate": True}
SHAPE: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mini_batch_size": 4,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
NEAR = 2e-5  # float32, of logits around 10


@functools.cache
def oracle(name: str) -> tuple[TTTForCausalLM, dict[str, Tensor]]:
    """A folder's model, loaded once (do not change it), and what the official code computes from it."""
    return TTTForCausalLM.from_pretrained(DATA / name).eval(), load_file(DATA / name / "expected.safetensors")


def build(seed: int = 0, dtype: torch.dtype = torch.float32, **fields: Any) -> TTTForCausalLM:
    """A random model in which the inner loop matters: every parameter is drawn wide, no bias or scale is left at its first value."""
    torch.manual_seed(seed)
    model = TTTForCausalLM(TTTConfig(**{**SHAPE, **fields}))
    with torch.no_grad():
        for name, value in model.named_parameters():
            wide = 0.1 if name.endswith("learnable_token_idx") else 0.5
            value.copy_(wide * torch.randn_like(value) + ("norm" in name and name.endswith("weight")))
    return model.eval().to(dtype)


def ids(n: int, rows: int = 1, seed: int = 7) -> Tensor:
    """Random tokens `[rows, n]`."""
    return torch.randint(2, 31, (rows, n), generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, theirs: Tensor, atol: float = NEAR) -> None:
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=0, atol=atol)


def record(model: TTTForCausalLM) -> list[InnerStep]:
    """The list to which every pass adds what its layers' inner loops did."""
    steps: list[InnerStep] = []
    model.register_inner_hook(steps.append)
    return steps
