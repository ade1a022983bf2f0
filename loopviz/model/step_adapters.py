"""One LoRA a loop step ("relaxed recursion"; Bae et al. 2024, arXiv 2410.20672): the block's weights are shared by all steps,
what is added to them is not.

The adapters are peft's, side by side on one model and named by step (:func:`name_of`). Which of them a step uses is decided
before it: a pre-step hook has the block's layers told the step, a layer keeps it from its attention to the end of its MLP, and
the linear maps in between ask peft for that step's adapter. Nothing of the model is switched, so that views (`with_loop()`), other threads and gradient
checkpointing each have the step they are in.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from torch import nn

from loopviz.checks import FieldError

from .events import LoopStepStart

_GIVEN = "loop_step_adapter"  # the keyword argument by which a layer is told
_RUNNING: ContextVar[str | None] = ContextVar(
    "loop_step_adapter", default=None
)  # of the layer that runs in this thread
NOT_ONE_MODEL = (
    "each loop step has a LoRA of its own, which cannot be merged into one set of weights; keep its folder, which opens as it is "
    "wherever a model is asked for (--model FOLDER, or --adapter FOLDER beside its base)"
)


def name_of(step: int | str) -> str:
    """peft's name of a loop step's adapter (1-based), and of its folder."""
    return f"step-{step}"


class StepAdapters:
    """Lets every loop step of a model, and of its views made from now on, use the adapter of its own.

    Steps beyond the last that has one use the last one's. Layers that run outside of a step (of a block that is not looped
    now) use the first one's, as a single loop does.

    Args:
        model: a LoopLlama with adapters `step-1` to `step-N` of peft's on its layers, of which the first is active; changed.
        count: N.
    """

    def __init__(self, model: Any, count: int) -> None:
        from peft.tuners.lora import LoraLayer

        self.count = count
        for layer in model.model.layers:
            layer.self_attn.register_forward_pre_hook(_enter, with_kwargs=True)
            layer.mlp.register_forward_hook(_leave, always_call=True)
            for module in layer.modules():
                if isinstance(module, LoraLayer):
                    module.register_forward_pre_hook(_choose, with_kwargs=True)
        model.register_loop_pre_hook(self._tell, views=True)
        model.model.step_adapters = self

    def _tell(self, start: LoopStepStart) -> dict[str, str]:
        return {_GIVEN: name_of(min(start.step, self.count))}


def check_one_model(model: Any) -> None:
    """Refuse, where a model's own weights are read one by one, one whose weights are others in every loop step.

    Args:
        model: a LoopLlama or any other of transformers'.

    Raises:
        FieldError: naming it.
    """
    if getattr(model.base_model, "step_adapters", None) is not None:
        raise FieldError("model", model.config._name_or_path, "lora_per_step")


def _enter(attention: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    _RUNNING.set(kwargs.get(_GIVEN))
    return args, {name: value for name, value in kwargs.items() if name != _GIVEN}


def _leave(mlp: nn.Module, args: Any, output: Any) -> None:
    _RUNNING.set(None)


def _choose(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """As peft itself has the maps of a model told, whose rows may have an adapter each: here all rows have the step's."""
    name = _RUNNING.get()
    return None if name is None else (args, {**kwargs, "adapter_names": [name] * len(args[0])})
