"""A LoRA adapter in peft's form, put on the checkpoint it was made for; what belongs to a loop stands in a file beside it.

A folder of peft's (`adapter_config.json`, `adapter_model.safetensors`; peft itself loads it onto a LoopLlama) and, where
`loopviz teach` made it, `loop_adapter.json`:

    version   1
    loop      loop fields of the model that was taught: loop_layers, loop_count, loop_injection, loop_norm, ...
    base      name: the checkpoint underneath, a name or a folder; layers [first, last] and sha256: the hash of these
              layers' weights, rounded to bfloat16 (:func:`fingerprint`)
    teaching  how it was taught, for people and for `loopviz teach` itself

New weights of the loop (an injection's matrix, a norm) are in peft's file as `modules_to_save`. An adapter without the file
beside it is one on a plain Llama. Every check is made before weights are read, but for the hash.

One LoRA a loop step (:mod:`loopviz.model.step_adapters`) is version 2: `loop_adapter.json` says how many `steps` there are, and
`step-1`, `step-2`, ... beside it are peft's folders, one a step, the loop's own weights in the first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from loopviz.loop_fields import BY_NAME
from loopviz.model.configuration import LOOP_FIELDS, LoopLlamaConfig
from loopviz.model.packed import quantization_of
from loopviz.model.step_adapters import StepAdapters, name_of
from loopviz.paths import install_hint

from .errors import CheckpointError
from .inspect import PICKLES, expected_tensors, tensor_shapes
from .json_files import SMALL_JSON, read_json
from .keys import shown

if TYPE_CHECKING:
    from loopviz.model.modeling import LoopLlamaForCausalLM

CONFIG, WEIGHTS, LOOP = "adapter_config.json", "adapter_model.safetensors", "loop_adapter.json"
VERSION, STEPS_VERSION = 1, 2  # of one LoRA for all loop steps, and of one a step
PREFIX = "base_model.model."  # peft's, before a module's name
LOOP_MODULES = "model.loop_"  # names of a loop's own weights begin so
_PART = re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B|magnitude_vector)(?:\.weight)?")
# Of a LoraConfig: what would make other layers of the base than those its weights are named for, or run code.
_REFUSED = ("layer_replication", "megatron_config", "arrow_config", "trainable_token_indices", "target_parameters")
NO_PEFT = f"an adapter is put on its base by peft, which is not installed; {install_hint('teach')}"


@dataclass(frozen=True)
class Adapter:
    """What an adapter's files say, its weights not read.

    Attributes:
        path: its folder.
        config: peft's `adapter_config.json`.
        shapes: of its tensors, by the name a model without peft has for their module and peft's own ending.
        loop: loop fields of the model that was taught; empty: a plain Llama.
        base: name or folder of the checkpoint underneath, if it says one.
        layers: first and last layer that `sha256` is of.
        sha256: see :func:`fingerprint`; `None`: not known.
        steps: one LoRA a loop step: their folders, with `config` and `shapes` of their own; empty: one for all steps, whose these
            two are here. Then they are the first step's.
    """

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    loop: Mapping[str, Any] = field(default_factory=dict)
    base: str | None = None
    layers: tuple[int, int] | None = None
    sha256: str | None = None
    steps: tuple[Adapter, ...] = ()

    @property
    def own(self) -> set[str]:
        """Names of the loop's own weights that it brings."""
        return {name for name in self.shapes if name.startswith(LOOP_MODULES)}


def is_adapter(name: str | os.PathLike[str]) -> bool:
    """Whether a name is a folder of this machine that holds an adapter.

    Raises:
        CheckpointError: it holds a whole model too: which of them is meant, nobody can tell.
    """
    try:
        folder = Path(os.fspath(name)).expanduser()
        named = next((name for name in (CONFIG, LOOP) if (folder / name).is_file()), None)
        whole = (folder / "config.json").is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long for the system, no home for "~user", a null byte
        return False
    if named and whole:
        raise CheckpointError(
            f"{folder}: holds a model (config.json) and an adapter ({named}); put each in its own folder"
        )
    return named is not None


