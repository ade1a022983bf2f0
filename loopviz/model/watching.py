"""What the attention inside a block reads, for those who ask: nothing is copied, nothing computed twice.

While a model object is watched, the layers of its blocks are replaced by twins over the same weights whose attention
notes its query, keys and mask before it goes on exactly as it would have. Other model objects on the same weights
(`with_loop()`) keep their plain layers, in other threads too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers import LlamaModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, eager_attention_forward

from .block import LoopBlock
from .cache import LoopCache
from .events import AttentionRead

M = TypeVar("M", bound=nn.Module)
_NAME = "loopviz_watched"


class AttentionWatch:
    """The handle of a watched model: `remove()` gives it its plain layers back.

    Args:
        model: a `LoopLlamaModel`.
        blocks: its looped blocks.
    """

    def __init__(self, model: LlamaModel, blocks: Iterable[LoopBlock]) -> None:
        self._model: LlamaModel | None = model
        self._plain = model.layers
        self._noted: dict[int, tuple[Tensor, Tensor, Tensor | None, float]] = {}
        looped = {index for block in blocks for index in block.layers}
        model.layers = nn.ModuleList(
            _watched_twin(layer, self._noted) if index in looped else layer for index, layer in enumerate(self._plain)
        )

    @property
    def plain_layers(self) -> nn.ModuleList:
        """The layers as they are when nobody watches."""
        return self._plain

    def remove(self) -> None:
        """End it; once is enough."""
        if self._model is not None:
            self._model.layers = self._plain
            self._model._attention_watch = None
            self._model = None
            self._noted.clear()

    def reads(self, block: LoopBlock, step: int, cache: LoopCache | None) -> dict[int, AttentionRead]:
        """What each layer of `block` that ran read in the step that has just run; forgets it."""
        found = {}
        for index in block.layers:
            if index not in self._noted:  # every row left it out
                continue
            query, keys, mask, scaling = self._noted.pop(index)
            layer = None if cache is None else cache.layers[index]
            past = 0 if layer is None else layer.length
            held = layer.slots if layer is not None and block.parallel else 1
            own = (keys.shape[2] - past * held) // query.shape[2]
            slot = None if block.parallel else (step - 1) % block.slots
            found[index] = AttentionRead(query, keys, mask, scaling, past, held, own, slot)
        return found


def _watched_twin(layer: LlamaDecoderLayer, noted: dict[int, Any]) -> LlamaDecoderLayer:
    """A decoder layer over the same parameters whose attention notes in `noted` what it reads."""
    twin, attention = shallow(layer), shallow(layer.self_attn)
    twin._modules["self_attn"] = attention
    attention.config = copy.copy(attention.config)
    attention.config._attn_implementation = _NAME
    attention.loop_noted, attention.loop_plain_config = noted, layer.self_attn.config
    for module in (twin, attention):
        module._compiled_call_impl = None  # a compiled call would still run the plain layer
    return twin


def _watched_attention(
    module: LlamaAttention, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """An attention function of transformers' that notes what it is given and calls the one it stands for."""
    module.loop_noted[module.layer_idx] = (query, key, attention_mask, kwargs["scaling"])
    plain = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.loop_plain_config._attn_implementation, eager_attention_forward
    )
    return plain(module, query, key, value, attention_mask, **kwargs)


def shallow(module: M) -> M:
    """A new module object over the same parameters, buffers and children."""
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__.update(module.__dict__)
    twin._modules = dict(module._modules)
    return twin


ALL_ATTENTION_FUNCTIONS.register(_NAME, _watched_attention)
