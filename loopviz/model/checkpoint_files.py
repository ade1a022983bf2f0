"""What is in a checkpoint, read without reading its weights: is it a Llama, is it whole, does it fit in memory.

Everything here looks at metadata only (JSON files, safetensors headers, GGUF headers) and refuses, by name, what could
otherwise end as a model that is half random: a missing shard, a missing tensor, a foreign architecture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from .configuration import LoopLlamaConfig

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
MODEL_TYPES = ("llama", "loop_llama")
_JSON_LIMIT = 64 * 2**20
# Buffers that old exports stored beside the weights; transformers recomputes them.
_DERIVED = re.compile(r"(^|\.)rotary_emb\.inv_freq$")
_LAYER = re.compile(r"^model\.layers\.(\d+)\.")
LLAMAS = "a checkpoint of the Llama architecture, for example SmolLM2, TinyLlama, Llama 2 or Llama 3"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message names what is wrong with which value, and what to do."""


@dataclass(frozen=True)
class Inspection:
    """What the metadata of a checkpoint says.

    Args:
        path: the folder, or the GGUF file.
        config: its configuration, a `LlamaConfig` or (stored loops) a `LoopLlamaConfig`.
        n_weights: numbers in all its tensors, a tied head counted once.
        largest: numbers in its largest tensor.
        stored: how the numbers are stored, for people to read ("F32", "Q4_1", ...).
    """

    path: Path
    config: LlamaConfig
    n_weights: int
    largest: int
    stored: str


def inspect_folder(folder: Path) -> Inspection:
    """Check a folder of config.json and safetensors.

    Raises:
        CheckpointError: not a Llama, quantised, only pickles, a file or shard missing or damaged, tensors missing,
            unexpected or of another shape than the configuration says.
    """
    config = read_config(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: set[str] = set()
    for file in weight_files(folder):
        for name, (shape, dtype) in _header(file).items():
            shapes[name] = shape
            dtypes.add(dtype)
    strange = sorted(dtypes - FLOAT_DTYPES)
    if strange:
        raise CheckpointError(
            f"dtype={strange[0]!r} in {folder}: only float weights ({', '.join(sorted(FLOAT_DTYPES))}) are read from "
            "safetensors; take the unquantised checkpoint, or a GGUF file of it"
        )
    check_tensors(shapes, config, folder)
    sizes = [_numel(shape) for name, shape in shapes.items() if not _DERIVED.search(name)]
    return Inspection(folder, config, sum(sizes), max(sizes), "/".join(sorted(dtypes)))


def read_config(folder: Path) -> LlamaConfig:
    """The configuration in `folder`, once its `model_type` is known to be a Llama's. Code it names is ignored.

    Raises:
        CheckpointError: no config.json, not JSON, another architecture, quantised weights, values Llama refuses.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder}: there is no config.json; give the folder that holds it, or a .gguf file")
    raw = read_json(file)
    model_type = raw.get("model_type")
    if model_type not in MODEL_TYPES:
        raise CheckpointError(
            f"model_type={model_type!r} in {file}: must be one of {', '.join(map(repr, MODEL_TYPES))}; choose {LLAMAS}"
        )
    if raw.get("quantization_config"):
        raise CheckpointError(
            f"quantization_config in {file}: quantised safetensors are not read; take the unquantised checkpoint, or a "
            "GGUF file of it"
        )
    # `auto_map` points to Python files beside the weights: never run, so never kept either.
    raw = {key: value for key, value in raw.items() if key != "auto_map"}
    kind = LoopLlamaConfig if model_type == "loop_llama" else LlamaConfig
    try:
        return kind.from_dict(raw)
    except Exception as error:  # whatever the strict dataclass raises, it is about this file
        raise CheckpointError(f"{file}: not a Llama configuration: {error}") from error


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from `file`.

    Raises:
        CheckpointError: unreadable, too large, not JSON, not an object.
    """
    try:
        if file.stat().st_size > _JSON_LIMIT:
            raise CheckpointError(f"{file}: larger than {_JSON_LIMIT >> 20} MiB, which no such file is; fetch it again")
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: expected a JSON object, found {type(value).__name__}; fetch it again")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the checkpoint in `folder`.

    Raises:
        CheckpointError: there are none, only pickles, or the index names a shard that is not there.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise CheckpointError(_no_weights(folder))
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"weight_map in {folder / INDEX}: must name a file for each tensor; fetch the file again")
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"weight_map in {folder / INDEX}: {name!r} is not the plain name of a .safetensors file beside it; "
                "do not use this checkpoint"
            )
    absent = [name for name in shards if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{folder}: {len(absent)} of {len(shards)} shards are missing, the first is {absent[0]}; fetch them again"
        )
    return [folder / name for name in shards]


