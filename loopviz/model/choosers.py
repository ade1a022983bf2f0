"""Which layers of a block run in a loop step: the choosers `layer_chooser` knows, and the registry for new ones.

A chooser is a function `f(ctx: ChooserContext) -> Tensor` of dtype bool and shape `[B, n]`: which of the block's n layers
run in the step that is about to begin, row by row. It is asked before every step of every pass: in decode from token to
token, in a prefill from sequence to sequence. A layer that is left out hands its input on unchanged. A row for which no
layer is chosen has ended, with as many steps as it ran until then: none at all, if that was before the first step.

A chooser must treat rows independently: what a row gets must not depend on what else is in the batch.

    @register_layer_chooser("lower_half_once")
    def lower_half_once(ctx):
        chosen = ctx.all_layers()  # [B, n]
        if ctx.step > 1:
            chosen[:, : ctx.n_layers // 2] = False
        return chosen

    model.set_loop(layer_chooser="lower_half_once")
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from loopviz.loop_fields import NO_CHOOSER, registry

from . import measures
from .registry import check_tensor, take_name

if TYPE_CHECKING:
    from .block import LoopBlock

LENS_CHUNK = 256  # tokens whose vocabulary distributions are held at once


@dataclass
class ChooserContext:
    """What a chooser may look at before a loop step.

    Attributes:
        step: r, 1-based, the step that is about to begin.
        block: the block's resolved settings; `block.layer_threshold` is the chooser's own to give a meaning.
        state: s_{r-1}, `[B, T, H]`.
        entry: e, the state that entered the block, `[B, T, H]`.
        input_ids: the pass's tokens, `[B, T]`; `None` when the model was given embeddings.
        real: `[B, T]` bool, True where the token is not padding; `None` when all are.
        running: `[B]` bool, the rows that have not ended; what is chosen for the others does not matter.
        runs: `[B, n]` int64, steps of this pass that each layer of the block has run.
        inputs, outputs: per layer of the block, `[B, T, H]`: what went in and came out the last time it ran in this
            pass; a row in which it has not run yet holds the block's entry in both. `None` until it ran in any row.
        lens: direct lens, `[..., H] -> [..., vocab]` logits, or `None` on a model without a head.
        entry_normed: whether e is normed already.
        memory: kept from step to step of one pass through one block; empty at step 1.
    """

    step: int
    block: LoopBlock
    state: Tensor
    entry: Tensor
    input_ids: Tensor | None
    real: Tensor | None
    running: Tensor
    runs: Tensor
    inputs: list[Tensor | None]
    outputs: list[Tensor | None]
    lens: Callable[..., Tensor] | None
    entry_normed: bool = False
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def n_layers(self) -> int:
        """Layers of the block."""
        return len(self.block.layers)

    def all_layers(self) -> Tensor:
        """Every layer for every row, `[B, n]`."""
        return torch.ones(self.state.shape[0], self.n_layers, dtype=torch.bool, device=self.state.device)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` `[B, T]` over each row's real tokens, `[B]`. A row without any is 0."""
        if self.real is None:
            return values.mean(-1)
        # where(), not a product: a padding position may hold inf or nan.
        return torch.where(self.real, values, 0).sum(-1) / self.real.sum(-1).clamp(min=1)

    def influence(self, layer: int) -> Tensor:
        """Block influence of a layer (0-based within the block) the last time it ran, `[B]`, float32 (float64 stays).

        `1 - mean over real tokens of cos(layer input, layer output)`, from 0 (the layer keeps every direction) to 2; 0
        where it has not run in this pass.
        """
        before, after = self.inputs[layer], self.outputs[layer]
        if before is None or after is None:
            return torch.zeros(self.state.shape[0], device=self.state.device)
        cosine = measures.cosine(after, before)  # [B, T]; a zero state has no direction
        return torch.where(self.runs[:, layer] > 0, 1 - self.mean(cosine.nan_to_num(1.0)), 0)

    def entropy(self, state: Tensor, share: bool = False) -> Tensor:
        """Entropy in nats of the direct lens at each token of `state` `[B, T, H]`, `[B, T]`, float32 (float64 stays).

        Args:
            state: any state of the loop.
            share: as a share of the largest there can be, `ln` of the vocabulary.

        Raises:
            ValueError: the model has no head to look through.
        """
        if self.lens is None:
            raise ValueError(
                f"layer_chooser={self.block.chooser!r}: it reads the next token from a state, and this model has no "
                "output head; use LoopLlamaForCausalLM, or layer_chooser='influence'"
            )
        # what is normed already is not normed again
        now = self.block.norms_steps if self.step > 1 else self.entry_normed and self.block.init == "entry"
        normed = (state is self.state and now) or (state is self.entry and self.entry_normed)
        parts = []
        for part in state.split(LENS_CHUNK, dim=1):
            log_p = measures.log_probs(self.lens(part, normed=True) if normed else self.lens(part))
            entropy = -(log_p.exp() * log_p).sum(-1)
            parts.append(entropy / math.log(log_p.shape[-1]) if share else entropy)
        return torch.cat(parts, dim=1)


