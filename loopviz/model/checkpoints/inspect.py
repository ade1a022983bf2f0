"""What is in a checkpoint, read without reading its weights: is it a Llama, is it whole, does it fit in memory.

Everything here looks at metadata only (JSON files, safetensors headers, GGUF headers) and refuses, by name, what could
otherwise end as a model that is half random: a missing shard, a missing tensor, a foreign architecture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from loopviz.checkpoint_rules import Reason
from loopviz.checks import finite
from loopviz.loop_fields import MODEL_FIELDS
from loopviz.model.configuration import LoopLlamaConfig
from loopviz.model.exit_gate import GATE_FILE
from loopviz.model.families import MODEL_TYPES as MODEL_TYPES
from loopviz.model.families import PLAIN, REFUSED
from loopviz.model.families.family import Family, family_note
from loopviz.model.families.reading import check_sources, family_config, family_of, is_mapped, weights_of

from .errors import CheckpointError, CheckpointRuleError, Note, cause, reading
from .json_files import SMALL_JSON, read_json
from .keys import CONFIG_KEYS, check_keys, shown
from .limits import CheckpointLimits, count_weights
from .packed_folder import ADVICE, Packing, Stored, check_packed, packing_of, unpacked
from .packed_folder import KEY as PACKING

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FLOAT_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # and bytes of a number
HEADER_LIMIT = 16 * 2**20  # bytes of a safetensors file's header, which is read at once
HELD = 4  # bytes of a number in float32, as a server holds models
# Buffers that old exports stored beside the weights; transformers recomputes them.
_DERIVED = re.compile(r"(^|\.)rotary_emb\.inv_freq$")
_LAYER = re.compile(r"^model\.layers\.(\d+)\.")
ARCHITECTURES = ("LlamaForCausalLM", "LLaMAForCausalLM", "LoopLlamaForCausalLM")
ROPES = ("default", *(name for name in ROPE_INIT_FUNCTIONS if name != "proportional"))
_ROPE_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_ROPE_KEYS = {
    "default": {"factor", "original_max_position_embeddings"},
    "linear": {"factor", "original_max_position_embeddings"},
    "dynamic": {"factor", "original_max_position_embeddings"},
    "yarn": {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale"),
        *("mscale_all_dim", "truncate", "finetuned"),
    },
    "longrope": {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"},
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}
LLAMAS = Reason("a checkpoint of the Llama architecture, for example SmolLM2, TinyLlama, Llama 2 or Llama 3")
# Why tensors are unexpected.
NO_BIASES = (
    "the weights have biases the configuration does not speak of: if they are this model's, its config.json must say "
    '"attention_bias": true (q, k, v, o) or "mlp_bias": true'
)
NO_LLAMAS = (
    f"the files are whole, but a Llama has no such tensors, and left out they would change the numbers: choose {LLAMAS}"
)


@dataclass(frozen=True)
class Inspection:
    """What the metadata of a checkpoint says.

    Args:
        path: the folder, or the GGUF file.
        config: its configuration, a `LlamaConfig` or (stored loops) a `LoopLlamaConfig`.
        n_weights: numbers in all its tensors, a tied head counted once.
        largest: numbers in its largest tensor.
        stored: how the numbers are stored, for people to read ("F32", "Q4_1", ...).
        notes: what is to be said of it although it loads.
        family: of published models; Llama itself where nothing is renamed.
        n_bytes: of its tensors as they are stored, a tied head counted once.
        gate: whether an exit gate that was trained afterwards stands beside its weights, in a file of its own.
        packing: how bitsandbytes has packed its layers, if it has; then
        packed_bytes: of `n_bytes`, and `n_packed` of `n_weights` are of what is packed.
    """

    path: Path
    config: LlamaConfig
    n_weights: int
    largest: int
    stored: str
    notes: list[Note] = field(default_factory=list)
    family: Family = PLAIN
    n_bytes: int = 0
    gate: bool = False
    packing: Packing | None = None
    packed_bytes: int = 0
    n_packed: int = 0


def inspect_folder(folder: Path, limits: CheckpointLimits | None = None) -> Inspection:
    """Check a folder of config.json and safetensors.

    Args:
        folder: holds them.
        limits: what it may have.

    Raises:
        CheckpointError: not a Llama, quantised, only pickles, a file or shard missing or damaged, tensors missing,
            unexpected or of another shape than the configuration says, metadata a Llama here cannot realise.
    """
    with reading(folder):
        notes: list[Note] = []
        config = read_config(folder, notes, limits)
        generation = folder / "generation_config.json"
        if generation.is_file():
            read_json(generation, SMALL_JSON)  # transformers reads it later, whatever its length
        raw = read_json(folder / "config.json", SMALL_JSON)
        packing = packing_of(raw, folder / "config.json")
        stored = _stored(folder, packing)
        shapes = {name: tensor.shape for name, tensor in stored.items()}
        dtypes = {name: tensor.dtype for name, tensor in stored.items()}
        family = family_of(raw, shapes) or PLAIN
        if is_mapped(family):
            notes.clear()  # said once more, now that its tensors tell which of several it is
            config = read_config(folder, notes, limits, family)
            assert isinstance(config, LoopLlamaConfig)
            check_sources(
                family, config, {name: shape for name, shape in shapes.items() if not _DERIVED.search(name)}, folder
            )
            shapes = weights_of(family, config, shapes)
        else:
            check_tensors(shapes, config, folder)
            if packing is not None:
                check_packed(packing, stored, getattr(config, "qk_norm", "none"), folder)
        sizes = {name: math.prod(shape) for name, shape in shapes.items() if not _DERIVED.search(name)}
        packed = [name for name in sizes if dtypes[name] not in FLOAT_DTYPES]
        packed_bytes = sum(stored[name].n_bytes for name in packed)
        n_bytes = packed_bytes + sum(n * FLOAT_DTYPES[dtypes[name]] for name, n in sizes.items() if name not in packed)
        return Inspection(
            folder,
            config,
            sum(sizes.values()),
            max(sizes.values()),
            "/".join(sorted({dtypes[name] for name in sizes})),
            notes,
            family,
            n_bytes,
            _has_gate(folder, config),
            packing,
            packed_bytes,
            sum(sizes[name] for name in packed),
        )


def _stored(folder: Path, packing: Packing | None) -> dict[str, Stored]:
    """The tensors of a folder's files, by name; packed ones as what they stand for.

    Raises:
        CheckpointError: one is in two files, or holds no floats; parts of a packed one do not belong together.
    """
    found: dict[str, Stored] = {}
    files: dict[str, Path] = {}
    for file in weight_files(folder):
        for name, (shape, dtype) in tensor_shapes(file).items():
            if name in found:
                raise CheckpointRuleError("two_shards", name=name, folder=folder)
            itemsize = FLOAT_DTYPES.get(dtype, 1)
            found[name], files[name] = Stored(shape, dtype, math.prod(shape) * itemsize), file

    def read(name: str) -> torch.Tensor:
        with safe_open(str(files[name]), framework="pt") as tensors:
            return tensors.get_tensor(name)

    known = {*FLOAT_DTYPES}
    if packing is not None:
        found, known = unpacked(packing, found, read, folder), known | {packing.kind.upper()}
    if strange := sorted({tensor.dtype for tensor in found.values()} - known):
        known_dtypes = ", ".join(sorted(FLOAT_DTYPES))
        raise CheckpointRuleError("no_floats", value=repr(strange[0]), folder=folder, known=known_dtypes)
    return found


def _has_gate(folder: Path, config: LlamaConfig) -> bool:
    """Whether a gate that was trained afterwards stands beside the weights of a model with one looped block.

    Raises:
        CheckpointError: it is for another model.
    """
    file = folder / GATE_FILE
    if not isinstance(config, LoopLlamaConfig) or len(config.loop_blocks()) != 1 or not file.is_file():
        return False
    wanted = {"weight": (1, config.hidden_size), "bias": (1,)}
    found = {name: shape for name, (shape, _) in tensor_shapes(file).items()}
    if found != wanted:
        raise CheckpointRuleError("gate_other", file=file, found=found, wanted=wanted)
    return True


def read_config(
    folder: Path, notes: list[Note] | None = None, limits: CheckpointLimits | None = None, family: Family | None = None
) -> LlamaConfig:
    """The configuration in `folder`, once its family is known. Code it names is ignored.

    Args:
        folder: holds config.json.
        notes: what is dropped from the configuration is said here.
        limits: what it may say; of the weights, what they will take in float32.
        family: of those of its model type, where its tensors have told; `None`: the one without a mark.

    Raises:
        CheckpointError: no config.json, not JSON, another architecture, quantised weights, values Llama refuses, a key
            of `CONFIG_KEYS` that is refused.
    """
    notes = [] if notes is None else notes
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointRuleError("config_absent", folder=folder)
    raw = read_json(file, SMALL_JSON)
    model_type = raw.get("model_type")
    if isinstance(model_type, str) and model_type in REFUSED:
        place, why = f"{folder.name}/config.json", Reason(REFUSED[model_type])
        raise CheckpointRuleError("kind_refused", value=repr(model_type), file=place, why=why, llamas=LLAMAS)
    family = family or family_of(raw)
    if family is None:
        known = ", ".join(map(repr, MODEL_TYPES))
        raise CheckpointRuleError("kind_unknown", value=shown(model_type), file=file, known=known, llamas=LLAMAS)
    if limits is not None and not is_mapped(family):
        limits.check_counts(raw.get("num_hidden_layers"), raw.get("vocab_size"))
    own = {
        name for name in MODEL_FIELDS if model_type == LoopLlamaConfig.model_type
    }  # of stock Llamas they are refused
    if packing_of(raw, file) is not None:
        if is_mapped(family):
            packed = shown(raw[PACKING])
            raise CheckpointRuleError("packed", field=PACKING, value=packed, file=file, advice=Reason(ADVICE))
        own |= {PACKING}
    check_keys((*family.keys, *CONFIG_KEYS), {name: value for name, value in raw.items() if name not in own}, file)
    if not is_mapped(family):
        _check_architectures(raw, file)
    _check_rope(raw, file)
    check_window(raw.get("sliding_window"), raw.get("max_position_embeddings", 2048), "sliding_window", file,
                  used=raw.get("use_sliding_window") is not False)  # fmt: skip
    for kind in raw.get("layer_types") or []:
        if kind != "full_attention":
            raise CheckpointRuleError("layer_types", value=shown(kind), file=file)
    if "hidden_act" in raw and raw["hidden_act"] not in ACT2FN:
        raise CheckpointRuleError("hidden_act", value=shown(raw["hidden_act"]), file=file)
    # `auto_map` points to Python files beside the weights: never run, so never kept either.
    if raw.pop("auto_map", None):
        notes.append(Note("code_ignored", f"auto_map in {file}: code that comes with a checkpoint is never run"))
    if is_mapped(family):
        return _mapped_config(family, raw, file, notes, limits)
    drop_ids(raw, raw.get("vocab_size", 32000), file, notes)
    kind = LoopLlamaConfig if model_type == "loop_llama" else LlamaConfig
    try:
        config = kind.from_dict(raw)
    except Exception as error:  # whatever the strict dataclass raises, it is about this file
        raise CheckpointRuleError("no_llama_config", file=file, said=cause(error)) from error
    if limits is not None:
        limits.check_weights(count_weights(config), HELD, available_memory())
    return config


def _mapped_config(
    family: Family, raw: dict[str, Any], file: Path, notes: list[Note], limits: CheckpointLimits | None
) -> LoopLlamaConfig:
    """The configuration of a published model whose keys have been checked, within the limits."""
    config = family_config(family, raw, file, notes)
    if limits is not None:
        limits.check_counts(config.num_hidden_layers, config.vocab_size)
        limits.check_weights(count_weights(config), HELD, available_memory())
    ids = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    drop_ids(ids, config.vocab_size, file, notes)
    for name, value in ids.items():
        setattr(config, name, value)
    notes.insert(0, family_note(family, config))
    return config


def drop_ids(raw: dict[str, Any], rows: Any, where: Path, notes: list[Note]) -> None:
    """Drop bos, eos and pad ids that no row of the embedding belongs to: the model can neither be given nor say them.

    Args:
        raw: the configuration; changed in place.
        rows: of the embedding.
        where: for the message.
        notes: what is dropped is said here.

    Raises:
        CheckpointError: an id that is not a whole number.
    """
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        given = as_ids(raw.get(name), name, where)
        kept = [number for number in given if not isinstance(rows, int) or 0 <= number < rows]
        if kept == given:
            continue
        gone = sorted(set(given) - set(kept))
        notes.append(
            Note(
                f"{name}_dropped",
                f"{name}={', '.join(map(str, gone))} in {where}: the embedding has {rows} rows (0..{rows - 1}), so the "
                "model has no such token; it is left out",
                {"field": name, "ids": gone, "rows": rows},
            )
        )
        raw[name] = None if not kept else kept if isinstance(raw[name], list) else kept[0]


def as_ids(value: Any, name: str, where: Path) -> list[int]:
    """A token id, a list of them, or None, as a list.

    Raises:
        CheckpointError: anything else.
    """
    values = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int):
            raise CheckpointRuleError("ids", field=name, value=shown(value), file=where)
    return values


def _check_architectures(raw: Mapping[str, Any], file: Path) -> None:
    names = raw.get("architectures")
    if names and not (isinstance(names, list) and any(name in ARCHITECTURES for name in names)):
        known = ", ".join(ARCHITECTURES)
        raise CheckpointRuleError("architectures", value=shown(names), file=file, known=known, llamas=LLAMAS)


def _check_rope(raw: Mapping[str, Any], file: Path) -> None:
    """Refuse a rule of the rotary frequencies that transformers' Llama does not know or would read in part."""
    old, new = raw.get("rope_scaling"), raw.get("rope_parameters")
    for name, rope in (("rope_scaling", old), ("rope_parameters", new)):
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise CheckpointRuleError("rope_object", field=name, value=shown(rope), file=file)
        kinds = [rope[key] for key in ("rope_type", "type") if key in rope]
        if len({str(kind) for kind in kinds}) > 1:
            raise CheckpointRuleError("rope_two_kinds", field=name, value=shown(rope), file=file)
        kind = kinds[0] if kinds else "default"
        if kind not in ROPES:
            known = ", ".join(map(repr, ROPES))
            raise CheckpointRuleError("rope_kind", field=name, value=shown(kind), file=file, known=known)
        if not kinds and set(rope) - {"rope_theta"}:
            raise CheckpointRuleError("rope_no_kind", field=name, value=shown(rope), file=file)
        if strange := sorted(set(rope) - _ROPE_KEYS[kind] - _ROPE_COMMON):
            value, said = shown(rope[strange[0]]), repr(kind)
            raise CheckpointRuleError("rope_key", field=name, key=strange[0], value=value, file=file, kind=said)
        if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
            value = shown(rope["partial_rotary_factor"])
            raise CheckpointRuleError("rope_partial", field=name, value=value, file=file)
        if kind == "default" and rope.get("factor") not in (None, 1, 1.0):
            raise CheckpointRuleError("rope_factor", field=name, value=shown(rope["factor"]), file=file)
        _check_rope_numbers(rope, name, file)
    _check_rope_numbers({"rope_theta": raw.get("rope_theta")}, "rope_theta", file)
    if old and new and {**old, "rope_type": None, "type": None} != {**new, "rope_type": None, "type": None}:
        raise CheckpointRuleError("rope_both", file=file)


