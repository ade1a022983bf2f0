"""GGUF files of Llamas: what their header must say, and the model in them (the tokenizer: `gguf_tokenizer`).

The header is read here and not by transformers, whose reader leaves out what llama.cpp does: scaled positions, Llama 3's
frequency factors, biases, end marks. Only the blocks of a tensor are left to gguf's own `dequantize`. What a key means is
what llama.cpp makes of it in the architecture 'llama'; `keys.GGUF_KEYS` lists them all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from .errors import CheckpointError, Note, cause, reading
from .gguf_header import Array, Header, Tensor, read_header
from .gguf_tokenizer import end_marks, special_ids
from .inspect import HELD, LLAMAS, Inspection, available_memory, check_tensors, check_window
from .keys import GGUF_KEYS, check_keys, shown
from .limits import CheckpointLimits, count_weights

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
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
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
# Tables of frequencies that old converters stored; llama.cpp skips them too.
_DERIVED = re.compile(r"blk\.\d+\.attn_rot_embd\.weight|rope\.freqs(\.weight)?")
_FACTORS = "rope_freqs.weight"
_STRANGE = {
    "_norm.bias": "its norms have biases",
    "attn_q_norm": "it has norms of its queries and keys",
    "attn_k_norm": "it has norms of its queries and keys",
    "attn_qkv": "its queries, keys and values are one matrix",
    "ffn_gate_inp": "it is a mixture of experts",
    "_exps": "it is a mixture of experts",
    "_shexp": "it is a mixture of experts",
    "rope_factors": "its positions follow 'longrope'",
    ".scale": "its weights have scales of their own",
    ".input_scale": "its weights have scales of their own",
    "lora_": "it is an adapter",
}
_ATTENTION_BIASES = re.compile(r"\.self_attn\.[qkvo]_proj\.bias$")
_MLP_BIASES = re.compile(r"\.mlp\.\w+_proj\.bias$")


def inspect_gguf(file: Path, limits: CheckpointLimits | None = None) -> Inspection:
    """Check a GGUF file by its header.

    Args:
        file: to check.
        limits: what it may have.

    Raises:
        CheckpointError: damaged, not a Llama, a mixture of experts, tensors missing, unexpected, of a wrong shape or in a
            quantisation that gguf cannot undo, no tokenizer, or a key of `GGUF_KEYS` that is refused.
    """
    with reading(file):
        notes: list[Note] = []
        header = read_header(file)
        architecture = header.fields.get("general.architecture")
        if architecture != "llama":
            raise CheckpointError(
                f"general.architecture={shown(architecture)} in {file}: must be 'llama'; choose {LLAMAS}"
            )
        check_keys(GGUF_KEYS, {key: _plain(value) for key, value in header.fields.items()}, file)
        if not isinstance(header.fields.get("tokenizer.ggml.tokens"), Array):
            raise CheckpointError(f"{file}: holds no tokenizer (tokenizer.ggml.tokens); take a GGUF file that does")
        if limits is not None:
            tokens = header.fields["tokenizer.ggml.tokens"].values
            limits.check_counts(_plain(header.fields.get("llama.block_count")), len(tokens))
        tensors = _llama_tensors(header, file)
        config = _config(header, tensors, file, notes)
        if limits is not None:
            limits.check_counts(config.num_hidden_layers, config.vocab_size)
            limits.check_weights(count_weights(config), HELD, available_memory())
        check_tensors({**_left_out_biases(tensors, config), **_shapes(tensors)}, config, file)
        sizes = [math.prod(shape) for shape in _shapes(tensors).values()]
        types = {tensor.type.name for tensor in tensors.values() if len(tensor.shape) > 1}
        n_bytes = sum(tensor.n_bytes for tensor in tensors.values())
        return Inspection(file, config, sum(sizes), max(sizes), "/".join(sorted(types)), notes, n_bytes=n_bytes)


def load_gguf(file: Path, config: LlamaConfig, dtype: torch.dtype) -> LlamaForCausalLM:
    """The weights of `file`, dequantised to `dtype`, as a plain Llama.

    Args:
        file: a file `inspect_gguf` has passed.
        config: the configuration it found.
        dtype: floating dtype of the parameters.

    Raises:
        CheckpointError: what gguf cannot read after all.
    """
    with reading(file):
        header = read_header(file)
        tensors = _llama_tensors(header, file)
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        state = {name: torch.zeros(shape, dtype=dtype) for name, shape in _left_out_biases(tensors, config).items()}
        data = np.memmap(file, dtype=np.uint8, mode="r")
        for name, tensor in tensors.items():
            values = torch.from_numpy(_halves_together(_values(data, tensor), name, config))
            state[name] = values.to(dtype) if values.dtype != dtype else values
        if config.tie_word_embeddings:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state, assign=True)
        model.tie_weights()
        model.model.rotary_emb = LlamaRotaryEmbedding(config)  # its frequencies are no weights
        model.config.dtype = dtype
        return model.eval()


def _llama_tensors(header: Header, file: Path) -> dict[str, Tensor]:
    """The tensors by transformers' names, those that are not weights left out.

    Raises:
        CheckpointError: a tensor a Llama does not have, or in a quantisation that gguf cannot undo.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in header.tensors.items():
        if name == _FACTORS or _DERIVED.fullmatch(name):
            continue
        match = _LAYER.fullmatch(name)
        top, _, leaf = name.rpartition(".")
        if match and match[2] in _LAYER_NAMES and not (match[3] == "bias" and "norm" in match[2]):
            full = f"model.layers.{int(match[1])}.{_LAYER_NAMES[match[2]]}.{match[3]}"
        elif top in _NAMES and leaf == "weight":
            full = f"{_NAMES[top]}.weight"
        else:
            why = next((why for part, why in _STRANGE.items() if part in name), "a Llama has no such tensor")
            raise CheckpointError(
                f"{name} in {file}: an unexpected tensor ({why}); left out, the numbers would be others. The file is "
                f"whole, but not a Llama as it is computed here: choose {LLAMAS}"
            )
        if not _can_undo(tensor.type):
            raise CheckpointError(
                f"{name} in {file}: stored as {tensor.type.name}, which gguf cannot turn into numbers; take a file of "
                "another quantisation"
            )
        tensors[full] = tensor
    return tensors


