"""What a loop starts from: the state that enters it, zeros, or noise that follows from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from .block import LoopBlock

CHUNK = 64  # places whose noise is drawn at once
CUT = 3.0  # standard deviations, as Huginn and its relatives cut their normal


def start_state(block: LoopBlock, entry: Tensor, places: Tensor | None, training: bool) -> Tensor:
    """s_0 of a block, `[B, T, H]`.

    Args:
        block: says what it is.
        entry: e, the state that enters, `[B, T, H]`.
        places: `[B or 1, T]` int64, each token's place among the real tokens of its row; a random start goes by it.
        training: draw noise anew (torch's generator), so that nothing is learned from the places.
    """
    if block.init == "entry":
        return entry
    if block.init == "zeros" or block.init_std == 0:
        return torch.zeros_like(entry)
    if training:
        noise = nn.init.trunc_normal_(torch.empty_like(entry, dtype=torch.float32), 0.0, 1.0, -CUT, CUT)
        return (noise * block.init_std).to(entry.dtype)
    assert places is not None
    places = places.clamp(min=0)  # padding's is below 0, and nothing reads it
    first, last = int(places.min()) // CHUNK, int(places.max()) // CHUNK
    table = torch.cat([_noise(block.init_seed, block.index, i, entry.shape[-1]) for i in range(first, last + 1)])
    noise = table.to(entry.device)[places - first * CHUNK]
    return (noise * block.init_std).to(entry.dtype).expand_as(entry)


@lru_cache(maxsize=64)
def _noise(seed: int, block: int, chunk: int, width: int) -> Tensor:
    """`[CHUNK, width]`: a standard normal cut at `CUT`. By chunks: a longer text must not change what an earlier token got."""
    drawn = torch.Generator().manual_seed(((seed * 1_000_003 + block) * 1_000_003 + chunk) % 2**63)
    with torch.inference_mode(False):
        return nn.init.trunc_normal_(torch.empty(CHUNK, width), 0.0, 1.0, -CUT, CUT, generator=drawn)


def token_places(
    blocks: Sequence[LoopBlock], attention_mask: Tensor | None, position_ids: Tensor, n_tokens: int
) -> Tensor | None:
    """Each new token's place among the real tokens of its row, `[B or 1, T]`; below 0 for padding before them.

    Args:
        blocks: of the pass; where none of them starts at random nobody asks, and it is None.
        attention_mask: `[B, past + T]`; anything else says nothing of padding.
        position_ids: `[B or 1, T]`, which count where there is no such mask.
        n_tokens: T.
    """
    if all(block.init != "random" for block in blocks):
        return None
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        return position_ids
    return attention_mask.long().cumsum(-1)[:, -n_tokens:] - 1
