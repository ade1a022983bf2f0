"""What is noted of one token of a pass: of every run of a layer, of every loop step, of the whole way. Who notes it: :mod:`.probe`.

H, N, K, D, F as in :mod:`loopviz.anatomy.llama`. What a model has not is None: what a plain Llama's layer has not is said field by
field, and :func:`loopviz.anatomy.stages.stages_of` lists of a layer what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loopviz.loop_fields import EXACT
from loopviz.model.block import LoopBlock


@dataclass(frozen=True, kw_only=True)
class LayerRun:
    """One run of one decoder layer, for one token.

    What attention could read are S columns: `past` earlier tokens with `held` slots each, side by side, then the tokens of the
    pass with `own` slots each, as :class:`loopviz.model.AttentionRead` has them.

    Attributes:
        layer: physical, 0-based.
        block, step: of which block's loop step it was part, `step` 1-based; None and 0 in a layer that does not loop.
        state: the residual stream that enters, `[H]`.
        normed: after the first RMSNorm, `[H]`; None where attention reads the state itself (`norm_placement="branch"`).
        query, key, value: the projections, before any norm and position, `[N, D]`, `[K, D]`, `[K, D]`.
        turned: the query after RoPE, `[N, D]`.
        keys, values: of all columns, keys after RoPE, as attention read them, `[K, S, D]`.
        visible: the columns this token may see, `[S]` bool.
        scores: `q . k / sqrt(D)`, `[N, S]` float32 or wider, also where nothing is seen.
        weights: their softmax over the visible ones, `[N, S]`.
        mixed: what attention gave, `[N, D]`: `weights @ values`, to rounding.
        attended: after the output projection, `[H]`.
        between: `state + added`, `[H]`.
        normed_between: after the RMSNorm before the MLP, `[H]`; None as `normed`.
        gate, swish, up, product: `[F]`; `swish` is of the gate, `product = swish * up`.
        down: `[H]`.
        result: `entered_mlp + added_mlp`, `[H]`.
        past, held, own, slot: see above; `slot` is the one that is read where one is, None where all are.
        kept: what the layer's keys and values are kept in (`kv_cache_dtype`).
        normed_query, normed_key: after `qk_norm`, before RoPE, `[N, D]`, `[K, D]`.
        turned_key: the key after RoPE, `[K, D]`; kept_key, kept_value: it and the value as they are read once they were rounded to
            8 bits (`kv_cache_dtype`), `[K, D]`. Of exact caches all three are None.
        normed_attended, normed_down: what attention and MLP say after a norm of its own (`pre_branch`, `branch`), `[H]`.
        normed_stream, normed_result: the two sums after a norm on the stream (`pre_stream`), `[H]`.

    Of the loop around it, told where a step begins or ends:
        start: in the layer that begins a loop from something else than the state that enters it, s_0, `[H]`.
        damped: in the layer that ends a step whose result is normed, what that norm is given, `[H]`.
        normed_step: in the same layer, s_r, where every step ends with the model's final norm, `[H]`.
        exits: in the layer that ends a loop with an exit gate, p_1..p_N, `[N steps]`; exit_step: the step that is read out, None
            where all are, by these weights; read_out: the state that is, `[H]`.
        left: in the layer that ends a loop after which, and before the next layer, the model's final norm stands: after it, `[H]`.
    """

    layer: int
    block: int | None
    step: int
    state: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    turned: Tensor
    keys: Tensor
    values: Tensor
    visible: Tensor
    scores: Tensor
    weights: Tensor
    mixed: Tensor
    attended: Tensor
    between: Tensor
    gate: Tensor
    swish: Tensor
    up: Tensor
    product: Tensor
    down: Tensor
    result: Tensor
    past: int
    held: int
    own: int
    slot: int | None
    kept: str = EXACT
    normed: Tensor | None = None
    normed_between: Tensor | None = None
    normed_query: Tensor | None = None
    normed_key: Tensor | None = None
    turned_key: Tensor | None = None
    kept_key: Tensor | None = None
    kept_value: Tensor | None = None
    normed_attended: Tensor | None = None
    normed_stream: Tensor | None = None
    normed_down: Tensor | None = None
    normed_result: Tensor | None = None
    start: Tensor | None = None
    damped: Tensor | None = None
    normed_step: Tensor | None = None
    exits: Tensor | None = None
    exit_step: int | None = None
    read_out: Tensor | None = None
    left: Tensor | None = None

    @property
    def added(self) -> Tensor:
        """What attention adds to the state, `[H]`."""
        return self.attended if self.normed_attended is None else self.normed_attended

    @property
    def entered_mlp(self) -> Tensor:
        """The state to which the MLP adds, `[H]`."""
        return self.between if self.normed_stream is None else self.normed_stream

    @property
    def added_mlp(self) -> Tensor:
        """What the MLP adds to it, `[H]`."""
        return self.down if self.normed_down is None else self.normed_down

    @property
    def leaves(self) -> Tensor:
        """The state that leaves the layer, `[H]`."""
        return self.result if self.normed_result is None else self.normed_result

    @property
    def asked(self) -> Tensor:
        """The query as RoPE turns it, `[N, D]`."""
        return self.query if self.normed_query is None else self.normed_query

    def columns(self) -> tuple[Tensor, Tensor]:
        """The position and the slot of each column, `[S]` int64 each."""
        before = torch.arange(self.past * self.held)
        now = torch.arange(self.keys.shape[1] - len(before))
        positions = torch.cat((before // self.held, self.past + now // self.own))
        slots = torch.cat((before % self.held, now % self.own))
        return positions, slots if self.slot is None else torch.full_like(slots, self.slot)


@dataclass(frozen=True)
class StepRun:
    """One loop step, for one token: what enters the block's first layer, and what becomes of what leaves its last.

    Attributes:
        block, step: r, 1-based.
        previous: s_{r-1}, `[H]`; of the first step s_0, what the loop starts from.
        entered: x_r, after injection and norm, `[H]`.
        left: g(x_r), `[H]`.
        damped: after damping, `[H]`.
        state: s_r, `[H]`: it, or what the final norm makes of it where every step ends with that (`loop_final_norm="every_step"`).
        layers: which ran.
    """

    block: int
    step: int
    previous: Tensor
    entered: Tensor
    left: Tensor
    damped: Tensor
    state: Tensor
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Probed:
    """A token's whole way through the model in one pass.

    Attributes:
        position: of the token.
        embedding: the token's row of the table, `[H]`.
        scaled: it, times the model's `embedding_scale`, `[H]`; None where that is 1.
        layers: every run of a layer, in the order they ran.
        steps: every loop step, in order.
        blocks: the loops, as they were set when it was read; reasons: of each, why it stopped.
        final: what the norm at the model's end is given, `[H]`; None where a loop that ends the model has normed its state already.
        normed: what the head reads, `[H]`.
        logits: of the next token, `[V]`.
    """

    position: int
    embedding: Tensor
    scaled: Tensor | None
    layers: list[LayerRun]
    steps: list[StepRun]
    blocks: list[LoopBlock]
    reasons: list[str]
    final: Tensor | None
    normed: Tensor
    logits: Tensor

    def layer_run(self, layer: int, step: int = 0) -> LayerRun | None:
        """The run of a layer in a loop step (0: of a layer that does not loop); None where it did not run."""
        return next((run for run in self.layers if (run.layer, run.step) == (layer, step)), None)

    def last_run(self, block: int) -> LayerRun | None:
        """The run of a layer that ended a loop; None where the block was skipped."""
        return next((run for run in reversed(self.layers) if run.block == block), None)

    def step_run(self, block: int, step: int) -> StepRun | None:
        """A loop step; None where the block stopped before."""
        return next((run for run in self.steps if (run.block, run.step) == (block, step)), None)