@cache
def _can_undo(kind: GGMLQuantizationType) -> bool:
    """Whether gguf dequantises this type."""
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _left_out_biases(tensors: dict[str, Tensor], config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Biases transformers has and the file does not (often that of o): they are zero."""
    shapes: dict[str, tuple[int, ...]] = {}
    for asked, parts in (
        (config.attention_bias, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")),
        (config.mlp_bias, ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")),
    ):
        for weight in [f"model.layers.{i}.{part}.weight" for i in _layers(tensors) for part in parts if asked]:
            bias = weight.removesuffix("weight") + "bias"
            if bias not in tensors and weight in tensors:
                shapes[bias] = tensors[weight].shape[:1]
    return shapes


def _layers(tensors: dict[str, Tensor]) -> Iterator[int]:
    yield from sorted({int(name.split(".")[2]) for name in tensors if name.startswith("model.layers.")})


def _values(data: np.ndarray, tensor: Tensor) -> np.ndarray:
    """A tensor's numbers, float32 of its shape."""
    block, n_bytes = GGML_QUANT_SIZES[tensor.type]
    raw = data[tensor.offset : tensor.offset + tensor.n_bytes]
    rows = raw.reshape(*tensor.shape[:-1], tensor.shape[-1] // block * n_bytes)
    return np.array(dequantize(rows, tensor.type), dtype=np.float32)  # a copy: the file may go away


def _halves_together(values: np.ndarray, name: str, config: LlamaConfig) -> np.ndarray:
    """Rows of q and k in transformers' order: llama.cpp rotates neighbouring pairs, transformers the two halves."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return values
    return np.ascontiguousarray(values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape))


# --- metadata ----------------------------------------------------------------------------------------------------


def _config(header: Header, tensors: dict[str, Tensor], file: Path, notes: list[Note]) -> LlamaConfig:
    hidden, heads = _whole(header, "embedding_length", file), _whole(header, "attention.head_count", file)
    head_dim = _head_dim(header, hidden // heads, file)
    context = _whole(header, "context_length", file)
    rows = _whole(header, "vocab_size", file, len(header.fields["tokenizer.ggml.tokens"].values))
    window = header.fields.get("llama.attention.sliding_window")
    check_window(window, context, "llama.attention.sliding_window", file)
    theta = _number(header, "llama.rope.freq_base", 10000.0, file)
    if theta <= 0:
        raise CheckpointError(f"llama.rope.freq_base={theta:g} in {file}: must be above 0")
    marks = special_ids(header, file, notes)
    ends = end_marks(header, marks)
    values: dict[str, Any] = {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": _whole(header, "attention.head_count_kv", file, heads),
        "num_hidden_layers": _whole(header, "block_count", file),
        "intermediate_size": _whole(header, "feed_forward_length", file),
        "max_position_embeddings": context,
        "head_dim": head_dim,
        "vocab_size": rows,
        "rms_norm_eps": _number(header, "llama.attention.layer_norm_rms_epsilon", None, file),
        "rope_parameters": _rope(header, file, theta, head_dim, context),
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "attention_bias": any(map(_ATTENTION_BIASES.search, tensors)),
        "mlp_bias": any(map(_MLP_BIASES.search, tensors)),
        "bos_token_id": marks["bos"],
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
    }
    try:
        return LlamaConfig(**values)
    except Exception as error:  # whatever the strict dataclass raises, it is about this header
        raise CheckpointError(f"{file}: its metadata make no Llama configuration: {cause(error)}") from error


def _head_dim(header: Header, usual: int, file: Path) -> int:
    """Width of a head; a Llama's keys, values and rotated parts are all as wide."""
    rotated = header.fields.get("llama.rope.dimension_count", usual)
    width = header.fields.get("llama.attention.key_length", rotated)
    for key, value in (
        ("llama.attention.key_length", width),
        ("llama.rope.dimension_count", header.fields.get("llama.rope.dimension_count", width)),
        ("llama.attention.value_length", header.fields.get("llama.attention.value_length", width)),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value != width:
            raise CheckpointError(
                f"{key}={shown(value)} in {file}: keys are {shown(width)} wide, and a Llama's keys, values and rotated "
                "parts are all as wide"
            )
    return width


def _rope(header: Header, file: Path, theta: float, head_dim: int, context: int) -> dict[str, Any]:
    """Rotary parameters as transformers names them.

    llama.cpp reads a missing type as 'linear', a factor of 0 as none, the old name of the factor where the new one is
    missing, and divides by the factors of `rope_freqs` (Llama 3.1 and later) whatever the type.
    """
    kind = header.fields.get("llama.rope.scaling.type", "linear")
    scale = _number(
        header, "llama.rope.scaling.factor", None if _has(header, "llama.rope.scaling.factor") else -1.0, file
    )
    if scale == -1.0:
        scale = _number(header, "llama.rope.scale_linear", 0.0, file)
    if scale < 0 or not math.isfinite(scale):
        raise CheckpointError(f"llama.rope.scaling.factor={scale:g} in {file}: must be a number above 0")
    attention = _number(header, "llama.rope.scaling.attn_factor", 1.0, file)
    scale = 1.0 if kind == "none" or not scale else scale
    if kind not in ("none", "linear", "yarn"):
        raise CheckpointError(
            f"llama.rope.scaling.type={shown(kind)} in {file}: only 'none', 'linear' and 'yarn' are reproduced exactly; "
            "take the safetensors checkpoint of this model"
        )
    factors = _rope_factors(header, file, head_dim)
    if kind == "yarn":
        if factors is not None:
            raise CheckpointError(f"{_FACTORS} in {file}: beside llama.rope.scaling.type='yarn' it is not reproduced")
        if scale < 1.0:
            raise CheckpointError(f"llama.rope.scaling.factor={scale:g} in {file}: must be at least 1 with 'yarn'")
        original = _whole(header, "rope.scaling.original_context_length", file, context)
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": scale,
            "original_max_position_embeddings": original,
            "attention_factor": attention * (1.0 + 0.1 * math.log(scale)),
        }
    if attention != 1.0:
        raise CheckpointError(
            f"llama.rope.scaling.attn_factor={attention:g} in {file}: is only read with llama.rope.scaling.type='yarn'"
        )
    if factors is not None:
        return _factors_rope(factors, scale, theta, head_dim, context)
    if scale == 1.0:
        return {"rope_type": "default", "rope_theta": theta}
    return {"rope_type": "linear", "rope_theta": theta, "factor": scale}


def _rope_factors(header: Header, file: Path, head_dim: int) -> np.ndarray | None:
    """`[head_dim / 2]` float32, or None when the file has none (or all are 1)."""
    tensor = header.tensors.get(_FACTORS)
    if tensor is None:
        return None
    if tensor.type != GGMLQuantizationType.F32 or tensor.shape != (head_dim // 2,):
        raise CheckpointError(
            f"{_FACTORS} in {file}: stored as {tensor.type.name} of shape {tensor.shape}, expected F32 of "
            f"({head_dim // 2},); choose another file"
        )
    factors = np.fromfile(file, dtype="<f4", count=math.prod(tensor.shape), offset=tensor.offset)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise CheckpointError(f"{_FACTORS} in {file}: must be numbers above 0; choose another file")
    return None if np.all(factors == 1.0) else factors


def _factors_rope(factors: np.ndarray, scale: float, theta: float, head_dim: int, context: int) -> dict[str, Any]:
    """Llama 3's rule where it gives the stored factors back; else the factors themselves, as 'longrope' carries them."""
    rope: dict[str, Any] = {
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
    if scale == 1.0 and np.allclose(plain / frequencies, factors, rtol=1e-5):
        return rope
    both = [float(factor) * scale for factor in factors]
    return {
        "rope_type": "longrope",
        "rope_theta": theta,
        "short_factor": both,
        "long_factor": both,  # the same: no length at which positions would change
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": context,
    }


def _has(header: Header, key: str) -> bool:
    return key in header.fields


def _number(header: Header, key: str, default: float | None, file: Path) -> float:
    value = header.fields.get(key, default)
    if value is None:
        raise CheckpointError(f"{file}: its metadata lack {key}; choose another GGUF file of this model")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CheckpointError(f"{key}={shown(value)} in {file}: must be a number")
    return float(value)


def _whole(header: Header, key: str, file: Path, default: int | None = None) -> int:
    """A whole number above 0; a list of one for each layer must hold the same everywhere."""
    key = f"llama.{key}"
    value = _plain(header.fields.get(key, default))
    if value is None:
        raise CheckpointError(f"{file}: its metadata lack {key}; choose another GGUF file of this model")
    if isinstance(value, list) and value and len(set(value)) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{key}={shown(value)} in {file}: must be a whole number >= 1, the same in every layer")
    return value


def _plain(value: Any) -> Any:
    return value.values if isinstance(value, Array) else value
