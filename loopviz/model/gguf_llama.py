"""GGUF files of Llamas: what their header must say, and the model and tokenizer in them.

transformers reads the tensors; this module checks before that they are all there, and adds what its reader leaves out
(Llama 3's frequency factors: without them long contexts would be silently wrong).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from .checkpoint_files import LLAMAS, CheckpointError, Inspection, check_tensors
from .gguf_header import Array, Header, read_header

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_FACTORS = "rope_freqs.weight"
_INTEGERS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    # Optional in GGUF, but transformers' reader leaves q and k permuted without it.
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
}


def inspect_gguf(file: Path) -> Inspection:
    """Check a GGUF file by its header.

    Raises:
        CheckpointError: damaged, not a Llama, a mixture of experts, tensors missing, unexpected or of a wrong shape, no
            tokenizer, or a rotary embedding that is not reproduced exactly.
    """
    header = read_header(file)
    config = _config(header, file)
    shapes = {_hf_name(name): tensor.shape for name, tensor in header.tensors.items() if name != _FACTORS}
    check_tensors(shapes, config, file)
    if not isinstance(header.fields.get("tokenizer.ggml.tokens"), Array):
        raise CheckpointError(f"{file}: holds no tokenizer (tokenizer.ggml.tokens); take a GGUF file that does")
    sizes = [math.prod(shape) for shape in shapes.values()]
    types = {tensor.type.name for tensor in header.tensors.values() if len(tensor.shape) > 1}
    return Inspection(file, config, sum(sizes), max(sizes), "/".join(sorted(types)))


def load_gguf(file: Path, config: LlamaConfig, dtype: torch.dtype) -> LlamaForCausalLM:
    """The weights of `file`, dequantised to `dtype`, as a plain Llama.

    Args:
        file: a file `inspect_gguf` has passed.
        config: the configuration it found.
        dtype: floating dtype of the parameters.

    Raises:
        CheckpointError: what transformers or gguf cannot read after all.
    """
    try:
        model, info = LlamaForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(f"{file}: cannot be read ({type(error).__name__}: {error})") from error
    wrong = [name for names in info.values() for name in names]
    if wrong:
        raise CheckpointError(f"{file}: {wrong[0]} is missing, unexpected or of a wrong shape; choose another file")
    if model.config.rope_parameters != config.rope_parameters:
        model.config.rope_parameters = config.rope_parameters
        model.config.max_position_embeddings = config.max_position_embeddings
        model.model.rotary_emb = LlamaRotaryEmbedding(model.config)
    return model


def load_gguf_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `file`, with its chat template.

    Raises:
        CheckpointError: of a kind transformers cannot convert.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
        return _without_invented_tokens(tokenizer, read_header(file))
    except CheckpointError:
        raise
    except Exception as error:  # converters raise anything; it is about this file's tokenizer
        raise CheckpointError(f"{file}: its tokenizer cannot be read ({type(error).__name__}: {error})") from error


def _without_invented_tokens(tokenizer: PreTrainedTokenizerBase, header: Header) -> PreTrainedTokenizerBase:
    """Drop tokens the file does not have.

    transformers builds byte-level vocabularies with GPT-2's class, which adds GPT-2's `<|endoftext|>` where the file
    has none (Llama 3's): an id past the embedding's last row.
    """
    rows = len(header.fields["tokenizer.ggml.tokens"].values)
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in inner["added_tokens"] if token["id"] < rows]
    if len(kept) == len(inner["added_tokens"]):
        return tokenizer
    inner["added_tokens"] = kept
    backend = Tokenizer.from_str(json.dumps(inner))
    marks = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {mark: header.fields.get(f"tokenizer.ggml.{key}_token_id") for mark, key in marks.items()}
    named = {mark: backend.id_to_token(number) for mark, number in ids.items() if number is not None}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tokenizer.chat_template, **named)


def _config(header: Header, file: Path) -> LlamaConfig:
    architecture = header.fields.get("general.architecture")
    if architecture != "llama":
        raise CheckpointError(f"general.architecture={architecture!r} in {file}: must be 'llama'; choose {LLAMAS}")
    if header.fields.get("llama.expert_count"):
        raise CheckpointError(
            f"llama.expert_count={header.fields['llama.expert_count']} in {file}: a mixture of experts is not a Llama; "
            f"choose {LLAMAS}"
        )
    values: dict[str, Any] = {field: _integer(header, key, file) for key, field in _INTEGERS.items()}
    heads = values["num_attention_heads"]
    head_dim = header.fields.get("llama.rope.dimension_count", values["hidden_size"] // heads)
    tokens = header.fields.get("tokenizer.ggml.tokens")
    rows = len(tokens.values) if isinstance(tokens, Array) else 0
    theta = float(header.fields.get("llama.rope.freq_base", 10000.0))
    try:
        return LlamaConfig(
            **values,
            head_dim=head_dim,
            vocab_size=header.fields.get("llama.vocab_size", rows),
            rms_norm_eps=float(_present(header, "llama.attention.layer_norm_rms_epsilon", file)),
            rope_parameters=_rope(header, file, theta, head_dim),
            tie_word_embeddings="output.weight" not in header.tensors,
            bos_token_id=header.fields.get("tokenizer.ggml.bos_token_id"),
            eos_token_id=header.fields.get("tokenizer.ggml.eos_token_id"),
        )
    except CheckpointError:
        raise
    except Exception as error:  # whatever the strict dataclass raises, it is about this header
        raise CheckpointError(f"{file}: its metadata make no Llama configuration: {error}") from error


def _rope(header: Header, file: Path, theta: float, head_dim: int) -> dict[str, Any]:
    """Rotary parameters. Llama 3.1 and later store per-frequency factors in a tensor instead of the rule behind them."""
    kind = header.fields.get("llama.rope.scaling.type", "none")
    factors = _rope_factors(header, file)
    if factors is not None:
        return _llama3_rope(factors, theta, head_dim, file)
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        factor = float(_present(header, "llama.rope.scaling.factor", file))
        return {"rope_type": "linear", "rope_theta": theta, "factor": factor}
    raise CheckpointError(
        f"llama.rope.scaling.type={kind!r} in {file}: only 'none', 'linear' and Llama 3's factors are reproduced "
        "exactly; take the safetensors checkpoint of this model"
    )


def _rope_factors(header: Header, file: Path) -> np.ndarray | None:
    """`[head_dim / 2]` float32, or None when the file has none (or all are 1)."""
    tensor = header.tensors.get(_FACTORS)
    if tensor is None:
        return None
    if tensor.type != GGMLQuantizationType.F32:
        raise CheckpointError(f"{_FACTORS} in {file}: stored as {tensor.type.name}, expected F32; choose another file")
    factors = np.fromfile(file, dtype="<f4", count=math.prod(tensor.shape), offset=tensor.offset)
    return None if np.all(factors == 1.0) else factors


def _llama3_rope(factors: np.ndarray, theta: float, head_dim: int, file: Path) -> dict[str, Any]:
    """Llama 3's rule with the largest factor found, if it gives the stored factors back."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": round(float(factors.max()), 3),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        hidden_size=head_dim, num_attention_heads=1, num_key_value_heads=1, head_dim=head_dim, rope_parameters=rope,
        max_position_embeddings=131072,
    )  # fmt: skip
    frequencies = LlamaRotaryEmbedding(config).inv_freq.numpy()  # [head_dim / 2]
    plain = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    if factors.shape != plain.shape or not np.allclose(plain / frequencies, factors, rtol=1e-3):
        raise CheckpointError(
            f"{_FACTORS} in {file}: not the factors of Llama 3's rule, so its positions would be wrong; take the "
            "safetensors checkpoint of this model"
        )
    return rope


def _hf_name(name: str) -> str:
    match = _LAYER.fullmatch(name)
    if match and match[2] in _LAYER_NAMES:
        return f"model.layers.{int(match[1])}.{_LAYER_NAMES[match[2]]}.weight"
    return _NAMES.get(name, name)


def _present(header: Header, key: str, file: Path) -> Any:
    if key not in header.fields:
        raise CheckpointError(f"{file}: its metadata lack {key}; choose another GGUF file of this model")
    return header.fields[key]


def _integer(header: Header, key: str, file: Path) -> int:
    value = _present(header, f"llama.{key}", file)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"llama.{key}={value!r} in {file}: must be a whole number >= 1; choose another file")
    return value
