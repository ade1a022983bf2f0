"""Load any Llama checkpoint as a LoopLlama, with its tokenizer.

    loaded = load_checkpoint("smollm2-135m-instruct", loop_layers=(10, 14), loop_count=4)
    loaded.model, loaded.tokenizer

safetensors and GGUF only: never a pickle, never code that comes with a checkpoint. What cannot be loaded whole is
refused before its weights are read.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loopviz.loop_fields import MODEL_FIELDS
from loopviz.model.block import LoopBlock
from loopviz.model.configuration import LOOP_FIELDS, LoopLlamaConfig
from loopviz.model.exit_gate import GATE_FILE, read_gate
from loopviz.model.families.reading import is_mapped, read_family
from loopviz.model.modeling import LoopLlamaForCausalLM
from loopviz.model.precision import PrecisionError, quantise

from . import inspect
from .adapter import Adapter, base_of, check_adapter, is_adapter, need_peft, put_on, read_adapter
from .apart_tokenizer import ApartTokenizer, TokenizerLimits
from .errors import CheckpointError, CheckpointRuleError, Note, cause, reading
from .find import FREE, KNOWN, NAMED, STAGES, KnownModel, Located, Progress, Terms, cache_dir, locate
from .gguf import inspect_gguf, load_gguf
from .gguf_tokenizer import load_gguf_tokenizer
from .inspect import Inspection, as_ids, check_memory, check_tokenizer, inspect_folder, weight_files
from .limits import SPARE, CheckpointLimits, CheckpointTooLarge
from .packing import check_quantization, kind_of, packed, quantization_note
from .precision_choice import choose
from .quiet import ONE_READER, quiet_transformers
from .smollm2_wheel import gguf_peak
from .tokenizer import load_folder_tokenizer, within_rows

__all__ = [
    "STAGES",
    "ApartTokenizer",
    "CheckpointError",
    "CheckpointLimits",
    "CheckpointTooLarge",
    "KnownModel",
    "LoadedCheckpoint",
    "Note",
    "PreparedCheckpoint",
    "Terms",
    "TokenizerLimits",
    "as_loop_llama",
    "cache_dir",
    "known_models",
    "load_checkpoint",
    "load_model",
    "prepare_checkpoint",
    "to_loop_config",
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
HELD_IN = (*DTYPES, torch.int8)  # int8: weights of the layers, all else float32
# Said by a configuration about where it came from, and not about the model.
_PROVENANCE = (
    "model_type",
    "architectures",
    "transformers_version",
    "auto_map",
    "_name_or_path",
    "quantization_config",
)


UNTRAINED = "untrained_loop_weights"  # the code of a note: what is run was never trained
# Loop fields that bring weights of their own, and when a block has them.
LOOP_WEIGHTS: dict[str, Callable[[LoopBlock], bool]] = {
    "loop_injection": lambda block: block.injection == "linear",
    "loop_norm": lambda block: block.norm,
    "exit_selection": lambda block: block.exit_selection != "last",
}


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint, ready to run.

    Args:
        model: in eval mode, on the CPU.
        tokenizer: with the chat template, if the checkpoint has one.
        name: what was asked for.
        source: where the weights came from, for people to read ("Hugging Face Hub, ...", "local folder", ...).
        path: folder or GGUF file they were read from.
        stored: dtype or quantisation they are stored in ("F32", "BF16", "Q4_1/Q8_0", ...).
        license: SPDX identifier, when it is known.
        notes: what is to be said of it although it loads: marks left out, code not run, tokens without a row.
    """

    model: LoopLlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    path: Path
    stored: str
    license: str | None = None
    notes: tuple[Note, ...] = ()


def known_models() -> Mapping[str, KnownModel]:
    """The models to loop that `load_checkpoint` knows by a short name."""
    return MappingProxyType(KNOWN)


