"""The TTT layer's own pieces: rotary positions as published, learned in its own forms."""

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from loopviz.ttt.layer import rotate, tables

from .tiny import build, close


def test_pairs_are_turned_as_by_permute_rotate_half_and_undo_permute():
    """The published way: even and odd places apart, Llama's rotate-half, and back."""
    config = build(hidden_size=32, rope_theta=500.0).config
    D, slots = config.head_dim, torch.arange(9)[None] % 4
    torch.manual_seed(0)
    x = torch.randn(2, 2, 9, D)
    freqs = slots[..., None] * config.rope_theta ** -(torch.arange(0, D, 2) / D)
    angles = torch.cat((freqs, freqs), dim=-1)
    permuted = x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
    turned, _ = apply_rotary_pos_emb(permuted, permuted, angles.cos(), angles.sin())
    expected = turned.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
    close(rotate(x, tables(config, slots, torch.float32).rotation), expected, 1e-6)


def test_the_learning_rate_lies_between_zero_and_its_base(no_gradients):
    model = build(ttt_base_lr=0.1)
    x = 30 * torch.randn(2, 5, 12)
    rate = model.model.ttt_layers[0].learning_rate(x)
    assert rate.shape == (2, 2, 5)
    assert 0 <= float(rate.min()) < float(rate.max()) <= 0.1 / 6 + 1e-8