def read_adapter(folder: Path) -> Adapter:
    """An adapter's files, looked through.

    Raises:
        CheckpointError: not a LoRA adapter, damaged, a pickle, or of a later version.
    """
    said = read_json(folder / LOOP, SMALL_JSON) if (folder / LOOP).is_file() else {"version": VERSION}
    if said.get("version") not in (VERSION, STEPS_VERSION):
        raise CheckpointError(
            f"version={shown(said.get('version'))} in {folder / LOOP}: this LoopViz reads versions {VERSION} and {STEPS_VERSION}"
        )
    steps = _read_steps(folder, said.get("steps")) if said["version"] == STEPS_VERSION else ()
    config, shapes = (steps[0].config, steps[0].shapes) if steps else _read_lora(folder)
    loop: Any = said.get("loop", {})
    base: Any = said.get("base", {})
    if not isinstance(loop, dict) or not isinstance(base, dict):
        raise CheckpointError(f"{folder / LOOP}: loop and base must be objects; teach it again")
    for name in loop:
        if name not in LOOP_FIELDS:
            raise CheckpointError(f"{name}={shown(loop[name])} in {folder / LOOP}: not a loop field")
    layers: Any = base.get("layers")
    digest: Any = base.get("sha256")
    known = layers is not None and digest is not None
    if known and not (_is_range(layers) and isinstance(digest, str)):
        raise CheckpointError(
            f"base.layers={shown(layers)}, base.sha256={shown(digest)} in {folder / LOOP}: must be [first, last] and text; teach it again"
        )
    return Adapter(
        folder,
        config,
        shapes,
        loop,
        base.get("name") or config.get("base_model_name_or_path"),
        (layers[0], layers[1]) if known else None,
        digest if known else None,
        steps,
    )


def _read_steps(folder: Path, count: Any) -> tuple[Adapter, ...]:
    """The adapters of loop steps, one after the other."""
    most = int(BY_NAME["loop_count"].high)
    if type(count) is not int or not 1 <= count <= most:
        raise CheckpointError(
            f"steps={shown(count)} in {folder / LOOP}: must be a whole number from 1 to {most}; teach it again"
        )
    steps = tuple(Adapter(one, *_read_lora(one)) for one in (folder / name_of(step) for step in range(1, count + 1)))
    for step in steps:
        if step.config.get("use_dora"):
            raise CheckpointError(
                f"use_dora=true in {step.path / CONFIG}: not read of an adapter a loop step; use a plain LoRA"
            )
        if step.own and step is not steps[0]:
            raise CheckpointError(
                f"{step.path}: has {sorted(step.own)[0]}, which all loop steps share; only {name_of(1)} may have it"
            )
    return steps


