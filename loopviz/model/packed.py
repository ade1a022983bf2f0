"""Weights that bitsandbytes has packed: told apart, read as what they stand for, counted. What packs them: :mod:`.quantization`.

A projection is then a `Linear4bit` (NF4: half a byte a weight, with a scale for 64, itself a byte) or a `Linear8bitLt` (LLM.int8), and
under a LoRA of peft's the `base_layer` of one. A packed weight's bytes are no numbers: whoever reads a weight asks
:func:`dense_weight`. Nothing of bitsandbytes is imported here before a weight that it has packed is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_LARGEST = 127  # the whole number that stands for a row's largest weight, of LLM.int8


def packed_as(module: Any) -> str | None:
    """How a map's own weight is packed: "nf4", "fp4" or "int8"; `None`: it is not."""
    kind: Any = type(module)
    if not kind.__module__.startswith("bitsandbytes."):  # peft's maps have the same names
        return None
    if kind.__name__ == "Linear4bit":
        own: Any = state_of(module) or module.weight
        return str(own.quant_type)
    return "int8" if kind.__name__ == "Linear8bitLt" else None


def state_of(module: Any) -> Any:
    """What a weight of 4 bits is read with, bitsandbytes' `QuantState`; `None`: nothing is packed in it yet."""
    return getattr(module.weight, "quant_state", None) or module.quant_state  # a parameter loses it on some ways


def scale_of(module: Any) -> Any:
    """The scales of the rows of a weight of LLM.int8, `[out]`; `None`: nothing is packed in it yet."""
    return getattr(module.weight, "SCB", None) if module.state.SCB is None else module.state.SCB


def quantization_of(model: Any) -> str | None:
    """How a model's layers are packed by bitsandbytes, as :func:`packed_as` says it; `None`: they are not."""
    return next((kind for module in model.modules() if (kind := packed_as(module))), None)


def packed_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The packed maps of a model, with their names in it."""
    return ((name, module) for name, module in model.named_modules() if packed_as(module))


@torch.no_grad()
def dense_weight(projection: Any) -> Tensor:
    """What a map's weight stands for, `[out, in]`: of packed bytes the floats, with the LoRA that lies on it; made anew each time.

    Args:
        projection: any linear map: packed or not, of int8 (:mod:`.precision`), peft's around one.
    """
    base = getattr(projection, "base_layer", None)
    if base is not None:  # peft's
        found = dense_weight(base)
        for name in () if projection.disable_adapters else projection.active_adapters:
            if name in projection.lora_A:
                found = found + projection.get_delta_weight(name).to(found.dtype)
        return found
    kind, weight = packed_as(projection), projection.weight
    if kind is None:
        plain: Tensor = weight.detach()
        return plain
    if kind == "int8":
        rows: Tensor = weight.detach().float() * (scale_of(projection).float() / _LARGEST)[:, None]
        return rows
    from bitsandbytes.functional import dequantize_4bit

    floats: Tensor = dequantize_4bit(weight.detach(), state_of(projection))
    return floats


def beside_weights(module: Any) -> list[Tensor]:
    """The tensors that a packed weight cannot be read without, beside its bytes: scales, and the tables of their values."""
    kind = packed_as(module)
    if kind is None:
        return []
    if kind == "int8":
        return [scale_of(module)]
    state = state_of(module)
    second = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return [state.absmax, state.code, *second]


def unpacked_numbers(module: Any) -> int:
    """How many more numbers a packed weight is than its parameter has; 0 of one that is not packed."""
    return 0 if packed_as(module) is None else module.in_features * module.out_features - module.weight.numel()


def unpacked_state(model: nn.Module) -> dict[str, Tensor]:
    """A state dict by the names that a model without packed weights and LoRAs has, with what its weights stand for."""
    found = dict(model.state_dict())
    worn = [name for name, module in model.named_modules() if hasattr(module, "base_layer")]
    maps = [*worn, *(name for name, _ in packed_modules(model) if name.removesuffix(".base_layer") not in worn)]
    for name in maps:
        projection: Any = model.get_submodule(name)
        bias = getattr(projection, "bias", None)
        for key in [key for key in found if key.startswith(f"{name}.")]:
            del found[key]
        found[f"{name}.weight"] = dense_weight(projection)
        if bias is not None:
            found[f"{name}.bias"] = bias.detach()
    return found