def _check_rope_numbers(rope: Mapping[str, Any], name: str, file: Path) -> None:
    for key, value in rope.items():
        if value is None or key in ("rope_type", "type", "truncate", "finetuned"):
            continue
        numbers = value if isinstance(value, list) else [value]
        if not all((finite(number) or 0) > 0 for number in numbers):
            raise CheckpointRuleError("rope_number", field=name, key=key, value=shown(value), file=file)


def check_window(window: Any, context: Any, name: str, where: Path, *, used: bool = True) -> None:
    """Refuse attention that does not reach back over the whole context."""
    if used and window and not (isinstance(window, int) and isinstance(context, int) and window >= context):
        raise CheckpointRuleError("window", field=name, value=shown(window), file=where, context=shown(context))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the checkpoint in `folder`.

    Raises:
        CheckpointError: there are none, only pickles, or the index names a shard that is not there.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise _no_weights(folder)
    weight_map = read_json(folder / INDEX, SMALL_JSON).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointRuleError("weight_map", file=folder / INDEX)
    shards = sorted({str(name) for name in weight_map.values()})
    for name in shards:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointRuleError("shard_name", file=folder / INDEX, name=repr(name))
    absent = [name for name in shards if not (folder / name).is_file()]
    if absent:
        raise CheckpointRuleError("shards_absent", folder=folder, n=len(absent), of=len(shards), name=absent[0])
    return [folder / name for name in shards]


