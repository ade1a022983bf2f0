"""Teaching a stock Llama to loop: peft's LoRA on a looped block, trained as any recipe is, kept as peft's folder."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loopviz import outputs
from loopviz.loop_fields import BY_NAME
from loopviz.model import LoopLlamaForCausalLM
from loopviz.model.checkpoints.adapter import CONFIG, LOOP, NO_PEFT, STEPS_VERSION, VERSION, WEIGHTS
from loopviz.model.checkpoints.quiet import quiet_transformers
from loopviz.model.placing import check_room
from loopviz.model.precision import weight_bytes
from loopviz.model.step_adapters import StepAdapters, name_of

from .evaluate import TextResult
from .recipe import RecipeError
from .teach_data import TeachInstructions, TeachText
from .teach_recipe import TeachRecipe
from .trainer import BYTES_A_PARAMETER, Trainer

# Loop fields that teaching may ask for and that the block as it is has not.
SHAPES_A_STEP = ("loop_injection", "loop_norm", "loop_final_norm", "loop_init", "loop_init_std")
DAMPED = 0.5  # of the loop that is shown beside: what helps an untaught block most (docs/lab/README.md)


def check_targets(model: LoopLlamaForCausalLM, recipe: TeachRecipe) -> None:
    """Refuse target modules that a layer of the model has not.

    Raises:
        RecipeError: naming the first, and those that there are.
    """
    layer = model.model.layers[recipe.loop["loop_layers"][0]]
    known = [name.rpartition(".")[2] for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    for target in recipe.lora.targets:
        if target not in known:
            raise RecipeError(f"lora.targets: {target!r} is no linear map of a layer; there are {', '.join(known)}")


def adapter_parameters(model: LoopLlamaForCausalLM, recipe: TeachRecipe, new: Collection[str] = ()) -> int:
    """How many numbers will be trained: of the LoRA (of all loop steps), and the new weights of the loop.

    Args:
        model: without an adapter.
        recipe: `lora`, `loop`, `loops`.
        new: as of :func:`put_lora`.
    """
    first, last = recipe.loop["loop_layers"]
    maps = [
        module
        for layer in model.model.layers[first : last + 1]
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in recipe.lora.targets
    ]
    lora = recipe.lora.rank * sum(each.in_features + each.out_features for each in maps)
    whole = [parameter for field in new for parameter in getattr(model.model, f"{field}s").parameters()]
    return lora * (recipe.step_adapters or 1) + sum(parameter.numel() for parameter in whole)


def check_device(
    model: LoopLlamaForCausalLM, recipe: TeachRecipe, device: torch.device, new: Collection[str] = ()
) -> None:
    """Refuse a device that does not hold what is taught: the model's weights, and the adapter as it is trained.

    Raises:
        CheckpointError: with the bytes. What a pass computes is on top of them.
    """
    weights, trained = weight_bytes(model), BYTES_A_PARAMETER * adapter_parameters(model, recipe, new)
    what = f"teaching (weights {weights:,}; adapter, gradients and optimiser {trained:,})"
    check_room(weights + trained, device, what)


def put_lora(model: LoopLlamaForCausalLM, recipe: TeachRecipe, new: Collection[str] = ()) -> Any:
    """A model with a fresh adapter (or one a loop step), as peft's `PeftModel`: the model's own weights are frozen.

    Args:
        model: changed: its maps are wrapped.
        recipe: `lora`, `loop`, `base`.
        new: loop fields whose weights are new and are trained whole ("loop_injection", "loop_norm").

    Raises:
        RecipeError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise RecipeError(f"teach: {NO_PEFT}") from error
    if recipe.quantization is not None:
        from peft import prepare_model_for_kbit_training

        # norms and heads in float32, and nothing underneath takes a gradient; activations are kept, as without it
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    first, last = recipe.loop["loop_layers"]
    lora, whole = recipe.lora, [f"{field}s.0" for field in sorted(new)]

    def config(modules_to_save: list[str] | None) -> Any:
        return LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets),
            layers_to_transform=list(range(first, last + 1)),
            layers_pattern="layers",
            modules_to_save=modules_to_save,
            bias="none",
            task_type="CAUSAL_LM",
        )

    names = adapter_names(recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, at what peft asks it
        wrapped: Any = get_peft_model(model, config(whole or None), adapter_name=names[0])
        for name in names[1:]:  # the loop's own weights are the first one's
            wrapped.add_adapter(name, config(None))
    if recipe.step_adapters:
        for name, parameter in wrapped.named_parameters():
            if ".lora_" in name:
                parameter.requires_grad_(True)  # peft's only while theirs is the one that is active
        StepAdapters(model, len(names))
    for made in wrapped.peft_config.values():
        made.base_model_name_or_path = recipe.base
    return wrapped


def adapter_names(recipe: TeachRecipe) -> list[str]:
    """peft's names of the adapters: of the loop steps, or of the one that there is."""
    return [name_of(step) for step in range(1, recipe.step_adapters + 1)] or ["default"]


class TeachTrainer(Trainer):
    """One run of `teach`.

    Args:
        recipe: how.
        task: its data.
        folder: where checkpoint and logs go; it exists.
        base: the model, with the recipe's loop (`recipe.fields`); it is changed.
        new: loop fields whose weights it has not learned yet.
        **how: as of :class:`Trainer`.

    Attributes:
        trained: parameters that are trained.
    """

    recipe: TeachRecipe
    task: TeachText | TeachInstructions

    def __init__(
        self,
        recipe: TeachRecipe,
        task: TeachText | TeachInstructions,
        folder: Path,
        base: LoopLlamaForCausalLM,
        new: Collection[str] = (),
        **how: Any,
    ) -> None:
        self._base, self._new = base, tuple(sorted(new))
        self.wrapped: Any = None
        self.trained = 0
        super().__init__(recipe, task, folder, **how)

    def _new_model(self) -> LoopLlamaForCausalLM:
        torch.manual_seed(self.recipe.seed)
        self.wrapped = put_lora(self._base, self.recipe, self._new)
        self.trained = sum(each.numel() for each in self._base.parameters() if each.requires_grad)
        self._base.model.backprop_steps = self.recipe.backprop_steps
        return self._base

    def _weights(self) -> dict[str, torch.Tensor]:
        from peft import get_peft_model_state_dict

        names = adapter_names(self.recipe)
        found: dict[str, dict[str, torch.Tensor]] = {
            name: get_peft_model_state_dict(self.wrapped, adapter_name=name, save_embedding_layers=False)
            for name in names
        }
        if len(names) == 1:
            return found[names[0]]
        return {f"{name}/{key}": value for name, weights in found.items() for key, value in weights.items()}

    def _load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        from peft import set_peft_model_state_dict

        names = adapter_names(self.recipe)
        for name in names:
            own = {key.removeprefix(f"{name}/"): value for key, value in weights.items() if key.startswith(f"{name}/")}
            set_peft_model_state_dict(self.wrapped, own if len(names) > 1 else weights, adapter_name=name)

    def close(self) -> Closing:
        """The closing evaluation: what was taught, and the same block without it."""
        taught = self.task.measure(self.model, final=True)
        asked = {name: BY_NAME[name].plain for name in SHAPES_A_STEP if name in self.recipe.loop}
        with self.wrapped.disable_adapter():
            fields = {**asked, "loop_damping": 1.0}
            naive = self.task.measure(self.model.with_loop(**fields), final=True)
            damped = self.task.measure(self.model.with_loop(**{**fields, "loop_damping": DAMPED}), final=True)
            plain = self.task.measure(self.model.with_loop(loop_layers=None), final=True)
        return Closing(plain, naive, damped, taught)

    def save(self, folder: Path, loop_count: int) -> None:
        """Write the adapter as peft does, and what belongs to the loop (:mod:`loopviz.model.checkpoints.adapter`).

        Raises:
            OutputError: the folder cannot be written.
        """
        recipe = self.recipe
        steps = recipe.step_adapters
        said: dict[str, Any] = {
            **({"version": STEPS_VERSION, "steps": steps} if steps else {"version": VERSION}),
            "loop": {**recipe.fields, "loop_layers": list(recipe.loop["loop_layers"]), "loop_count": loop_count},
            "base": {"name": recipe.base, "layers": list(recipe.loop["loop_layers"]), "sha256": recipe.base_sha256},
            "teaching": recipe.to_dict(),
        }
        with outputs.filling(folder) as part:
            with quiet_transformers():
                self.wrapped.save_pretrained(str(part), save_embedding_layers=False)
            for card in part.rglob("README.md"):
                card.unlink()  # peft's is a form to fill in; ours says what was done
            outputs.write_text(part / LOOP, json.dumps(said, indent=2) + "\n")
        _remove_others(folder, adapter_names(recipe))


def _remove_others(folder: Path, names: Collection[str]) -> None:
    """Remove what an adapter that was in a folder before has left there: of another kind, or of more loop steps."""
    steps = [place for place in folder.iterdir() if re.fullmatch(name_of(r"\d+"), place.name)]
    for name, place in [("default", folder), *((step.name, step) for step in steps)]:
        if name not in names:
            for file in (CONFIG, WEIGHTS):
                (place / file).unlink(missing_ok=True)


@dataclass(frozen=True)
class Closing:
    """Held-out loss by loops, without and with what was taught; the same tokens in every row.

    Attributes:
        plain: the model without a loop.
        naive: the block repeated as it is.
        damped: the same, each step half the way (`DAMPED`).
        taught: with the adapter.
    """

    plain: TextResult
    naive: TextResult
    damped: TextResult
    taught: TextResult

    def best(self, recipe: TeachRecipe) -> int:
        """The loop count of the lowest loss, among those that were taught."""
        low = recipe.loops.min if recipe.loops.sampler == "uniform" else 1
        losses = dict(zip(self.taught.loops, self.taught.loss, strict=True))
        among = [r for r in losses if low <= r <= recipe.loops.most] or list(losses)
        return min(among, key=losses.__getitem__)