def _no_weights(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return (
            f"{folder}: has {pickles[0]} but no {SINGLE}; a pickle can run any code when it is opened, so it is never "
            "read. Take a checkpoint with safetensors or a GGUF file"
        )
    loose = [name for name in names if name.endswith(".safetensors")]
    if loose:
        return f"{folder}: has {loose[0]} but neither {SINGLE} nor {INDEX}; fetch the missing file"
    return f"{folder}: has no weights ({SINGLE}, or {INDEX} and its shards); fetch them"


def _header(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each tensor; safetensors also checks that the file is as long as its header says."""
    try:
        with safe_open(str(file), framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not a mapping
            return {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged or not finished ({error}); fetch it again") from error


def check_tensors(found: Mapping[str, tuple[int, ...]], config: LlamaConfig, where: Path) -> None:
    """Refuse a checkpoint whose tensors are not exactly the ones its configuration asks for.

    Args:
        found: shape of each stored tensor, by transformers' name.
        config: the stored configuration.
        where: the checkpoint, for the message.

    Raises:
        CheckpointError: naming the first tensor that is missing, unexpected, or of another shape.
    """
    found = {name: shape for name, shape in found.items() if not _DERIVED.search(name)}
    # Before a model of that depth is built: a damaged config.json may ask for any.
    layers = 1 + max((int(m.group(1)) for name in found if (m := _LAYER.match(name))), default=-1)
    if layers != config.num_hidden_layers:
        raise CheckpointError(
            f"num_hidden_layers={config.num_hidden_layers} in {where}, but the weights have {layers} layers; "
            "configuration and weights belong to different checkpoints, or weights are missing: fetch them again"
        )
    expected = expected_tensors(config)
    optional = {"lm_head.weight"} if config.tie_word_embeddings else set()
    missing = sorted(expected.keys() - found.keys() - optional)
    unexpected = sorted(found.keys() - expected.keys())
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            raise CheckpointError(
                f"{where}: {len(names)} tensors are {what}, the first is {names[0]}; it is not a whole Llama "
                "checkpoint: fetch it again, or choose another"
            )
    for name, shape in found.items():
        if tuple(shape) != expected[name]:
            raise CheckpointError(
                f"{name} in {where}: has shape {tuple(shape)}, the configuration asks for {expected[name]}; "
                "configuration and weights belong to different checkpoints"
            )


def expected_tensors(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in the state dict of a model of `config`, by name. Builds it without memory."""
    if isinstance(config, LoopLlamaConfig):
        from .modeling import LoopLlamaForCausalLM as Model
    else:
        Model = LlamaForCausalLM
    try:
        with torch.device("meta"):
            model = Model(config)
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise CheckpointError(f"config.json: no Llama can be built of it: {error}") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_tokenizer(vocabulary: Mapping[str, int], config: LlamaConfig, where: Path) -> None:
    """Refuse a tokenizer that could ask for rows the embedding does not have, or that lacks the model's own marks.

    Raises:
        CheckpointError: an id outside the embedding; `bos_token_id` or `eos_token_id` unknown to the tokenizer.
    """
    if not vocabulary:
        raise CheckpointError(f"{where}: the tokenizer has no tokens; fetch the tokenizer's files again")
    ids = set(vocabulary.values())
    rows, largest = config.vocab_size, max(ids)
    if largest >= rows:
        token = next(token for token, number in vocabulary.items() if number == largest)
        raise CheckpointError(
            f"{where}: the tokenizer's token {token!r} has id {largest}, but the embedding has {rows} rows "
            f"(0..{rows - 1}); the tokenizer belongs to another checkpoint: use the one published with these weights"
        )
    for field in ("bos_token_id", "eos_token_id"):
        for number in _as_list(getattr(config, field, None)):
            if number not in ids:
                raise CheckpointError(
                    f"{field}={number} in {where}: the tokenizer has no token of that id; the tokenizer belongs to "
                    "another checkpoint: use the one published with these weights"
                )


def check_memory(need: int, name: str, dtype: torch.dtype, available: int) -> None:
    """Refuse to start loading what does not fit.

    Args:
        need: bytes the load needs at its peak.
        name: the checkpoint, for the message.
        dtype: dtype it is to be loaded in.
        available: bytes there are.

    Raises:
        CheckpointError: `need > available`.
    """
    if need > available:
        smaller = "" if dtype.itemsize <= 2 else ", dtype=torch.bfloat16"
        raise CheckpointError(
            f"dtype={dtype}: {name} needs about {need / 1e9:.2f} GB of memory and {available / 1e9:.2f} GB are free; "
            f"choose a smaller checkpoint{smaller}, or close other programs"
        )


def available_memory() -> int:
    """Bytes that can be used now without swapping: the machine's, or what is left of the container's limit."""
    free = psutil.virtual_memory().available
    limits = (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    )
    for limit, used in limits:
        try:
            left = int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):  # no such controller, or "max": no limit
            continue
        free = min(free, max(left, 0))
    return free


def _as_list(value: Any) -> Iterable[int]:
    if value is None:
        return []
    return value if isinstance(value, (list, tuple)) else [value]


def _numel(shape: Iterable[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