LayerChooser = Callable[[ChooserContext], Tensor]


@dataclass(frozen=True)
class RegisteredChooser:
    """A chooser and the values its `layer_threshold` may have, both ends included."""

    function: LayerChooser
    low: float = -math.inf
    high: float = math.inf

    def choice(self, ctx: ChooserContext) -> Tensor:
        """Which layers run, `[B, n]` bool.

        Raises:
            ValueError: the function gave something else; it says what.
        """
        found = self.function(ctx)
        wanted = (ctx.state.shape[0], ctx.n_layers)
        name = ctx.block.chooser
        check_tensor("register_layer_chooser", name, self.function, found, wanted, torch.bool, ctx.state)
        return found


CHOOSERS: dict[str, RegisteredChooser] = registry("layer_chooser")


def register_layer_chooser(
    name: str, *, threshold: tuple[float, float] = (-math.inf, math.inf), replace: bool = False
) -> Callable[[LayerChooser], LayerChooser]:
    """Make a chooser of layers known under `name` for `LoopLlamaConfig(layer_chooser=name)`.

    Args:
        name: the value of the configuration field, and the stop reason that is reported where it ends a row.
        threshold: the least and the largest `layer_threshold` that has a meaning for it.
        replace: take the place of another function of that name (the same function takes its own place anyway).

    Raises:
        ValueError: the name is taken. What the function returns is checked when it is used: `[B, n]` bool.
    """

    def add(function: LayerChooser) -> LayerChooser:
        if name == NO_CHOOSER:
            raise ValueError(f"register_layer_chooser({name!r}): this name means that all layers run; choose another")
        take_name(CHOOSERS, "register_layer_chooser", name, function, replace)
        CHOOSERS[name] = RegisteredChooser(function, *threshold)
        return function

    return add


@register_layer_chooser("influence", threshold=(0.0, 2.0))
def influence(ctx: ChooserContext) -> Tensor:
    """All layers in step 1; from then on those whose block influence in step 1 of this pass is >= layer_threshold.

    Block influence: `1 - mean over real tokens of cos(layer input, layer output)` (Men et al. 2024, ShortGPT). The
    layers that hardly turn the state run once, as in a plain Llama; those that work on it loop.
    """
    if ctx.step == 1:
        return ctx.all_layers()
    if "loops" not in ctx.memory:
        found = torch.stack([ctx.influence(layer) for layer in range(ctx.n_layers)], dim=1)  # [B, n]
        ctx.memory["loops"] = found >= ctx.block.layer_threshold
    return ctx.memory["loops"]


@register_layer_chooser("difficulty", threshold=(0.0, 1.0))
def difficulty(ctx: ChooserContext) -> Tensor:
    """All layers loop where the input is hard, and run once, as in a plain Llama, where it is easy.

    How hard: the entropy of the direct lens at the state that enters the block, as a share of the largest there can be
    (`ln` of the vocabulary), mean over the pass's real tokens; hard is >= layer_threshold. The mean, not the last token:
    in a prefill the decision holds for all the tokens of the pass and for the keys and values they leave. An easy input
    is not skipped: a block that was trained to run is needed once.
    """
    if ctx.step == 1:
        return ctx.all_layers()
    if "hard" not in ctx.memory:
        ctx.memory["hard"] = ctx.mean(ctx.entropy(ctx.entry, share=True)) >= ctx.block.layer_threshold
    return ctx.memory["hard"][:, None].expand(-1, ctx.n_layers)


