"""TTT, a model whose memory learns while it reads (Sun et al. 2024, arXiv 2407.04620), as a transformers model.

configuration   `TTTConfig`: the published fields, checked
modeling        `TTTForCausalLM`; who watches (`register_inner_hook`)
layer           the TTT layer: projections, inner learning rate, token scale, the inner loop
inner_step      one mini-batch of inner steps, dual and primal (`inner_model`, `norm_loss`: its gradients; `scan`: all of them)
checkpoint      `load_ttt`: a checkpoint and its tokenizer, by name or folder
chunk           a pass as mini-batches: padding, rows at different places, any length
cache           `TTTCache`: the state; forgetting and steering
observe         what a hook is told
inner_rules     linear attention, DeltaNet, Gated DeltaNet and TTT-Linear as one rule
"""

from .cache import TTTCache
from .checkpoint import LoadedTTT, load_ttt
from .configuration import TTTConfig
from .errors import InnerLossError
from .layer import LayerState
from .modeling import TTTForCausalLM, TTTModel
from .observe import DualMatrix, InnerStep

__all__ = [
    "DualMatrix",
    "InnerLossError",
    "InnerStep",
    "LayerState",
    "LoadedTTT",
    "TTTCache",
    "TTTConfig",
    "TTTForCausalLM",
    "TTTModel",
    "load_ttt",
]
