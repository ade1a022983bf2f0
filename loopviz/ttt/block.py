"""One block of a TTT model: convolution, TTT layer, SwiGLU, each added to what comes in."""

from __future__ import annotations

from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralMLP

from .chunk import Chunk
from .configuration import TTTConfig
from .conv import PreConv
from .layer import Inner, LayerState, Tables, TTTLayer


class TTTBlock(GradientCheckpointingLayer):
    """x += conv(norm x), if there is one; x += TTT(norm x); x += SwiGLU(norm x).

    Args:
        config: of the model.
    """

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        if config.pre_conv:
            self.conv = PreConv(config)
        self.seq_norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.seq_modeling_block = TTTLayer(config)
        self.ffn_norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MistralMLP(config)  # Llama's, without the field for biases
        self.pre_conv = config.pre_conv

    def forward(
        self,
        x: Tensor,
        chunk: Chunk,
        given: Tables,
        state: LayerState | None,
        keep: bool,
        watched: bool,
        lr_scale: Tensor | None,
    ) -> tuple[Tensor, LayerState | None, Inner | None]:
        """As `TTTLayer.forward`, `[B, P, C]`."""
        last = None
        if self.pre_conv:
            before = None if state is None else state.convs["pre_conv"]
            out, last = self.conv(x, before, chunk.counts)
            x = x + out
        normed = self.seq_norm(x)
        out, after, inner = self.seq_modeling_block(
            normed, chunk, given, state, keep=keep, watched=watched, lr_scale=lr_scale
        )
        if after is not None and last is not None:
            after.convs["pre_conv"] = last.detach()
        x = x + out
        return x + self.mlp(self.ffn_norm(x)), after, inner