class LayerChoice:
    """One block's choice of layers in one pass: asks the chooser, and keeps what it and the cache need to know.

    Args:
        block: the block, whose `chooser` is the name of a registered one.
        entry: e, `[B, T, H]`.
        start: s_0, `[B, T, H]`.
        input_ids, real, lens, entry_normed: see `ChooserContext`.

    Attributes:
        history: per step that began, `[B, n]` bool: the layers that ran.
        passed_by: per layer, `[B, T, H]`: the state that stood before it in the last step that the row took part in
            (whether the layer ran or not); s_0 for a row that took part in none.
    """

    def __init__(
        self,
        block: LoopBlock,
        entry: Tensor,
        start: Tensor,
        input_ids: Tensor | None,
        real: Tensor | None,
        lens: Callable[..., Tensor] | None,
        entry_normed: bool = False,
    ) -> None:
        n, B = len(block.layers), entry.shape[0]
        self.block, self.chooser = block, CHOOSERS[block.chooser]
        self.context = ChooserContext(
            step=0,
            block=block,
            state=start.detach(),
            entry=entry.detach(),
            input_ids=input_ids,
            real=real,
            running=torch.ones(B, dtype=torch.bool, device=entry.device),
            runs=torch.zeros(B, n, dtype=torch.int64, device=entry.device),
            inputs=[None] * n,
            outputs=[None] * n,
            lens=lens,
            entry_normed=entry_normed,
        )
        self.history: list[Tensor] = []
        self.passed_by = [start.detach()] * n
        self._now: list[Tensor | bool] = [False] * n

    @torch.no_grad()
    def ask(self, step: int, state: Tensor, running: Tensor) -> Tensor:
        """The layers that run in this step, `[B, n]` bool; none in a row that is not `running` (`[B]` bool).

        Raises:
            ValueError: the chooser gave something else, by its name.
        """
        context = self.context
        context.step, context.state, context.running = step, state.detach(), running
        return self.chooser.choice(context) & running[:, None]

    def begin_step(self, ran: Tensor) -> None:
        """The step begins with these layers, `[B, n]` bool, as `ask` gave them."""
        self.history.append(ran)
        self.context.runs = self.context.runs + ran
        rows = ran.cpu()
        every, some = rows.all(0).tolist(), rows.any(0).tolist()
        self._now = [True if every[j] else ran[:, j] if some[j] else False for j in range(len(every))]
        self._running = None if bool(rows.any(1).all()) else ran.any(1)

    def rows(self, layer: int) -> Tensor | bool:
        """The rows in which a layer (0-based within the block) runs in this step: True all, False none, else `[B]`."""
        return self._now[layer]

    def note(self, layer: int, before: Tensor, after: Tensor) -> None:
        """What stood before a layer in this step and what stands after it, `[B, T, H]`, whether it ran or not."""
        before, after, rows, context = before.detach(), after.detach(), self._now[layer], self.context
        self.passed_by[layer] = _where(self._running, before, self.passed_by[layer])
        if rows is True:
            context.inputs[layer], context.outputs[layer] = before, after
        elif rows is not False:
            for kept, new in ((context.inputs, before), (context.outputs, after)):
                old = kept[layer]
                kept[layer] = _where(rows, new, context.entry if old is None else old)

    def report(self) -> Tensor:
        """The layers that ran in each step, `[R, B, n]` bool, R the steps of the longest row."""
        if not self.history:
            return torch.zeros(0, *self.context.runs.shape, dtype=torch.bool)
        return torch.stack(self.history).cpu()


def _where(rows: Tensor | None, new: Tensor, old: Tensor) -> Tensor:
    """`new` in these rows `[B]` (`None`: in all), `old` in the others."""
    return new if rows is None else torch.where(rows[:, None, None], new, old)
