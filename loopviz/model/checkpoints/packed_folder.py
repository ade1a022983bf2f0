"""Folders that transformers has saved with layers packed by bitsandbytes: looked through as closely as any other, and then read.

    quantization_config     in config.json: NF4 (`load_in_4bit`), with double quantisation or without, or LLM.int8 (`load_in_8bit`)
    X.weight                NF4: U8 [out * in / 2, 1]; int8: I8 [out, in]
    X.weight.absmax, ...    NF4: scales, tables and, as JSON, `quant_state.bitsandbytes__nf4`; int8: X.SCB, X.weight_format

bitsandbytes' own code trusts sizes that stand in that JSON, so all of them are held against the tensors first. Which maps are packed
must be what transformers packs by the same configuration: else it would read some as empty.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loopviz.model.precision import PROJECTIONS

from .errors import CheckpointError
from .keys import shown

KEY = "quantization_config"
BLOCK, NESTED = 64, 256  # weights a scale, and scales a scale
STATE, MOST_STATE = "quant_state.bitsandbytes__nf4", 4096  # and bytes of such a JSON
DTYPES = ("float32", "bfloat16", "float16")
ADVICE = "take the unquantised checkpoint, and pack it with --quantization"
_MAP = re.compile(rf"model\.layers\.\d+\.(?:self_attn|mlp)\.(?P<name>{'|'.join(PROJECTIONS)})\.weight")
_PLAIN_NAME = re.compile(r"\w[\w.]*")  # transformers takes them for patterns
_FLAGS = ("load_in_4bit", "load_in_8bit", "bnb_4bit_use_double_quant")
_FIXED: dict[str, tuple[Any, ...]] = {
    "quant_method": ("bitsandbytes",),
    "bnb_4bit_quant_storage": ("uint8", None),
    "llm_int8_enable_fp32_cpu_offload": (False, None),
    "llm_int8_has_fp16_weight": (False, None),
}
_OTHER = ("bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "llm_int8_threshold", "llm_int8_skip_modules")


@dataclass(frozen=True)
class Packing:
    """What a folder's config.json says of how its layers are packed.

    Attributes:
        kind: "nf4" or "int8".
        double: NF4: scales are packed themselves.
        skipped: names that are left floats; the head is always.
        said: its `quantization_config`.
    """

    kind: str
    double: bool
    skipped: tuple[str, ...]
    said: Mapping[str, Any]

    def config(self, dtype: torch.dtype) -> dict[str, Any]:
        """Its `quantization_config`, computing in a dtype."""
        return {**self.said, "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch.")}


@dataclass(frozen=True)
class Stored:
    """A tensor as a folder stores it: shape, dtype ("F32"; "NF4" and "INT8" of packed ones) and bytes."""

    shape: tuple[int, ...]
    dtype: str
    n_bytes: int


def packing_of(raw: Mapping[str, Any], file: Path) -> Packing | None:
    """How a folder's layers are packed by bitsandbytes; `None`: they are not, or by something else.

    Args:
        raw: its config.json.
        file: that, for the message.

    Raises:
        CheckpointError: a way that is not read, by name.
    """
    said = raw.get(KEY)
    if not isinstance(said, dict) or said.get("quant_method") != "bitsandbytes":
        return None
    for name, value in said.items():
        name = name.removeprefix("_") if name.removeprefix("_") in _FLAGS else name
        known = (True, False, None) if name in _FLAGS else _FIXED.get(name)
        if known is None and name not in _OTHER:
            raise CheckpointError(f"{KEY}.{shown(name)}={shown(value)} in {file}: not known here; {ADVICE}")
        if known is not None and not any(value is each or (type(value) is str and value == each) for each in known):
            raise CheckpointError(f"{KEY}.{name}={shown(value)} in {file}: must be {known[0]!r}; {ADVICE}")
    four, eight = (said.get(name, said.get(f"_{name}")) is True for name in _FLAGS[:2])
    if four == eight or (four and said.get("bnb_4bit_quant_type") != "nf4"):
        raise CheckpointError(f"{KEY}={shown(said)} in {file}: must be 4 bits of type nf4, or 8 bits; {ADVICE}")
    threshold = said.get("llm_int8_threshold", 6.0)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold < math.inf:
        raise CheckpointError(
            f"{KEY}.llm_int8_threshold={shown(threshold)} in {file}: must be a number from 0; {ADVICE}"
        )
    skipped = said.get("llm_int8_skip_modules")
    if skipped is not None and not (
        isinstance(skipped, list)
        and all(isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in skipped)
        and "lm_head" in skipped
    ):
        raise CheckpointError(
            f"{KEY}.llm_int8_skip_modules={shown(skipped)} in {file}: must be null, or plain names with lm_head among them; {ADVICE}"
        )
    double = said.get("bnb_4bit_use_double_quant") is True
    return Packing("nf4" if four else "int8", double, tuple(skipped or ()), said)


def unpacked(
    packing: Packing, stored: Mapping[str, Stored], read: Callable[[str], torch.Tensor], where: Path
) -> dict[str, Stored]:
    """The tensors of a packed folder by the names and shapes of a model that is not packed.

    Args:
        stored: as they stand in its files.
        read: gives one of them.
        where: the folder, for the message.

    Raises:
        CheckpointError: parts of a packed weight that do not belong together, by name.
    """
    ending = f".{STATE}" if packing.kind == "nf4" else ".SCB"
    rest, found = dict(stored), {}
    for name in [name for name in stored if name.endswith(ending)]:
        weight = name.removesuffix(ending) if packing.kind == "nf4" else f"{name.removesuffix(ending)}.weight"
        parts = (
            _nf4_parts(packing, weight, read, stored, where) if packing.kind == "nf4" else _int8_parts(weight, stored)
        )
        shape, wanted = parts
        for part, (sizes, dtype) in wanted.items():
            there = rest.pop(part, None)
            if there is None or (there.shape, there.dtype) != (sizes, dtype):
                has = "is missing" if there is None else f"is {there.dtype} {there.shape}"
                raise CheckpointError(
                    f"{part} in {where}: {has}, and {dtype} {sizes} is wanted; the files are damaged: fetch them again"
                )
        n_bytes = sum(stored[part].n_bytes for part in wanted)
        found[weight] = Stored(shape, packing.kind.upper(), n_bytes)
    return {**rest, **found}


Parts = tuple[
    tuple[int, ...], dict[str, tuple[tuple[int, ...], str]]
]  # the weight's shape, and of each part shape and dtype


def _int8_parts(weight: str, stored: Mapping[str, Stored]) -> Parts:
    shape = stored[weight].shape if weight in stored else ()
    map_ = weight.removesuffix(".weight")
    wanted: dict[str, tuple[tuple[int, ...], str]] = {weight: (shape, "I8"), f"{map_}.SCB": (shape[:1], "F32")}
    if f"{map_}.weight_format" in stored:
        wanted[f"{map_}.weight_format"] = ((), "U8")
    return shape, wanted


def _nf4_parts(
    packing: Packing, weight: str, read: Callable[[str], torch.Tensor], stored: Mapping[str, Stored], where: Path
) -> Parts:
    name = f"{weight}.{STATE}"
    there = stored[name]
    if there.dtype != "U8" or len(there.shape) != 1 or not 0 < there.shape[0] <= MOST_STATE:
        raise CheckpointError(
            f"{name} in {where}: is {there.dtype} {there.shape}, and some bytes of JSON are wanted; do not use it"
        )
    try:
        said = json.loads(bytes(read(name).tolist()))
    except (ValueError, RecursionError):
        said = None
    shape: Any = said.get("shape") if isinstance(said, dict) else None
    plain = {"quant_type": ("nf4",), "blocksize": (BLOCK,), "dtype": DTYPES, "shape": (shape,)}
    if packing.double:
        plain |= {"nested_blocksize": (NESTED,), "nested_dtype": ("float32",), "nested_offset": (None,)}
    sizes = isinstance(shape, list) and len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)
    if not sizes or not isinstance(said, dict) or set(said) != set(plain):
        raise CheckpointError(f"{name} in {where}: {shown(said)} says not what NF4 weights need; fetch the files again")
    offset = said.get("nested_offset", 0.0)
    wrong = [key for key, known in plain.items() if key != "nested_offset" and said[key] not in known]
    if wrong or type(offset) is not float or not math.isfinite(offset):
        key = (wrong or ["nested_offset"])[0]
        raise CheckpointError(f"{key}={shown(said[key])} of {name} in {where}: is not read; {ADVICE}")
    count = math.prod(shape)
    blocks = -(-count // BLOCK)
    wanted: dict[str, tuple[tuple[int, ...], str]] = {
        weight: ((-(-count // 2), 1), "U8"),
        f"{weight}.absmax": ((blocks,), "U8" if packing.double else "F32"),
        f"{weight}.quant_map": ((16,), "F32"),
        name: (there.shape, "U8"),
    }
    if packing.double:
        wanted[f"{weight}.nested_absmax"] = ((-(-blocks // NESTED),), "F32")
        wanted[f"{weight}.nested_quant_map"] = ((256,), "F32")
    return tuple(shape), wanted


def check_packed(packing: Packing, tensors: Mapping[str, Stored], qk_norm: str, where: Path) -> None:
    """Refuse a folder in which not just those maps are packed that its configuration says.

    Args:
        tensors: of :func:`unpacked`.
        qk_norm: of the model: projections with a norm are never packed.

    Raises:
        CheckpointError: naming the first.
    """
    from transformers.quantizers.quantizers_utils import should_convert_module

    for name, tensor in tensors.items():
        match = _MAP.fullmatch(name)
        normed = match is not None and qk_norm != "none" and match["name"] in ("q_proj", "k_proj")
        asked = (
            match is not None
            and not normed
            and should_convert_module(name.removesuffix(".weight"), list(packing.skipped))
        )
        if asked != (tensor.dtype == packing.kind.upper()):
            is_so = "packed" if not asked else f"stored as {tensor.dtype}"
            raise CheckpointError(
                f"{name} in {where}: is {is_so}, and {KEY} says otherwise; files of different checkpoints, or a layer that is no Llama's: "
                f"{ADVICE}"
            )