def load_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    precision: str | None = None,
    quantization: str | None = None,
    progress: Progress | None = None,
    allow_paths: bool = True,
    adapter: str | os.PathLike[str] | None = None,
    **loop_fields: Any,
) -> LoadedCheckpoint:
    """Load a checkpoint of the Llama architecture, or of a published looped family (`loopviz.model.families`), as a LoopLlama.

    Args:
        name_or_path: a name of `known_models()`, a folder with safetensors, a .gguf file, a Hub id (`owner/name`), a
            GGUF file on the Hub (`owner/name/file.gguf`), or the folder of a LoRA adapter, which says what it belongs on.
        dtype: of the parameters, a floating one; or int8, in which the layers' weights are then held (:mod:`loopviz.model.precision`).
        precision: instead of a dtype: `exact`, `half`, `int8` or `auto`, as :func:`.precision_choice.choose` decides on this machine;
            what it decides is a note.
        quantization: `nf4` or `int8`: the layers' weights are packed by bitsandbytes (:mod:`loopviz.model.quantization`), and an adapter
            lies on top of them; the dtype is that of all else, and what is computed in.
        progress: called with a stage of `STAGES` and its share done (0 to 1, or None), possibly from another thread.
        allow_paths: False refuses files and folders of this machine, for names that strangers type.
        adapter: folder of a LoRA adapter that is put on it (:mod:`.adapter`); the loop is then the one it was taught.
        **loop_fields: fields of `LoopLlamaConfig` (`loop_layers=(10, 14), loop_count=4, ...`). What is not given comes
            from the adapter or the checkpoint if it stores it, else from the defaults: a plain Llama.

    Raises:
        CheckpointError: the checkpoint is unknown, not a Llama, incomplete, damaged, only a pickle, too large for this
            machine's memory, says what a Llama here does not compute, or its tokenizer is missing or does not fit.
            Whatever else its files bring up, too.
        ValueError: a loop field is unknown or breaks its rule; both a dtype and a precision, or a quantization and a precision.
    """
    prepared = prepare_checkpoint(
        name_or_path,
        dtype=dtype,
        precision=precision,
        quantization=quantization,
        progress=progress,
        allow_paths=allow_paths,
        adapter=adapter,
        **loop_fields,
    )
    return prepared.load()


def load_model(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    precision: str | None = None,
    quantization: str | None = None,
    progress: Progress | None = None,
    allow_paths: bool = True,
    adapter: str | os.PathLike[str] | None = None,
    **loop_fields: Any,
) -> LoopLlamaForCausalLM:
    """As :func:`load_checkpoint`, the model alone, in eval mode: no tokenizer is asked for, so none need be there.

    Raises:
        As :func:`load_checkpoint`, but for tokenizers.
    """
    tell = _Teller(progress)
    asked = _look_into(name_or_path, dtype, tell, allow_paths, FREE, loop_fields, adapter, precision, quantization)
    return asked.load_model()


def prepare_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    precision: str | None = None,
    quantization: str | None = None,
    progress: Progress | None = None,
    allow_paths: bool = True,
    terms: Terms = FREE,
    apart: TokenizerLimits | None = None,
    adapter: str | os.PathLike[str] | None = None,
    **loop_fields: Any,
) -> PreparedCheckpoint:
    """As :func:`load_checkpoint`, all but the weights: brought here, looked through, its tokenizer read.

    Args:
        terms: what may be fetched, and how.
        apart: its tokenizer and templates run in a process of their own, with these limits; None: here.
        adapter, precision, quantization: as :func:`load_checkpoint`.

    Raises:
        As :func:`load_checkpoint`, but for memory; `CheckpointTooLarge` beyond the limits of `terms`.
        WorkerEnded: nobody waits for it any more.
    """
    tell = _Teller(progress)
    prepared = _look_into(name_or_path, dtype, tell, allow_paths, terms, loop_fields, adapter, precision, quantization)
    located, found = prepared.located, prepared.found
    is_gguf = located.path.is_file()
    with tell.passing_through(), reading(located.path), quiet_transformers():
        tell("tokenizer", None)
        rows = found.config.vocab_size
        if apart is not None:
            tokenizer = ApartTokenizer(located.path, is_gguf, rows, apart, found.notes)
        else:
            tokenizer = (load_gguf_tokenizer if is_gguf else load_folder_tokenizer)(located.path, found.notes)
        added = set(tokenizer.added_tokens_decoder)
        check_tokenizer(tokenizer.get_vocab(), added, found.config, located.path, found.notes)
        if apart is None:
            tokenizer = within_rows(tokenizer, rows)
    return replace(prepared, tokenizer=tokenizer)