def _read_lora(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, tuple[int, ...]]]:
    """peft's two files: the configuration, and the tensors' shapes."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder}: is no adapter, there is no {CONFIG}; give the folder that peft or `teach` wrote"
        )
    config = read_json(folder / CONFIG, SMALL_JSON)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(
            f"peft_type={shown(config.get('peft_type'))} in {folder / CONFIG}: only 'LORA' is put on a model"
        )
    for name in _REFUSED:
        if config.get(name):
            raise CheckpointError(
                f"{name}={shown(config[name])} in {folder / CONFIG}: not read here; load it with peft itself"
            )
    if not (folder / WEIGHTS).is_file():
        pickles = [file.name for file in folder.iterdir() if file.name.endswith(PICKLES)]
        why = (
            f"has {pickles[0]}, a pickle, which can run any code and is never read" if pickles else f"has no {WEIGHTS}"
        )
        raise CheckpointError(f"{folder}: {why}; save the adapter as safetensors")
    stored = tensor_shapes(folder / WEIGHTS)
    return config, {name.removeprefix(PREFIX): shape for name, (shape, _) in stored.items()}


def _is_range(layers: Any) -> bool:
    pair = isinstance(layers, list) and len(layers) == 2 and all(type(layer) is int for layer in layers)
    return pair and 0 <= layers[0] <= layers[1]


def need_peft(what: str) -> None:
    """CheckpointError, before any work, where peft is not installed; `what` needs it, for the message."""
    if importlib.util.find_spec("peft") is None:
        raise CheckpointError(f"{what}: {NO_PEFT}")


def base_of(adapter: Adapter) -> str:
    """The checkpoint an adapter says it belongs on: as it says, or of that name beside the adapter's folder.

    Raises:
        CheckpointError: it says none.
    """
    base = adapter.base
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{adapter.path}: does not say which checkpoint it belongs on; give it (--model)")
    there = PureWindowsPath(base)  # which reads names of either system, and knows of a drive
    beside = adapter.path.resolve().parent / there.name
    elsewhere = (os.path.isabs(base) or there.is_absolute()) and not os.path.exists(base)
    return str(beside) if elsewhere and beside.exists() else base


def check_adapter(adapter: Adapter, base: LoopLlamaConfig, taught: LoopLlamaConfig, name: str) -> None:
    """Refuse an adapter for another model, before anything is read.

    Args:
        base: the checkpoint's configuration.
        taught: the same with the adapter's loop.
        name: of the checkpoint, for the message.

    Raises:
        CheckpointError: naming the first tensor that has no place, or another shape.
    """
    where = f"{adapter.path}: is no adapter for {name}"
    if adapter.layers is not None and adapter.layers[1] >= base.num_hidden_layers:
        raise CheckpointError(f"{where}: it is of layer {adapter.layers[1]}, and there are {base.num_hidden_layers}")
    there = expected_tensors(taught)
    for each in adapter.steps or (adapter,):
        _check_shapes(each.shapes, there, f"{each.path}: is no adapter for {name}")
    needed = {each for each in there if each.startswith(LOOP_MODULES)} - expected_tensors(base).keys()
    if missing := sorted(needed - adapter.own):
        raise CheckpointError(f"{adapter.path}: {missing[0]} is missing, which its loop needs; teach it again")


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]], where: str) -> None:
    for full, shape in sorted(shapes.items()):
        match = _PART.fullmatch(full)
        if match is None:
            if full not in there:
                raise CheckpointError(f"{where}: {full} is not in it, and no part of a LoRA")
            wanted: tuple[int | None, ...] = there[full]
        else:
            weight = there.get(f"{match['module']}.weight")
            if weight is None or len(weight) != 2:
                raise CheckpointError(f"{where}: target module {match['module']!r} is not in it")
            out, into = weight
            wanted = {"A": (None, into), "B": (out, None), "magnitude_vector": (out,)}[match["part"]]
        if len(shape) != len(wanted) or any(size not in (None, got) for size, got in zip(wanted, shape, strict=True)):
            fits = tuple("rank" if size is None else size for size in wanted)
            raise CheckpointError(f"{where}: {full} has shape {shape}, and {fits} is wanted")


def fingerprint(model: LoopLlamaForCausalLM, layers: tuple[int, int]) -> str:
    """Hash of some layers' weights, by which a base is known again: sha256, hex, of names, shapes and values as bfloat16.

    Rounded, so that a checkpoint is the same whether it is loaded in float32 or bfloat16.

    Args:
        model: without an adapter.
        layers: the first and the last.
    """
    digest = hashlib.sha256()
    for index in range(layers[0], layers[1] + 1):
        for name, tensor in sorted(model.model.layers[index].state_dict().items()):
            digest.update(f"{index}.{name} {tuple(tensor.shape)}\n".encode())
            rounded = tensor.detach().cpu().to(torch.bfloat16).contiguous()
            digest.update(rounded.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def put_on(
    adapter: Adapter,
    model: LoopLlamaForCausalLM,
    pack: Callable[[LoopLlamaForCausalLM], LoopLlamaForCausalLM] | None = None,
) -> LoopLlamaForCausalLM:
    """The adapter on a model: merged into its weights, W + scale B A, with the loop's own weights where the model has them.

    One LoRA a loop step cannot be merged: they stay beside the weights (:class:`~loopviz.model.step_adapters.StepAdapters`). Nor is
    one on packed weights, which would be rounded anew: it stays on top of them, as one is taught there (QLoRA).

    Args:
        model: the checkpoint it was checked for, with peft here (:func:`need_peft`); changed.
        pack: packs its layers' weights once they are known to be those it was made on; None: they stay floats.

    Raises:
        CheckpointError: the weights underneath are not those it was made on.
    """
    told = model.dtype in (torch.float32, torch.bfloat16) and quantization_of(model) is None  # else other numbers
    if adapter.sha256 is not None and adapter.layers is not None and told:
        found = fingerprint(model, adapter.layers)
        if found != adapter.sha256:
            raise CheckpointError(
                f"{adapter.path}: was taught on other weights: sha256 of layers {adapter.layers[0]}-{adapter.layers[1]} "
                f"is {found[:12]}..., and {adapter.sha256[:12]}... was taught; give the checkpoint it was made on (--model)"
            )
    if pack is not None:
        if adapter.config.get("use_dora"):
            raise CheckpointError(
                f"use_dora=true in {adapter.path / CONFIG}: is not put on packed weights; load it without quantization"
            )
        model = pack(model)
    if adapter.steps:
        return _put_steps_on(adapter, model)
    if pack is not None:
        return _put_on_top(adapter, model)
    merged: LoopLlamaForCausalLM = _wrapped(adapter.path, model).merge_and_unload(safe_merge=True)
    return merged.eval()


def _put_on_top(adapter: Adapter, model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
    """The adapter beside the model's weights, unmerged; the loop's own weights in their places."""
    _load_own(adapter, model)
    bare: LoopLlamaForCausalLM = _wrapped(adapter.path, model, own=False).get_base_model()
    bare.requires_grad_(False)
    return bare.eval()


def _put_steps_on(adapter: Adapter, model: LoopLlamaForCausalLM) -> LoopLlamaForCausalLM:
    """The adapters of all loop steps beside the model's weights, each used in its own step."""
    _load_own(adapter, model)
    wrapped = None
    for step, one in enumerate(adapter.steps, start=1):
        wrapped = _wrapped(one.path, model if wrapped is None else wrapped, name_of(step), own=False)
    assert wrapped is not None
    bare: LoopLlamaForCausalLM = wrapped.get_base_model()
    bare.requires_grad_(False)
    StepAdapters(bare, len(adapter.steps))
    return bare.eval()


