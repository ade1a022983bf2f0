"""The layers' weights as bitsandbytes packs them, through transformers' `BitsAndBytesConfig`: NF4 with double quantisation, or LLM.int8.

    nf4     half a byte a weight, with a scale for 64 of them that is itself held in a byte; computed in the model's dtype
    int8    a byte a weight with a scale a row; activations are rounded to a byte too, but for columns beyond `llm_int8_threshold`

What is packed is what transformers packs: the layers' linear maps. Embedding, head, norms, a loop's own weights, projections
with a norm of their own, keys and values stay floats. NF4 computes with the floats that its bytes stand for, each row from itself
alone. LLM.int8 takes the columns in which any token of a pass has an outlier for all tokens of that pass: what is read together is
rounded together, so that a batch, a prefill and single tokens differ by rounding.

On a CPU both are slower than floats, and NF4 unpacks every weight for every product: they are made for a GPU. On some bitsandbytes would put
NF4 weights into another order as they are first used, with scales of bfloat16, and compute in bfloat16 whatever is asked for (and
fail where a matrix has no multiple of 32 rows); models are shared by threads here, and what is saved is what was read, so it is told not to.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from loopviz.machine import QUANTIZATIONS
from loopviz.paths import install_hint

from .packed import packed_as, packed_modules, quantization_of, state_of
from .precision import PrecisionError, is_quantised

Model = TypeVar("Model", bound=PreTrainedModel)

NO_BNB = f"layers are packed by bitsandbytes, which is not installed; {install_hint('bnb')}"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # that it packs, and computes in
HEAD = "lm_head"


def need_bitsandbytes(what: str) -> None:
    """PrecisionError, before any work, where bitsandbytes is not installed; `what` needs it, for the message."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PrecisionError(f"{what}: {NO_BNB}")


def config_of(kind: str, dtype: torch.dtype) -> Any:
    """transformers' `BitsAndBytesConfig` of a kind of `QUANTIZATIONS`.

    Args:
        dtype: that is computed in, and in which all that is not packed is held.
    """
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def check_asked(kind: str, dtype: torch.dtype) -> None:
    """Refuse what cannot be packed at all, before any work.

    Raises:
        PrecisionError: another kind, a dtype that is not computed in, no bitsandbytes.
    """
    if kind not in QUANTIZATIONS:
        raise PrecisionError(f"quantization={kind!r}: must be one of {', '.join(QUANTIZATIONS)}")
    if dtype not in FLOATS:
        raise PrecisionError(
            f"dtype={dtype}, quantization={kind!r}: what is not packed is held and computed in float32, bfloat16 or float16; "
            "choose one of them"
        )
    need_bitsandbytes(f"quantization={kind!r}")


@torch.no_grad()
def pack(model: Model, kind: str) -> Model:
    """Pack the weights of a model's layers, in place, as loading it with that `BitsAndBytesConfig` does; the model.

    Views of it that are there already share the layers, and so this. Gradients pass its layers, and none of its weights takes any.

    Args:
        model: on the CPU, of finite floats; what else it holds keeps its dtype, which is what is computed in.
        kind: of `QUANTIZATIONS`.

    Raises:
        PrecisionError: it is none of that; nothing has been changed.
    """
    check_asked(kind, model.dtype)
    plain: dict[str, Any] = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    _check(model, kind, plain)
    from transformers.quantizers.auto import AutoHfQuantizer

    quantizer: Any = AutoHfQuantizer.from_config(config_of(kind, model.dtype), pre_quantized=False)
    quantizer.validate_environment(device_map=None)
    quantizer.preprocess_model(model, device_map=None)  # puts empty maps of bitsandbytes' in their places
    for name, module in packed_modules(model):
        _fill(module, plain.pop(name))  # one after the other: at most one is held twice
    model.hf_quantizer = quantizer
    quantizer.postprocess_model(model)
    model.requires_grad_(False)
    return steady(model)


def _check(model: Any, kind: str, plain: dict[str, Any]) -> None:
    """Refuse a model that cannot be packed."""
    if model.model.step_adapters is not None:
        raise PrecisionError(
            f"{kind}: each loop step has a LoRA of its own already; give the model and --adapter, which is put on it packed"
        )
    if (there := quantization_of(model)) is not None:
        raise PrecisionError(f"{kind}: its layers are packed already, as {there}; load it anew")
    if is_quantised(model):
        raise PrecisionError(f"{kind}: its layers hold int8 already; load it with dtype float32, bfloat16 or float16")
    for name, module in plain.items():
        if name == HEAD:
            continue
        weight = module.weight
        if weight.device.type != "cpu":
            raise PrecisionError(
                f"{kind}: {name} is on {weight.device}, and weights are packed on the CPU; move it there first"
            )
        if odd := int((~torch.isfinite(weight)).sum()):
            raise PrecisionError(f"{kind}: {name} has {odd:,} weights that are not finite, which no scale fits")
        if kind == "int8" and bool((weight.abs() > torch.finfo(torch.float16).max).any()):
            raise PrecisionError(
                f"{kind}: {name} has weights beyond what float16 holds, through which LLM.int8 goes; use 'nf4'"
            )


def _fill(module: Any, plain: nn.Linear) -> None:
    """Pack a map's weight into an empty one of bitsandbytes'."""
    import bitsandbytes as bnb

    empty, weight = module.weight, plain.weight.detach()
    if packed_as(module) == "int8":
        module.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=empty.has_fp16_weights).to(
            "cpu"
        )
    else:
        kept = {name: value for name, value in empty.__dict__.items() if name != "data"}
        module.weight = bnb.nn.Params4bit(weight, requires_grad=False, **kept).to("cpu")
    module.bias = None if plain.bias is None else nn.Parameter(plain.bias.detach(), requires_grad=False)
    module.train(plain.training)


def steady(model: Any) -> Any:
    """Have packed maps compute as they are asked to, and keep their bytes as they are (see above); the model.

    Raises:
        PrecisionError: the head is packed, which lenses and hashes read as floats.
    """
    found = list(packed_modules(model))
    if any(name == HEAD for name, _ in found):
        raise PrecisionError(
            f"quantization_config: {HEAD} would be packed, and lenses read it as floats; add it to llm_int8_skip_modules, or leave that out"
        )
    for _, module in found:
        _steady(module)
    if found:
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_news)
    return model


def _steady(module: Any) -> None:
    if packed_as(module) != "int8":
        module.support_avx512bf16_for_cpu = False
    elif getattr(module.weight, "CB", None) is not None:
        module.init_8bit_state()  # not in the first pass, which several threads may be in


def follow(model: Any) -> None:
    """Bring what a packed weight is read with to where its bytes are; a model that is moved whole leaves some of it behind."""
    for _, module in packed_modules(model):
        there: Any = module
        device = there.weight.device
        if packed_as(module) != "int8":
            if (state := state_of(module)) is not None:
                state.to(device)
        elif there.state.SCB is not None:
            there.state.CB, there.state.SCB = there.weight.data, there.state.SCB.to(device)


def _is_news(record: logging.LogRecord) -> bool:
    """LLM.int8 says for every product that it rounds activations; that it does is said once, as a model is loaded."""
    return "inputs will be cast" not in str(record.msg)