def _no_weights(folder: Path) -> CheckpointRuleError:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles:
        return CheckpointRuleError("pickle", folder=folder, name=pickles[0], single=SINGLE)
    loose = [name for name in names if name.endswith(".safetensors")]
    if loose:
        return CheckpointRuleError("loose_shard", folder=folder, name=loose[0], single=SINGLE, index=INDEX)
    return CheckpointRuleError("no_weights", folder=folder, single=SINGLE, index=INDEX)


def tensor_shapes(file: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each tensor; safetensors also checks that the file is as long as its header says."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        if HEADER_LIMIT < length <= file.stat().st_size:  # a longer one is damaged, and told so below
            raise CheckpointRuleError("header_long", file=file, n=f"{length:,}")
        with safe_open(str(file), framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not a mapping
            return {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointRuleError("not_opened", file=file, said=cause(error)) from error
    except Exception as error:
        raise CheckpointRuleError("damaged", file=file, said=cause(error)) from error


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
        raise CheckpointRuleError("layers_other", layers=config.num_hidden_layers, folder=where, n=layers)
    expected = expected_tensors(config)
    optional = {"lm_head.weight"} if config.tie_word_embeddings else set()
    missing = sorted(expected.keys() - found.keys() - optional)
    unexpected = sorted(found.keys() - expected.keys())
    if missing:
        raise CheckpointRuleError("tensors_missing", folder=where, n=len(missing), name=missing[0])
    if unexpected:
        why, n = Reason(_why_unexpected(unexpected)), len(unexpected)
        raise CheckpointRuleError("tensors_unexpected", folder=where, n=n, name=unexpected[0], why=why)
    for name, shape in found.items():
        if tuple(shape) != expected[name]:
            wanted = expected[name]
            raise CheckpointRuleError("tensor_shape", name=name, folder=where, found=tuple(shape), wanted=wanted)


def _why_unexpected(names: Iterable[str]) -> str:
    return NO_BIASES if all(name.endswith(".bias") for name in names) else NO_LLAMAS


def expected_tensors(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in the state dict of a model of `config`, by name. Builds it without memory."""
    of_it = LlamaForCausalLM
    if isinstance(config, LoopLlamaConfig):
        from loopviz.model.modeling import LoopLlamaForCausalLM

        of_it = LoopLlamaForCausalLM
    try:
        with torch.device("meta"):
            model = of_it(config)
    except Exception as error:  # whatever it is, it is about the configuration
        raise CheckpointRuleError("no_llama_built", said=cause(error)) from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check_tokenizer(
    vocabulary: Mapping[str, int], added: Collection[int], config: LlamaConfig, where: Path, notes: list[Note]
) -> None:
    """Refuse a tokenizer that could ask for rows the embedding does not have, or that lacks the model's own marks.

    A mark added to the tokenizer and never to the embedding ([PAD], usually) is only said: no ordinary text holds it, and
    a text that does is refused (`tokenizer.BoundedTokenizer`).

    Args:
        vocabulary: id of each token.
        added: ids of the tokens that ordinary text is never cut into: marks and own words beside the vocabulary.
        config: of the model.
        where: the checkpoint, for messages.
        notes: tokens without a row are said here.

    Raises:
        CheckpointError: an ordinary token's id outside the embedding; `bos_token_id` or `eos_token_id` unknown to the
            tokenizer.
    """
    if not vocabulary:
        raise CheckpointError(f"{where}: the tokenizer has no tokens; fetch the tokenizer's files again")
    ids, rows = set(vocabulary.values()), config.vocab_size
    outside = {token: number for token, number in vocabulary.items() if number >= rows}
    ordinary = {token: number for token, number in outside.items() if number not in added}
    if ordinary:
        token = max(ordinary, key=ordinary.__getitem__)
        raise CheckpointError(
            f"{where}: the tokenizer's token {token!r} has id {ordinary[token]}, but the embedding has {rows} rows "
            f"(0..{rows - 1}); {len(ordinary)} tokens that ordinary text is cut into have no row, so tokenizer and "
            "weights are of two checkpoints: use the tokenizer published with these weights"
        )
    if outside:
        names = ", ".join(f"{shown(token)} ({number})" for token, number in list(outside.items())[:5])
        notes.append(
            Note(
                "tokens_without_row",
                f"tokens of the tokenizer without a row in the embedding of {rows}: {names}"
                f"{' and others' if len(outside) > 5 else ''}. A text that holds one is refused",
                {"tokens": outside, "rows": rows},
            )
        )
    for field_name in ("bos_token_id", "eos_token_id"):
        for number in as_ids(getattr(config, field_name, None), field_name, where):
            if number not in ids:
                raise CheckpointError(
                    f"{field_name}={number} in {where}: the embedding has such a row, but the tokenizer (ids up to "
                    f"{max(ids)}) has no token of that id: either it is not the tokenizer of these weights, or the "
                    f"configuration names a wrong mark; correct {field_name}, or use the tokenizer published with them"
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
        smaller = "" if dtype.itemsize == 2 else Reason(", dtype=torch.bfloat16")
        sizes = {"need": f"{need / 1e9:.2f}", "free": f"{available / 1e9:.2f}"}
        raise CheckpointRuleError("memory", dtype=dtype, name=name, **sizes, smaller=smaller)


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
