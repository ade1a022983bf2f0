"""A folder of a published family: recognised, checked without its weights, and read as a LoopLlama."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from loopviz.checkpoint_rules import Phrase, Phrases, Reason
from loopviz.checks import Words
from loopviz.model.checkpoints.errors import CheckpointRuleError, Note, cause
from loopviz.model.configuration import LoopLlamaConfig
from loopviz.model.modeling import LoopLlamaForCausalLM

from . import FAMILIES, PLAIN
from .family import Family, Part

_LISTED = 8  # tensors of a kind that a message names
Shapes = Mapping[str, tuple[int, ...]]


def family_of(raw: Mapping[str, Any], names: Iterable[str] = ()) -> Family | None:
    """The family of a config.json, by its model type, or by fields that it alone has; `None`: there is none.

    Args:
        raw: the file.
        names: of the tensors, which tell it from others of the same model type; where they are not there yet the file must.
    """
    some, names = [family for family in FAMILIES if raw.get("model_type") in family.model_types], tuple(names)
    if not some:  # what its authors call it may not be known
        some = [family for family in FAMILIES if family.own and all(key in raw for key in family.own)]
    if names:
        return next((family for family in some if any(name.endswith(family.mark) for name in names)), None)
    claimed = next((family for family in some if family.claim and raw.get(family.claim)), None)
    return claimed or next((family for family in some if not family.mark), None)


def family_config(family: Family, raw: Mapping[str, Any], file: Path, notes: list[Note]) -> LoopLlamaConfig:
    """The configuration of a LoopLlama for a config.json whose keys have been checked.

    Raises:
        CheckpointError: it says what the family cannot have.
    """
    fields = family.fields(raw, file, notes)
    try:
        return LoopLlamaConfig(**fields)
    except Exception as error:  # whatever the strict dataclass raises, it is about this file
        of = Reason(family.title)
        raise CheckpointRuleError("no_family_config", file=file, family=of, said=cause(error)) from error


def check_sources(family: Family, config: LoopLlamaConfig, found: Shapes, where: Path) -> None:
    """Refuse a folder whose tensors are not exactly those that its configuration asks for.

    Raises:
        CheckpointError: with the tensors that are missing, unexpected or of another shape.
    """
    if config.num_hidden_layers > len(found):  # before anything of that depth is made
        layers = config.num_hidden_layers
        raise CheckpointRuleError("layers_over_tensors", layers=layers, folder=where, n=len(found))
    wanted = {part.source: part.shape for part in family.sources(config).values() if part.source}
    spare = {name for name in family.left_out or {} if name not in wanted}
    faults: dict[str, list[object]] = {
        "missing": [*sorted(wanted.keys() - found.keys())],
        "unexpected": [*sorted(found.keys() - wanted.keys() - spare)],
        "of another shape": [
            Phrase("shape", {"name": name, "found": [*found[name]], "wanted": [*shape]})
            for name, shape in sorted(wanted.items())
            if name in found and tuple(found[name]) != shape
        ],
    }
    told = [Phrase(what, {"n": len(names), "names": _listed(names)}) for what, names in faults.items() if names]
    if told:
        of = Reason(family.title)
        raise CheckpointRuleError("tensors", folder=where, family=of, faults=Phrases(told, "parts"))


def _listed(names: Sequence[object]) -> Words:
    """The first of some names, and whether there are others."""
    first = Phrases(names[:_LISTED])
    return Phrase("others", {"names": first}) if len(names) > _LISTED else first


def weights_of(family: Family, config: LoopLlamaConfig, found: Shapes) -> dict[str, tuple[int, ...]]:
    """Of stored tensors those that are weights: no table, nothing that is stored twice."""
    wanted = {part.source for part in family.sources(config).values()}
    return {name: shape for name, shape in found.items() if name in wanted}


def read_family(
    family: Family,
    stored: LoopLlamaConfig,
    config: LoopLlamaConfig,
    files: Iterable[Path],
    dtype: torch.dtype,
) -> LoopLlamaForCausalLM:
    """The model, its weights read.

    Args:
        family: of the files.
        stored: the configuration that they were found to have.
        config: of the model: the same with other loop fields; weights that these do without are left out.
        files: safetensors that `check_sources` has passed.
        dtype: of the parameters.

    Raises:
        CheckpointError: a tensor stored twice is not the same; an exit gate's weights are no numbers.
    """
    with torch.device("meta"):
        model = LoopLlamaForCausalLM(config)
    wanted = model.state_dict()
    plan = {name: part for name, part in family.sources(stored).items() if name in wanted}
    with _Tensors(files) as tensors:
        for name, of in (family.left_out or {}).items():
            if of and stored.tie_word_embeddings and name in tensors and not torch.equal(tensors[name], tensors[of]):
                raise CheckpointRuleError("no_copy", name=name, of=of)
        state = _state(plan, tensors, dtype)
    gates = [
        name for name, values in state.items() if ".loop_gates." in name and not bool(torch.isfinite(values).all())
    ]
    if gates:
        raise CheckpointRuleError("gate_nan", name=plan[gates[0]].source)
    model.load_state_dict(state, assign=True, strict=False)
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # its frequencies are no weights, and never read from a file
    model.tie_weights()
    for module in model.modules():  # what the caller's loop adds starts as in a new model
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device="cpu", recurse=False).to(dtype)
            model._init_weights(module)
    model.config.dtype = dtype
    return model


def _state(plan: Mapping[str, Part], tensors: _Tensors, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The parameters by name; a stored tensor that several come from is read once."""
    state: dict[str, torch.Tensor] = {}
    last: tuple[str, torch.Tensor] | None = None
    for name, part in plan.items():
        if part.source and (last is None or last[0] != part.source):
            last = part.source, tensors[part.source]
        state[name] = part.made(last[1] if part.source and last else None, dtype)
    return state


class _Tensors:
    """The tensors of several safetensors files by name, each read when it is asked for."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._files, self._open, self._of = tuple(files), [], {}  # type: ignore[var-annotated]

    def __enter__(self) -> _Tensors:
        for file in self._files:
            handle = safe_open(str(file), framework="pt").__enter__()
            self._open.append(handle)
            self._of.update(dict.fromkeys(handle.keys(), handle))
        return self

    def __exit__(self, *raised: Any) -> None:
        for handle in self._open:
            handle.__exit__(None, None, None)

    def __contains__(self, name: str) -> bool:
        return name in self._of

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._of[name].get_tensor(name)
        return tensor


def is_mapped(family: Family) -> bool:
    """Whether its tensors and fields are renamed; Llama's own are not."""
    return family is not PLAIN
