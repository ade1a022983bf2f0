"""Configuration of a TTT model: the published fields, checked."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from loopviz.checks import FieldError, check_finite, check_flag, check_one_of, check_whole
from loopviz.model.checkpoints.errors import CheckpointError

LAYER_TYPES = ("linear", "mlp")
_COUNTS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_MORE_COUNTS = ("max_position_embeddings", "mini_batch_size", "conv_kernel")
_FLAGS = ("use_cache", "tie_word_embeddings", "use_gate", "share_qk", "pre_conv")


@strict
class TTTConfig(PreTrainedConfig):
    """Configuration of a `TTTForCausalLM` (Sun et al. 2024, arXiv 2407.04620), by the names of the published code.

    The paper's Transformer backbone has `share_qk`, `pre_conv` and `use_gate` off, its Mamba backbone has all three on.

    Args:
        vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: as a Llama's. There are no
            heads of keys apart: all heads are whole. The width of a head, `hidden_size / num_attention_heads`, is even.
        hidden_act: of the SwiGLU.
        max_position_embeddings: what it was trained at. No limit: rotary positions begin anew with every mini-batch.
        initializer_range, rms_norm_eps, use_cache, pretraining_tp, rope_theta: as a Llama's.
        use_gate: the TTT layer's output is multiplied by gelu(g_proj x).
        share_qk: queries and keys are one projection, told apart by two convolutions.
        ttt_layer_type: the inner model: `"linear"` z W1 + b1, or `"mlp"` gelu(z W1 + b1) W2 + b2.
        ttt_base_lr: factor of the inner learning rate.
        mini_batch_size: tokens whose inner gradients are taken at the same weights.
        pre_conv: every block begins with a convolution over the last tokens.
        conv_kernel: tokens that a convolution reads, the newest included.
        scan_checkpoint_group_size: mini-batches between two checkpoints of the inner loop in training; 0 for none.

    Raises:
        ValueError: naming the field, its value and the rule it breaks.
    """

    model_type = "ttt"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    # `Any`: checked in `check`, with messages that name the rule.
    vocab_size: Any = 32000
    hidden_size: Any = 2048
    intermediate_size: Any = 5504
    num_hidden_layers: Any = 24
    num_attention_heads: Any = 32
    hidden_act: Any = "silu"
    max_position_embeddings: Any = 2048
    initializer_range: Any = 0.02
    rms_norm_eps: Any = 1e-6
    use_cache: Any = False
    pad_token_id: Any = None
    bos_token_id: Any = 1
    eos_token_id: Any = 2
    pretraining_tp: Any = 1
    tie_word_embeddings: Any = True
    rope_theta: Any = 10000.0
    use_gate: Any = False
    share_qk: Any = False
    ttt_layer_type: Any = "linear"
    ttt_base_lr: Any = 1.0
    mini_batch_size: Any = 16
    pre_conv: Any = False
    conv_kernel: Any = 4
    scan_checkpoint_group_size: Any = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.check()

    @property
    def head_dim(self) -> int:
        """D, the width of a head."""
        return self.hidden_size // self.num_attention_heads

    def check(self) -> None:
        """Refuse fields that no model can have.

        Raises:
            ValueError: naming the field, its value and the rule it breaks.
        """
        for name in (*_COUNTS, *_MORE_COUNTS):
            check_whole(name, getattr(self, name), 1)
        check_whole("scan_checkpoint_group_size", self.scan_checkpoint_group_size, 0)
        for name in _FLAGS:
            check_flag(name, getattr(self, name))
        check_one_of("ttt_layer_type", self.ttt_layer_type, LAYER_TYPES)
        check_one_of("hidden_act", self.hidden_act, ACT2FN)
        check_finite("ttt_base_lr", self.ttt_base_lr, 0, math.inf, rule="finite_not_negative")
        check_finite("initializer_range", self.initializer_range, 0, math.inf, rule="finite_not_negative")
        for name in ("rms_norm_eps", "rope_theta"):
            check_finite(name, getattr(self, name), 0, math.inf, above=True, rule="finite_positive")
        width, heads = self.hidden_size, self.num_attention_heads
        if width % heads:
            raise FieldError("num_attention_heads", heads, "heads_divide", width=width)
        if self.head_dim % 2:
            raise FieldError("num_attention_heads", heads, "head_even", width=width, head=self.head_dim)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> TTTConfig:
        """As transformers'; what another family's file says is no TTT configuration.

        Raises:
            CheckpointError: another `model_type`.
            ValueError: a field, as the constructor.
        """
        kind = config_dict.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise CheckpointError(
                f"model_type={kind!r}: a TTT model's configuration says {cls.model_type!r}; open this checkpoint as what "
                "it is (transformers' AutoModelForCausalLM), or choose a TTT checkpoint"
            )
        found = super().from_dict(config_dict, **kwargs)
        (found[0] if isinstance(found, tuple) else found).check()  # keywords were set after the constructor's look
        return found
