"""Causal convolution, one filter a channel, that goes on where an earlier pass ended, for any number of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from .configuration import TTTConfig


def causal_conv(config: TTTConfig) -> nn.Conv1d:
    """The weights of such a convolution; `convolve` is how they are used."""
    width = config.hidden_size
    return nn.Conv1d(width, width, config.conv_kernel, groups=width, bias=True)


def convolve(conv: nn.Conv1d, x: Tensor, last: Tensor | None, counts: list[int]) -> tuple[Tensor, Tensor]:
    """The convolution over a pass and the tokens before it.

    Args:
        x: `[B, P, C]`, each row's tokens at the left.
        last: each row's last inputs before this pass, `[B, C, kernel]`, newest at the right; `None` at the beginning.
        counts: tokens of each row.

    Returns:
        The output `[B, P, C]`, and the last inputs after this pass.
    """
    kernel = conv.kernel_size[0]
    x = x.transpose(1, 2)
    seen = F.pad(x, (kernel, 0)) if last is None else torch.cat((last.to(x.dtype), x), dim=-1)  # [B, C, kernel + P]
    out = F.conv1d(seen[..., 1:], conv.weight, conv.bias, groups=conv.groups)
    if min(counts) == x.shape[-1]:
        after = seen[..., -kernel:]
    else:
        ends = torch.tensor(counts, device=x.device)[:, None] + torch.arange(kernel, device=x.device)
        after = seen.gather(2, ends[:, None].expand(-1, seen.shape[1], -1))
    return out.transpose(1, 2), after.clone()  # a view would keep the whole pass


class PreConv(nn.Module):
    """What a block of the Mamba backbone begins with: conv(RMSNorm x), to be added to x.

    Args:
        config: of the model.
    """

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.conv = causal_conv(config)

    def forward(self, x: Tensor, last: Tensor | None, counts: list[int]) -> tuple[Tensor, Tensor]:
        """As `convolve`, `[B, P, C] -> [B, P, C]`."""
        return convolve(self.conv, self.norm(x), last, counts)
