"""LLaMA 1, 2 and 3: the published sizes, each with its source, and what they cost, computed.

Functions take a published size or any configuration with transformers' field names; what it leaves out is read as
`llama.py` reads it. Llama 3.1 405B's scaling of its positions is not part of a size: it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

from loopviz.model.checkpoints.limits import count_weights

from .llama import head_width

T = 10**12
LLAMA_1 = (
    "Touvron et al. 2023, arXiv:2302.13971, Table 2 (layers, width, heads, tokens); context, ff and theta: the released "
    "code (max_seq_len of ModelArgs) and params.json; vocabulary: the released tokenizer"
)
LLAMA_2 = (
    "Touvron et al. 2023, arXiv:2307.09288, Table 1 (context, grouped queries, tokens) and section 2.2 (vocabulary); "
    "layers, widths and heads: the released params.json; theta: the released code"
)
LLAMA_2_34B = (
    "arXiv:2307.09288, Table 1 (never released) and section 2.2; layers, widths and heads: Code Llama 34B's config.json, "
    "whose theta of 1,000,000 is not taken; theta: the released code of Llama 2"
)
LLAMA_3 = (
    "Grattafiori et al. 2024, arXiv:2407.21783, Table 3 (ff: as released, config.json); 128,256 rows with the marks; "
    "context and tokens (over 15 T): the model card of April 2024"
)
LLAMA_31_405B = (
    "Grattafiori et al. 2024, arXiv:2407.21783, Table 3 (ff: as released, config.json) and text (15.6 T tokens, a context "
    "of 128K); 128,256 rows with the marks; 131,072: config.json"
)


@dataclass(frozen=True)
class PublishedSize:
    """A published model's shape, under the names of transformers' `LlamaConfig`.

    Attributes:
        generation: 1, 2 or 3.
        max_position_embeddings: the context it was published with.
        tokens: it was trained on.
        source: where these numbers stand.
        tokens_or_more: whether only a floor of `tokens` was published.
    """

    name: str
    generation: int
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    rope_theta: float
    tokens: float
    source: str
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    tokens_or_more: bool = False


def _sizes() -> dict[str, PublishedSize]:
    of_1 = (32_000, 2048, 10_000.0)  # vocabulary, context, theta
    of_2, of_3 = (32_000, 4096, 10_000.0), (128_256, 8192, 500_000.0)
    of_31 = (128_256, 131_072, 500_000.0)
    rows = (
        PublishedSize("LLaMA 7B", 1, 32, 4096, 32, 32, 11008, *of_1, 1.0 * T, LLAMA_1),
        PublishedSize("LLaMA 13B", 1, 40, 5120, 40, 40, 13824, *of_1, 1.0 * T, LLAMA_1),
        PublishedSize("LLaMA 33B", 1, 60, 6656, 52, 52, 17920, *of_1, 1.4 * T, LLAMA_1),
        PublishedSize("LLaMA 65B", 1, 80, 8192, 64, 64, 22016, *of_1, 1.4 * T, LLAMA_1),
        PublishedSize("Llama 2 7B", 2, 32, 4096, 32, 32, 11008, *of_2, 2.0 * T, LLAMA_2),
        PublishedSize("Llama 2 13B", 2, 40, 5120, 40, 40, 13824, *of_2, 2.0 * T, LLAMA_2),
        PublishedSize("Llama 2 34B", 2, 48, 8192, 64, 8, 22016, *of_2, 2.0 * T, LLAMA_2_34B),
        PublishedSize("Llama 2 70B", 2, 80, 8192, 64, 8, 28672, *of_2, 2.0 * T, LLAMA_2),
        PublishedSize("Llama 3 8B", 3, 32, 4096, 32, 8, 14336, *of_3, 15.0 * T, LLAMA_3, tokens_or_more=True),
        PublishedSize("Llama 3 70B", 3, 80, 8192, 64, 8, 28672, *of_3, 15.0 * T, LLAMA_3, tokens_or_more=True),
        PublishedSize("Llama 3.1 405B", 3, 126, 16384, 128, 8, 53248, *of_31, 15.6 * T, LLAMA_31_405B),
    )
    return {row.name: row for row in rows}


SIZES: Mapping[str, PublishedSize] = MappingProxyType(_sizes())


def key_value_heads(config: Any) -> int:
    """K: `num_key_value_heads` where the configuration has one, else N, a key and a value for every query head."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def parameters(config: Any) -> int:
    """Numbers in all its weights, a tied head once.

    Raises:
        CheckpointError: sizes that no Llama can have.
    """
    needed = ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size")
    flags = ("attention_bias", "mlp_bias", "tie_word_embeddings")
    shape: Any = SimpleNamespace(
        **{name: getattr(config, name) for name in needed},
        **{name: bool(getattr(config, name, False)) for name in flags},
        head_dim=getattr(config, "head_dim", None),
        num_key_value_heads=key_value_heads(config),
    )
    return count_weights(shape)


def kv_bytes(config: Any, itemsize: int = 2) -> int:
    """Bytes that a token leaves in the cache: a key and a value for each K/V head of each layer."""
    return 2 * int(config.num_hidden_layers) * key_value_heads(config) * head_width(config) * itemsize


def flops(config: Any, context: int = 0) -> int:
    """Floating-point operations of the products of matrices of one more token, two for each multiplication.

    Args:
        config: the shape.
        context: tokens it looks back on, itself among them; 0 leaves the attention's own products out.
    """
    hidden, head = config.hidden_size, head_width(config)
    projections = 2 * hidden * head * (config.num_attention_heads + key_value_heads(config))
    layer = projections + 3 * hidden * config.intermediate_size + 2 * config.num_attention_heads * head * context
    return 2 * int(config.num_hidden_layers * layer + hidden * config.vocab_size)


@dataclass(frozen=True)
class LogitsCost:
    """What the output head costs in one pass over a prompt."""

    flops: int
    bytes: int


def logits_cost(config: Any, positions: int, itemsize: int = 4) -> LogitsCost:
    """The head at so many positions: 1 as in LLaMA's forward, which answers for the last token alone, or all of a prompt
    as in Llama 2's; `itemsize` is of a logit, float32 in both."""
    rows = positions * int(config.vocab_size)
    return LogitsCost(2 * rows * int(config.hidden_size), rows * itemsize)


def swiglu_width(hidden_size: int, multiple_of: int, multiplier: float = 1.0) -> int:
    """Meta's rule for the MLP's width: two thirds of 4 H, for there are three matrices in place of two, times
    `multiplier` (`ffn_dim_multiplier`), up to the next multiple of `multiple_of`."""
    width = int(multiplier * int(2 * 4 * hidden_size / 3))
    return multiple_of * -(-width // multiple_of)


def lora_parameters(rows: int, columns: int, rank: int) -> int:
    """Numbers in the two thin matrices that stand for a change of a `[rows, columns]` weight."""
    return rank * (rows + columns)


def lora_total(config: Any, rank: int) -> int:
    """The same of the four attention projections of every layer, those that Alpaca-LoRA trains."""
    hidden, head = int(config.hidden_size), head_width(config)
    queries, keys = int(config.num_attention_heads) * head, key_value_heads(config) * head
    layer = 2 * lora_parameters(hidden, queries, rank) + 2 * lora_parameters(hidden, keys, rank)
    return int(config.num_hidden_layers) * layer
