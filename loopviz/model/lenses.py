"""The exit lens: a mid-loop state continued through the real coda."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.masking_utils import create_causal_mask

from .cache import LoopCache

if TYPE_CHECKING:
    from .modeling import LoopLlamaModel


class _CodaView:
    """A finished pass's cache as the coda's attention saw it before it wrote: read only, rows repeated R times."""

    is_compileable = False

    def __init__(self, cache: LoopCache, n_tokens: int, repeats: int) -> None:
        self.cache, self.repeats = cache, repeats
        self.past = cache.get_seq_length() - n_tokens

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.past + query_length, 0

    def update(self, k: Tensor, v: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        layer = self.cache.layers[layer_idx]
        past = (x[:, :, : self.past, 0].repeat(self.repeats, 1, 1, 1) for x in (layer.keys, layer.values))
        return tuple(torch.cat(pair, dim=2) for pair in zip(past, (k, v), strict=True))


def exit_states(
    model: LoopLlamaModel,
    states: Tensor,
    cache: LoopCache | None,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> Tensor:
    """Normed last hidden states `[R, B, T, H]` that the coda makes of states `[R, B, T, H]` of the last block.

    Raises:
        ValueError: the model has no looped block.
    """
    blocks = model.config.loop_blocks()
    if not blocks:
        raise ValueError("loop_layers=None: a plain Llama has no loop to exit from")
    R, B, T, _ = states.shape
    hidden = states.flatten(0, 1)  # [R * B, T, H]
    view = None if cache is None else _CodaView(cache, T, R)
    past = 0 if view is None else view.past
    if position_ids is None:
        position_ids = (torch.arange(T, device=states.device) + past).unsqueeze(0)
    elif position_ids.shape[0] > 1:
        position_ids = position_ids.repeat(R, 1)
    mask = create_causal_mask(
        config=model.config,
        inputs_embeds=hidden,
        attention_mask=None if attention_mask is None else attention_mask.repeat(R, *[1] * (attention_mask.ndim - 1)),
        past_key_values=view,
        position_ids=position_ids,
    )
    embeddings = model.rotary_emb(hidden, position_ids=position_ids)
    for index in range(blocks[-1].b + 1, model.config.num_hidden_layers):
        hidden = model.layers[index](
            hidden,
            attention_mask=mask,
            position_ids=position_ids,
            position_embeddings=embeddings,
            past_key_values=view,
        )
    return model.norm(hidden).unflatten(0, (R, B))