def _load_own(adapter: Adapter, model: LoopLlamaForCausalLM) -> None:
    """The loop's own weights, where the model has a place for them: they are no part of the LoRA."""
    own = {name: model.get_parameter(name) for name in adapter.own & model.state_dict().keys()}
    folder = adapter.steps[0].path if adapter.steps else adapter.path
    with safe_open(folder / WEIGHTS, "pt") as file, torch.no_grad():
        for name, weight in own.items():
            weight.copy_(file.get_tensor(PREFIX + name))


def _wrapped(folder: Path, model: Any, name: str = "default", own: bool = True) -> Any:
    """peft's model with one adapter (more).

    Args:
        folder: of the adapter.
        model: a LoopLlama, or peft's of one.
        name: of the adapter.
        own: whether the loop's own weights are the adapter's, too.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(folder))
    # A loop set otherwise than it was taught may have no place for weights of its own; they are then left out.
    modules = dict(model.named_modules())
    kept = [each for each in config.modules_to_save or () if own and any(known.endswith(each) for known in modules)]
    config.modules_to_save = kept or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, at what peft asks it
        if not isinstance(model, PeftModel):
            return PeftModel.from_pretrained(model, str(folder), adapter_name=name, config=config)
        config.inference_mode = True
        model.add_adapter(name, config)
        model.load_adapter(str(folder), name)
        return model