def _look_into(
    name_or_path: str | os.PathLike[str],
    dtype: torch.dtype,
    tell: _Teller,
    allow_paths: bool,
    terms: Terms,
    loop_fields: Mapping[str, Any],
    adapter: str | os.PathLike[str] | None = None,
    precision: str | None = None,
    quantization: str | None = None,
) -> PreparedCheckpoint:
    """A checkpoint brought here and looked through, its tokenizer and weights not read."""
    if dtype not in HELD_IN:
        raise ValueError(f"dtype={dtype!r}: must be one of {', '.join(map(str, HELD_IN))}")
    if precision is not None and dtype is not torch.float32:
        raise ValueError(
            f"dtype={dtype}, precision={precision!r}: both say what weights are held in; leave one of them out"
        )
    if quantization is not None:
        check_quantization(quantization, dtype, precision)
    _check_field_names(loop_fields)
    name = os.fspath(name_or_path)
    shown_name = name if isinstance(name, str) else repr(name)
    with tell.passing_through(), reading(shown_name), quiet_transformers():
        if adapter is not None:
            worn: Adapter | None = read_adapter(Path(adapter).expanduser())
        else:
            own = allow_paths and name not in NAMED and is_adapter(name)
            worn = read_adapter(Path(name).expanduser()) if own else None
        if worn is not None:
            need_peft(str(worn.path))
        base = base_of(worn) if worn is not None and adapter is None else name
        located = locate(base, tell, allow_paths=allow_paths, terms=terms)
        found = (inspect_gguf if located.path.is_file() else inspect_folder)(located.path, terms.limits)
        stored = to_loop_config(found.config)  # what it raises without fields of the caller's is about the files
        if worn is not None:
            bare, stored = stored, to_loop_config(found.config, **worn.loop)
            check_adapter(worn, bare, stored, base)
            if worn.steps:
                found.notes.append(_steps_note(len(worn.steps)))
            name, loop_fields = os.fspath(worn.path), {**worn.loop, **loop_fields}
            located = replace(located, source=f"adapter on {base} ({located.source})")
    config = to_loop_config(found.config, **loop_fields)
    if precision is not None:
        choice = choose(config, precision)
        dtype = choice.dtype
        found.notes.extend(choice.notes)
    quantization = kind_of(found.packing, quantization, dtype, precision, located.path)
    if quantization is not None:
        found.notes.append(quantization_note(quantization, dtype, located.path.is_file()))
    found.notes.extend(
        note
        for note in _loop_weights_notes(config, stored)
        if not (found.gate and note.code == UNTRAINED and note.values["field"] == "exit_selection")
    )
    return PreparedCheckpoint(name, located, found, config, None, dtype, loop_fields, tell, worn, quantization)


@dataclass(frozen=True)
class PreparedCheckpoint:
    """A checkpoint of which all is known but its weights (:func:`prepare_checkpoint`), without a tokenizer where none is wanted."""

    name: str
    located: Located
    found: Inspection
    config: LoopLlamaConfig
    tokenizer: PreTrainedTokenizerBase | ApartTokenizer | None
    dtype: torch.dtype
    loop_fields: Mapping[str, Any]
    tell: _Teller
    adapter: Adapter | None = None
    quantization: str | None = None

    @property
    def need(self) -> int:
        """Bytes of memory that :meth:`load` needs at its peak."""
        if self.found.packing is not None:  # read as it is held
            floats = (self.found.n_weights - self.found.n_packed) * self._read_in.itemsize
            n_bytes = self.found.packed_bytes + floats
            return n_bytes + n_bytes // SPARE
        smaller = self.dtype is torch.int8 or self.quantization is not None
        itemsize = self._read_in.itemsize + smaller  # read as floats, and then made smaller one by one
        if self.located.path.is_file():
            return gguf_peak(self.found.n_weights, self.found.largest, itemsize)
        n_bytes = self.found.n_weights * itemsize
        return n_bytes + n_bytes // SPARE

    @property
    def _read_in(self) -> torch.dtype:
        return torch.float32 if self.dtype is torch.int8 else self.dtype

    def load_model(self) -> LoopLlamaForCausalLM:
        """Read the weights.

        Raises:
            CheckpointError: they do not fit in memory, or cannot be read after all.
        """
        found, path, name = self.found, self.located.path, self.name
        with self.tell.passing_through(), reading(path), quiet_transformers():
            check_memory(self.need, name, self.dtype, inspect.available_memory())
            self.tell("weights", None)
            if path.is_file():
                model = as_loop_llama(load_gguf(path, found.config, self._read_in), **self.loop_fields)
            else:
                model = _load_folder(found, self.config, self._read_in)
            if self.adapter is not None:
                model = put_on(self.adapter, model, self._packed if self.quantization is not None else None)
            elif self.quantization is not None:
                model = self._packed(model)
            if self.dtype is torch.int8:
                model = _quantised(model, path)
            if self.tokenizer is not None:
                _complete_generation(model, self.tokenizer, found)
        model.config._name_or_path = name  # what was asked for: what it was read from is this machine's business
        self.tell("ready", 1.0)
        return model.eval()

    def _packed(self, model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
        assert self.quantization is not None
        return packed(model, self.quantization, self.located.path)

    def load(self) -> LoadedCheckpoint:
        """Read the weights, for the tokenizer that is there.

        Raises:
            CheckpointError: they do not fit in memory, or cannot be read after all.
        """
        assert self.tokenizer is not None
        model, found, name = self.load_model(), self.found, self.name
        known = NAMED.get(name)
        return LoadedCheckpoint(
            model,
            self.tokenizer,
            name,
            self.located.source,
            self.located.path,
            found.stored,
            known.license if known else None,
            tuple(found.notes),
        )


def _steps_note(count: int) -> Note:
    """That loop steps have a LoRA each, and which steps share one after all."""
    return Note(
        "lora_per_step",
        f"each of its first {count} loop steps has a LoRA of its own; loop steps after these use that of step {count}",
        {"steps": count},
    )


def _loop_weights_notes(config: LoopLlamaConfig, stored: LoopLlamaConfig) -> list[Note]:
    """What is to be said where a loop has weights of its own that were never trained, or leaves trained ones out."""
    wanted, there = (
        {(name, block.index) for block in one.loop_blocks() for name in LOOP_WEIGHTS if LOOP_WEIGHTS[name](block)}
        for one in (config, stored)
    )
    notes = [
        Note(
            UNTRAINED,
            f"{name}: the checkpoint has no weights for it in block {block}; they begin as in a new model and mean "
            "nothing until they are trained",
            {"field": name, "block": block},
        )
        for name, block in sorted(wanted - there)
    ]
    return notes + [
        Note(
            "trained_left_out",
            f"{name}: block {block} was trained with weights for it, which are left out here",
            {"field": name, "block": block},
        )
        for name, block in sorted(there - wanted)
        if stored.loop_blocks() and config.loop_blocks()
    ]


class _Teller:
    """Calls `progress`, and lets what it raises through the border around the files: giving up is not a broken file."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.raised: BaseException | None = None

    def __call__(self, stage: str, share: float | None) -> None:
        if self.progress is None:
            return
        try:
            self.progress(stage, share)
        except BaseException as error:
            self.raised = error
            raise

    @contextmanager
    def passing_through(self) -> Iterator[None]:
        """Outside `reading`: raises what the callback raised, whatever it was made into on the way."""
        try:
            yield
        except CheckpointError:
            if self.raised is not None:
                raise self.raised from None
            raise


def to_loop_config(config: LlamaConfig, **loop_fields: Any) -> LoopLlamaConfig:
    """The configuration of a LoopLlama with the layers of `config` (which may itself be one) and these loop fields.

    Raises:
        ValueError: a loop field is unknown or breaks its rule.
    """
    _check_field_names(loop_fields)
    # What another model's config.json calls as one of ours means nothing here: what it may not say has been refused.
    foreign = () if isinstance(config, LoopLlamaConfig) else MODEL_FIELDS
    values = {key: value for key, value in config.to_dict().items() if key not in _PROVENANCE and key not in foreign}
    loop = LoopLlamaConfig(**{**values, **loop_fields})
    loop.architectures = [LoopLlamaForCausalLM.__name__]
    return loop


def as_loop_llama(llama: LlamaForCausalLM, **loop_fields: Any) -> LoopLlamaForCausalLM:
    """A LoopLlama on the very parameters of `llama`: nothing is copied, and training one trains the other.

    With `loop_layers=None` its outputs equal those of `llama` bit for bit.

    Args:
        llama: a plain Llama.
        **loop_fields: fields of `LoopLlamaConfig`.

    Raises:
        ValueError: `llama` is no `LlamaForCausalLM`; a loop field is unknown or breaks its rule.
    """
    if not isinstance(llama, LlamaForCausalLM) or llama.config.model_type not in inspect.MODEL_TYPES:
        raise ValueError(f"llama={type(llama).__name__}: must be a LlamaForCausalLM; load it with load_checkpoint")
    config = to_loop_config(llama.config, **loop_fields)
    config._attn_implementation = llama.config._attn_implementation
    with torch.device("meta"):
        model = LoopLlamaForCausalLM(config)
    model.load_state_dict(llama.state_dict(keep_vars=True), assign=True, strict=False)
    model.tie_weights()
    for name, buffer in llama.named_buffers():  # not in the state dict: the rotary frequencies
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, buffer)
    # What the loop adds (an injection's matrix, a norm) is not in a plain Llama: it starts as in a new model.
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device=llama.device, recurse=False).to(llama.dtype)
            model._init_weights(module)
    model.generation_config = llama.generation_config
    return model.train(llama.training)


def _check_field_names(loop_fields: Mapping[str, Any]) -> None:
    for name, value in loop_fields.items():
        if name not in LOOP_FIELDS:
            raise ValueError(f"{name}={value!r}: not a loop field; there are {', '.join(LOOP_FIELDS)}")


def _load_folder(found: Inspection, config: LoopLlamaConfig, dtype: torch.dtype) -> LoopLlamaForCausalLM:
    """Weights of a folder `inspect_folder` has passed. Same-dtype weights are mapped, so they load as they are used."""
    try:
        if is_mapped(found.family):
            assert isinstance(found.config, LoopLlamaConfig)
            with ONE_READER:
                model = read_family(found.family, found.config, config, weight_files(found.path), dtype)
        else:
            how: dict[str, Any] = {"config": config}
            if found.packing is not None:  # on a machine with a GPU it would be put there
                config = copy.deepcopy(config)
                config.quantization_config = found.packing.config(dtype)
                how = {"config": config, "device_map": {"": "cpu"}}
            with ONE_READER:
                model = LoopLlamaForCausalLM.from_pretrained(
                    str(found.path),
                    **how,
                    dtype=dtype,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                )
            if found.packing is not None:  # transformers leaves all that is not packed as it is stored
                for parameter in model.parameters():
                    if parameter.is_floating_point():
                        parameter.data = parameter.data.to(dtype)
        _add_gate(model, found)
        _check_gates(model, found)
        return model
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointRuleError("weights_unreadable", folder=found.path, said=cause(error)) from error


def _check_gates(model: LoopLlamaForCausalLM, found: Inspection) -> None:
    """Refuse a gate of the weights that could say nothing: a run would end at its first pass."""
    for name, values in model.named_parameters():
        if ".loop_gates." in name and not bool(torch.isfinite(values).all()):
            raise CheckpointRuleError("gate_nan_in", name=name, where=found.path)


def _quantised(model: LoopLlamaForCausalLM, path: Path) -> LoopLlamaForCausalLM:
    try:
        return quantise(model)
    except PrecisionError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _add_gate(model: LoopLlamaForCausalLM, found: Inspection) -> None:
    """The gate that stands beside the weights of a model with one looped block, in reach of its loop."""
    if not found.gate:
        return
    try:
        gate = read_gate(found.path / GATE_FILE, model.config.hidden_size)
    except ValueError as error:  # its shapes have been looked at
        raise CheckpointRuleError("gate_nan_in", name=GATE_FILE, where=found.path) from error
    model.model.spare_gates = {"0": gate}
    if (
        "0" in model.model.loop_gates
    ):  # asked for already: made as in a new model, or the one it had before this was trained
        model.model.loop_gates["0"].load_state_dict(gate.state_dict())


def _complete_generation(model: LoopLlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, found: Inspection) -> None:
    """Let generation end at every end mark: the checkpoint's, and the tokenizer's own (a chat model's end of turn)."""
    generation, rows = model.generation_config, model.config.vocab_size
    raw = {"bos_token_id": generation.bos_token_id, "eos_token_id": generation.eos_token_id}
    raw["pad_token_id"] = generation.pad_token_id
    inspect.drop_ids(raw, rows, found.path / "generation_config.json", found.notes)
    ends = as_ids(raw["eos_token_id"], "eos_token_id", found.path)
    own = tokenizer.eos_token_id
    if own is not None and own < rows and own not in ends:
        if ends:
            found.notes.append(
                Note(
                    "end_mark_added",
                    f"generation ends at the tokenizer's end mark {tokenizer.eos_token!r} ({own}) too, which the "
                    "checkpoint's generation settings leave out",
                    {"id": own},
                )
            )
        ends = [*ends, own]
    generation.bos_token_id, generation.pad_token_id = raw["bos_token_id"], raw["pad_token_id"]
    generation.eos_token_id = None if not ends else ends[0] if len(ends) == 1 else ends
