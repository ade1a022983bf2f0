"""LoopLlama: transformers' Llama in which ranges of layers run several times for each token.

Everything a layer computes is transformers' own code; here are only the loop around the layers, when it stops, what
enters a step, and who is told about it. The meaning of every mode: `LoopLlamaConfig`, `LoopCache`.
"""

from __future__ import annotations

import copy
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaForCausalLM, LlamaModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel, LlamaRMSNorm, apply_rotary_pos_emb
from transformers.utils import logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from loopviz.checks import FieldError

from . import model_card
from .block import LoopBlock, enters_normed, starts_normed
from .cache import LoopCache, check_fits
from .choosers import LayerChoice
from .configuration import LOOP_FIELDS, LoopLlamaConfig
from .criteria import CRITERIA, CriterionContext
from .events import LoopReport, LoopStep, LoopStepStart, PassSeconds
from .exit_gate import ExitGate, Exits, read_out
from .exit_lens import exit_states, last_hidden
from .interrupt import check, within_operations
from .kept_kv import EXACT, check_without_gradients
from .layers import arrange_layers
from .lean_layers import LeanLayers, lean_layers, run_layer
from .packed import quantization_of
from .precision import is_quantised
from .quantization import follow, steady
from .registry import check_tensor
from .side_by_side import lay_apart
from .start_state import start_state, token_places
from .step_adapters import NOT_ONE_MODEL, StepAdapters
from .step_slots import StepSlots
from .watching import AttentionWatch, shallow
from .weight_layout import lay_by_rows

logger = logging.get_logger(__name__)
PreHook = Callable[[LoopStepStart], "Mapping[str, Any] | None"]  # see LoopLlamaModel.register_loop_pre_hook
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass
class _Pass:
    """One forward pass: what every block of it needs."""

    blocks: list[LoopBlock]
    cache: LoopCache | Cache | None
    layer_kwargs: dict[str, Any]
    mask: Tensor | None  # by token, as plain layers take it
    parallel_mask: Tensor | None  # the same, never left to sdpa's is_causal
    real: Tensor | None
    graph: bool  # autograd is on: K/V must stay out of place
    input_ids: Tensor | None
    places: (
        Tensor | None
    )  # [B or 1, T], each token's among the real ones of its row; None where no block starts by them
    layers: list[nn.Module] = field(default_factory=list)  # of the model: a ModuleList takes longer to look into
    lean: LeanLayers | None = None  # runs the layers where the pass is short and nothing listens
    normed: Tensor | None = None  # [B] bool, rows that the last block's end has normed; None: the final norm is to come
    exits: list[Exits | None] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    reasons: list[list[str]] = field(default_factory=list)
    layers_run: list[Tensor | None] = field(default_factory=list)
    measured: list[dict[int, dict[str, Tensor]]] = field(default_factory=list)
    started: float = 0.0  # the pass
    entered: float | None = None  # the first block
    left: float = 0.0  # the last block so far
    hooks: float = 0.0  # seconds spent in loop hooks

    def seconds(self) -> PassSeconds:
        """The pass, just over, by part."""
        now = time.perf_counter()
        if self.entered is None:
            return PassSeconds(now - self.started, 0.0, 0.0, self.hooks)
        block = self.left - self.entered - self.hooks
        return PassSeconds(self.entered - self.started, block, now - self.left, self.hooks)


class LoopInjection(nn.Linear):
    """`W[s_{r-1}; e]`, initialised to `[I | 0]`: at first the step sees s_{r-1} alone."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(2 * hidden_size, hidden_size, bias=False)


class LoopLlamaPreTrainedModel(LlamaPreTrainedModel):
    config: LoopLlamaConfig
    config_class = LoopLlamaConfig

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As transformers'; with `quantization_config=BitsAndBytesConfig(...)`, or of a folder saved with it, see :mod:`.quantization`.

        Raises:
            PrecisionError: the configuration would pack the head, too.
        """
        found = super().from_pretrained(*args, **kwargs)
        steady(found[0] if isinstance(found, tuple) else found)  # with a report, where one is asked for
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        found = super()._apply(fn, recurse)
        follow(self)
        return found

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LoopInjection):
            H = module.out_features
            init.copy_(module.weight, torch.eye(H, 2 * H))


class LoopLlamaModel(LoopLlamaPreTrainedModel, LlamaModel):
    """The decoder without head: `transformers.LlamaModel` with looped blocks.

    Args:
        config: a `LoopLlamaConfig`.

    Attributes:
        backprop_steps: training only: gradients flow through this many last steps of every block (truncated
            back-propagation); the steps before run without a graph. `None`: through all. What stands before a block
            then gets its gradient through those steps' injection alone. Values never change.
        loop_start: `f(block, state) -> Tensor`: what a block (0-based index) starts from instead of the state
            `[B, T, H]` that enters it; that state is still e, what `loop_injection` adds. `None`: from that state. A
            model object's own: views (`with_loop()`) start without it.
        spare_gates: by block, gates that were trained for this model afterwards. A loop whose `exit_selection` asks for
            one takes it among its weights; until then it is none of them.
        step_adapters: which loop steps have a LoRA of their own; `None`: none has.
    """

    step_adapters: StepAdapters | None = None
    backprop_steps: int | None = None
    loop_start: Callable[[int, Tensor], Tensor] | None = None

    def __init__(self, config: LoopLlamaConfig) -> None:
        super().__init__(config)
        arrange_layers(self.layers, config)
        for layer in self.layers:
            # Or transformers would take the pass's slots (StepSlots) away from a checkpointed layer; see _run_layer.
            layer._can_checkpoint_with_cache = True
        blocks = config.loop_blocks()
        self.loop_injections = nn.ModuleDict(
            {str(b.index): LoopInjection(config.hidden_size) for b in blocks if b.injection == "linear"}
        )
        self.loop_norms = nn.ModuleDict(
            {str(b.index): LlamaRMSNorm(config.hidden_size, config.rms_norm_eps) for b in blocks if b.norm}
        )
        self.loop_gates = nn.ModuleDict(
            {str(b.index): ExitGate(config.hidden_size) for b in blocks if b.exit_selection != "last"}
        )
        self.spare_gates: dict[str, ExitGate] = {}
        self.lens: Callable[..., Tensor] | None = None  # set by the model that owns a head
        self.last_pass = LoopReport([], [])
        self._loop_hooks: dict[int, Callable[[LoopStep], None]] = OrderedDict()
        self._loop_pre_hooks: dict[int, tuple[PreHook, bool]] = OrderedDict()  # and whether views have it too
        self._attention_watch: AttentionWatch | None = None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As `transformers.LlamaModel.forward`, with the loops.

        Args:
            input_ids: `[B, T]` int64 (or `inputs_embeds` `[B, T, H]`).
            attention_mask: `[B, past + T]`, 0 where padding; convergence is averaged over the real tokens of the pass.
                With a prepared 4-D mask every token counts as real.
            past_key_values: a `LoopCache` (any `Cache` for a plain Llama).

        Raises:
            ValueError: a configuration or a cache that does not fit, by name.
            Interrupted: under `interruptible`, whose stop was set; a `LoopCache` is then as it was before the pass.
        """
        started = time.perf_counter()
        blocks = self.config.loop_blocks()
        self._check_modules(blocks)
        inputs_embeds = self._embedded(input_ids, inputs_embeds)
        B, T, _ = inputs_embeds.shape

        if self.gradient_checkpointing and self.training and use_cache:
            logger.warning_once("use_cache=True does not go with gradient checkpointing: nothing is cached")
            use_cache = False
        cache = self._cache_for(blocks, past_key_values, bool(use_cache))
        if cache is not None:
            check_without_gradients([block.kv_dtype for block in blocks])
        if past_key_values is not None:
            check_fits(past_key_values, self.config, inputs_embeds)
        _check_mask(attention_mask, B, T + (cache.get_seq_length() if cache is not None else 0))
        if position_ids is None:
            past = cache.get_seq_length() if cache is not None else 0
            position_ids = (torch.arange(T, device=inputs_embeds.device) + past).unsqueeze(0)
        mask, parallel_mask = self._masks(blocks, inputs_embeds, attention_mask, cache, position_ids)
        run = _Pass(
            blocks=blocks,
            cache=cache,
            layer_kwargs={
                "position_ids": position_ids,
                "position_embeddings": self.rotary_emb(inputs_embeds, position_ids=position_ids),
                "use_cache": use_cache,
                **kwargs,
            },
            mask=mask,
            parallel_mask=parallel_mask,
            real=_real_tokens(attention_mask, T),
            graph=torch.is_grad_enabled(),
            input_ids=input_ids,
            places=token_places(blocks, attention_mask, position_ids, T),
            layers=[*self.layers],
            started=started,
        )
        if T == 1:
            run.lean = lean_layers(self.training, inputs_embeds, run.layer_kwargs)
        if isinstance(cache, LoopCache):
            cache.begin_pass(blocks)
        try:
            with within_operations(B * T):
                state = self._run_layers(blocks, inputs_embeds, run)
        except BaseException:
            if isinstance(cache, LoopCache):
                cache.abort_pass()
            raise
        if isinstance(cache, LoopCache):
            cache.end_pass(T, B, run.steps, run.reasons, run.layers_run)
        normed = self._final_norm(state, run)
        self.last_pass = LoopReport(run.steps, run.reasons, run.seconds(), run.layers_run, run.measured, run.exits)
        return BaseModelOutputWithPast(
            last_hidden_state=normed,
            past_key_values=cache if use_cache or past_key_values is not None else None,
        )

    def _embedded(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """The pass's input as embeddings `[B, T, H]`."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("input_ids, inputs_embeds: give exactly one of them")
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if inputs_embeds is None and self.config.embedding_scale != 1:
            embeds = embeds * self.config.embedding_scale
        if embeds.ndim != 3 or 0 in embeds.shape:
            given = embeds if input_ids is None else input_ids
            name, rule = ("inputs_embeds", "[B, T, H]") if input_ids is None else ("input_ids", "[B, T]")
            raise ValueError(
                f"{name} of shape {list(given.shape)}: must be {rule}, with at least one row and one token"
            )
        return embeds

    def _masks(
        self, blocks: list[LoopBlock], embeds: Tensor, attention_mask: Any, cache: Cache | None, position_ids: Tensor
    ) -> tuple[Any, Any]:
        """The causal mask of a pass, and of layers that see several slots: there it must be written out."""
        if any(block.parallel for block in blocks):
            self._check_parallel()
        alone = embeds.shape[1] == 1 and attention_mask is None and self.config._attn_implementation == "sdpa"
        if alone and not torch.compiler.is_compiling():
            return None, None  # what is made below, and takes as long to find out as a layer
        given = {
            "config": self.config,
            "inputs_embeds": embeds,
            "attention_mask": attention_mask,
            "past_key_values": cache,
            "position_ids": position_ids,
        }
        mask = parallel_mask = create_causal_mask(**given)
        if any(block.parallel for block in blocks) and mask is None and embeds.shape[1] > 1:
            parallel_mask = create_causal_mask(**given, allow_is_causal_skip=False)
        return mask, parallel_mask

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _run_layers(self, blocks: list[LoopBlock], state: Tensor, run: _Pass) -> Tensor:
        """Prelude, blocks and coda: `[B, T, H]` embeddings to the last layer's state."""
        starts = {block.a: block for block in blocks}
        index, n_layers = 0, self.config.num_hidden_layers  # a configuration's attributes are slow to read
        while index < n_layers:
            block = starts.get(index)
            if block is None:
                state = self._run_layer(index, state, run.mask, run.cache, run)
                index += 1
            else:
                run.entered = run.entered or time.perf_counter()
                state = self._run_block(block, state, run)
                run.left = time.perf_counter()
                index = block.b + 1
        return state

    def _run_layer(
        self,
        index: int,
        state: Tensor,
        mask: Tensor | None,
        cache: Any,
        run: _Pass,
        given: Mapping[str, Any] = _NOTHING,
    ) -> Tensor:
        check()
        if self.gradient_checkpointing and self.training and not isinstance(cache, StepSlots):
            cache = None
        told, lean = ({**run.layer_kwargs, **given}, None) if given else (run.layer_kwargs, run.lean)
        return run_layer(run.layers[index], state, mask, cache, told, lean)

    def _run_block(self, block: LoopBlock, state: Tensor, run: _Pass) -> Tensor:
        """The loop: s_0 `[B, T, H]` in, s_N out, each row with its own N."""
        B = state.shape[0]
        entry = state  # e, the prelude's output
        if self.loop_start is not None:
            state = self._other_start(self.loop_start, block, entry)
        else:
            state = start_state(block, entry, run.places, self.training)
        criterion = CRITERIA[block.criterion] if block.dynamic else None
        lenses: tuple[Any, Any, Any] = (None, None, None) if criterion is None else self._lenses(block, run)
        memory: dict[str, Any] = {}
        kept: list[Tensor] = []  # s_1, s_2, ... where a token may be read out from any
        measured: dict[int, dict[str, Tensor]] = {}
        stopped = torch.zeros(B, dtype=torch.bool, device=state.device)
        any_stopped = False
        steps = torch.full((B,), block.max_steps, device=state.device)
        reasons = ["max" if block.dynamic else "count"] * B
        kv = self._block_cache(block, run)
        choice = None
        if block.chosen:
            normed = enters_normed(run.blocks, block.index)
            choice = LayerChoice(block, entry, state, run.input_ids, run.real, self.lens, normed)
            if kv is not None:
                kv.begin_chosen(block, B)
        untracked = self._untracked_steps(block, run)

        for r in range(1, block.max_steps + 1):
            started = time.perf_counter() if self._loop_hooks else 0.0
            ran = None
            if choice is not None:
                ran = choice.ask(r, state, ~stopped)
                ended = ~stopped & ~ran.any(-1)
                for row in ended.nonzero().flatten().tolist():
                    steps[row], reasons[row], any_stopped = r - 1, block.chooser, True
                if r == 1 and any_stopped:  # skipped: it leaves the block as it came, wherever the others start from
                    state = torch.where(ended[:, None, None], entry, state)
                stopped = stopped | ended
                if bool(stopped.all()):
                    break
                choice.begin_step(ran)
            previous = state
            given = _NOTHING
            if self._loop_pre_hooks:
                told = run.hooks
                given = self._ask_pre_hooks(block, r, previous, stopped, run)
                started += run.hooks - told  # no part of the step
            if kv is not None:
                kv.begin_step(block, r, ~stopped if any_stopped else None, ran)
            with torch.no_grad() if r <= untracked else nullcontext():
                state = self._run_step(block, previous, entry, kv, run, choice, given)
            if any_stopped:
                state = torch.where(stopped[:, None, None], previous, state)
            if block.exit_selection != "last":
                kept.append(state)
            if self._loop_hooks:
                self._tell_hooks(block, r, previous, state, stopped, kv, run, time.perf_counter() - started, ran)
            if criterion is None or (r < block.floor and not criterion.every_step):
                continue
            context = CriterionContext(r, previous, state, run.real, block, *lenses, memory=memory)
            verdict = criterion.verdict(context)
            measured[r] = context.measured
            if r < block.floor:
                continue
            newly = verdict & ~stopped
            if bool(newly.any()):
                for row in newly.nonzero().flatten().tolist():
                    steps[row] = r
                    reasons[row] = next((n for n, rows in context.reasons.items() if bool(rows[row])), block.criterion)
                stopped = stopped | newly
                any_stopped = True
                if bool(stopped.all()):
                    break

        if kv is not None:
            if choice is not None:
                self._keep_passed_by(block, choice, kv, run)
            kv.end_block(block, steps)
        run.layers_run.append(None if choice is None else choice.report())
        run.steps.append(steps)
        run.reasons.append(reasons)
        run.measured.append(measured)
        return self._leave(block, state, entry, kept, steps, run)

    def _leave(
        self, block: LoopBlock, state: Tensor, entry: Tensor, kept: list[Tensor], steps: Tensor, run: _Pass
    ) -> Tensor:
        """What leaves the block, `[B, T, H]`: s_N or the state each token is read out from, normed where that is the rule.

        Args:
            state: s_N.
            entry: e; rows that skipped the block leave it as they came.
            kept: s_1..s_R where a gate chooses among them.
            steps: `[B]`, N of each row.
        """
        ends, normed = block.b == self.config.num_hidden_layers - 1, block.norms_steps
        exits = None
        if kept:
            after = kept if normed else [self.norm(one) for one in kept]
            gate = self.loop_gates[str(block.index)]
            state, exits = read_out(block, gate, after, after if ends else kept, steps, run.real)  # type: ignore[arg-type]
            normed = normed or ends
        run.exits.append(exits)
        if block.final_norm == "last_step" and not ends:
            state = self.norm(state)
        skipped = (steps == 0) if block.chosen else None
        if skipped is not None and bool(skipped.any()):
            state = torch.where(skipped[:, None, None], entry, state)
        if ends and normed:
            run.normed = torch.ones_like(steps, dtype=torch.bool) if skipped is None else ~skipped
        return state

    def _final_norm(self, state: Tensor, run: _Pass) -> Tensor:
        """The model's final norm, of rows that a block which ends the model has not normed already."""
        if run.normed is None:
            return self.norm(state)
        return state if bool(run.normed.all()) else torch.where(run.normed[:, None, None], state, self.norm(state))

    def _lenses(self, block: LoopBlock, run: _Pass) -> tuple[Any, Any, Any]:
        """The direct lens of s_r and of s_0, and what the model would say if it stopped with a state."""
        if self.lens is None:
            return None, None, None
        head = partial(self.lens, normed=True)
        start = head if starts_normed(run.blocks, block.index) else self.lens

        def last_logits(state: Tensor) -> Tensor:
            cache = run.cache if isinstance(run.cache, LoopCache) else None
            with torch.no_grad():
                return head(last_hidden(self, block, state, cache, run.mask, run.real, run.layer_kwargs, run.lean))

        last = block.index == len(run.blocks) - 1
        return head if block.norms_steps else self.lens, start, last_logits if last else None

    def _run_step(
        self,
        block: LoopBlock,
        previous: Tensor,
        entry: Tensor,
        kv: LoopCache | None,
        run: _Pass,
        choice: LayerChoice | None,
        given: Mapping[str, Any],
    ) -> Tensor:
        """One step: s_r = s_{r-1} + alpha (g(x_r) - s_{r-1}), `[B, T, H]`."""
        state = self._step_input(block, previous, entry)
        mask, slots = run.mask, kv if block.parallel else None
        if slots is not None and choice is None:
            mask = slots.parallel_mask(block, run.parallel_mask, state.shape[1], run.graph)
        for place, index in enumerate(block.layers):
            before, rows = state, True if choice is None else choice.rows(place)
            if rows is not False:
                if slots is not None and choice is not None:
                    mask = slots.parallel_mask(block, run.parallel_mask, state.shape[1], run.graph, index)
                seen = StepSlots(slots.layers[index]) if slots is not None and run.graph else kv
                state = self._run_layer(index, before, mask, seen, run, given)
                if rows is not True:
                    state = torch.where(rows[:, None, None], state, before)
            if choice is not None:
                choice.note(place, before, state)
        if block.damping != 1:
            state = previous + block.damping * (state - previous)
        return self.norm(state) if block.norms_steps else state

    @torch.no_grad()
    def _keep_passed_by(self, block: LoopBlock, choice: LayerChoice, kv: LoopCache, run: _Pass) -> None:
        """Keep the pass's tokens visible in the layers that a row never ran: K/V of the state that passed them by.

        As CALM does for the layers after an early exit (Schuster et al. 2022).
        """
        cos, sin = run.layer_kwargs["position_embeddings"]
        for place, index in enumerate(block.layers):
            if bool((choice.context.runs[:, place] > 0).all()):
                continue
            layer = self.layers[index]
            normed = layer.input_layernorm(choice.passed_by[place])
            attention = layer.self_attn
            k, v = (
                project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # [B, K, T, D]
                for project in (attention.k_proj, attention.v_proj)
            )
            kv.layers[index].keep_passed_by(apply_rotary_pos_emb(k, k, cos, sin)[1], v)

    def _untracked_steps(self, block: LoopBlock, run: _Pass) -> int:
        """First steps of a block that run without a graph; see `backprop_steps`."""
        k = self.backprop_steps
        if k is None or not run.graph:
            return 0
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"backprop_steps={k!r}: must be a whole number >= 1, or None for all steps")
        if block.dynamic:
            raise ValueError(
                f"backprop_steps={k}: under loop_strategy='dynamic_stop' nobody knows which steps will be the last; "
                "train with 'fixed_count', or set backprop_steps to None"
            )
        return max(block.max_steps - k, 0)

    def _other_start(self, start: Callable[[int, Tensor], Tensor], block: LoopBlock, entry: Tensor) -> Tensor:
        state = start(block.index, entry)
        check_tensor("loop_start", f"block {block.index}", start, state, tuple(entry.shape), entry.dtype, entry)
        return state

    def _step_input(self, block: LoopBlock, previous: Tensor, entry: Tensor) -> Tensor:
        """x_r from s_{r-1} and e, `[B, T, H]`."""
        x = previous
        if block.injection == "add":
            x = x + entry
        elif block.injection == "linear":
            x = self.loop_injections[str(block.index)](torch.cat((x, entry), dim=-1))
        return self.loop_norms[str(block.index)](x) if block.norm else x

    def _block_cache(self, block: LoopBlock, run: _Pass) -> LoopCache | None:
        """The cache, or, in parallel mode without one, slots for the length of the pass."""
        if run.cache is None and block.parallel:
            run.cache = LoopCache(self.config)
            # what nobody keeps is not rounded
            run.cache.begin_pass([replace(one, kv_dtype=EXACT) for one in self.config.loop_blocks()])
        return run.cache

    # -- checks --------------------------------------------------------------------------------------------------------

    def _cache_for(self, blocks: list[LoopBlock], given: Cache | None, use_cache: bool) -> Cache | None:
        if given is None:
            return LoopCache(self.config) if use_cache else None
        if blocks and not isinstance(given, LoopCache):
            raise ValueError(
                f"past_key_values={type(given).__name__}: a looped model needs a LoopCache, which knows where each "
                "loop step's keys and values belong; pass LoopCache(model.config) or leave it out"
            )
        return given

    def _check_modules(self, blocks: list[LoopBlock]) -> None:
        for block in blocks:
            if block.injection == "linear" and str(block.index) not in self.loop_injections:
                raise FieldError("loop_injection", "linear", "no_weights", block=block.index)
            if block.norm and str(block.index) not in self.loop_norms:
                raise FieldError("loop_norm", True, "no_weights", block=block.index)
            gates = {*self.loop_gates, *self.spare_gates}
            if block.exit_selection != "last" and str(block.index) not in gates:
                raise FieldError("exit_selection", block.exit_selection, "no_weights", block=block.index)

    def gate_of(self, block: int) -> ExitGate | None:
        """The exit gate of a block (0-based), whether its loop asks for it or not; `None`: it has none."""
        return dict(self.loop_gates).get(str(block)) or self.spare_gates.get(str(block))  # type: ignore[return-value]

    def take_gates(self) -> None:
        """Take the spare gates that the loop, as it is set, asks for among the weights; of this model object alone."""
        asked = {str(block.index) for block in self.config.loop_blocks() if block.exit_selection != "last"}
        missing = {name: gate for name, gate in self.spare_gates.items() if name in asked - {*self.loop_gates}}
        if missing:
            weight = self.norm.weight  # the embedding may hold whole numbers
            # a copy where it differs: the spare one is as it was read, whoever asked for it first
            taken = {
                name: gate
                if (here := next(gate.parameters())).dtype == weight.dtype and here.device == weight.device
                else copy.deepcopy(gate).to(weight.device, weight.dtype)
                for name, gate in missing.items()
            }
            self.loop_gates = nn.ModuleDict({**self.loop_gates, **taken})

    def _check_parallel(self) -> None:
        known = ("sdpa", "eager")
        if self.config._attn_implementation not in known:
            raise ValueError(
                f"attn_implementation={self.config._attn_implementation!r}: virtual_attention_mode='parallel' needs a "
                f"mask over slots, which only {' and '.join(known)} take; load the model with one of these, or use 'serial'"
            )
        if self.training and self.gradient_checkpointing:
            checkpoint = getattr(self.layers[0], "_gradient_checkpointing_func", None)
            if getattr(checkpoint, "keywords", {}).get("use_reentrant"):
                raise ValueError(
                    "use_reentrant=True: re-entrant checkpointing would lose the gradients that flow from step to step "
                    "through the keys of virtual_attention_mode='parallel'; use use_reentrant=False, or 'serial'"
                )

    # -- hooks ---------------------------------------------------------------------------------------------------------

    def register_loop_hook(self, hook: Callable[[LoopStep], None]) -> RemovableHandle:
        """Call `hook(event)` after every loop step, until the returned handle's `remove()`. No hook, no cost."""
        handle = RemovableHandle(self._loop_hooks)
        self._loop_hooks[handle.id] = hook
        return handle

    def register_loop_pre_hook(self, hook: PreHook, *, views: bool = False) -> RemovableHandle:
        """Call `hook(event: LoopStepStart)` before every loop step, until the returned handle's `remove()`. No hook, no cost.

        It is called once for each block and each step that runs, however many rows have stopped by then, before anything of
        the step is computed. Rows of several runs that take a step together in a shared pass are one batch to it, too.

        Args:
            hook: returns `None`, or keyword arguments that each of the block's layers is called with in this step. They reach
                the layer's attention, where a forward pre-hook (`register_forward_pre_hook(..., with_kwargs=True)`) takes
                them out: what a layer is to do otherwise in a step comes to it so, in any thread, and again where gradient
                checkpointing runs it a second time.
            views: also before the steps of views (`with_loop()`) made from now on: for what belongs to the weights.
        """
        handle = RemovableHandle(self._loop_pre_hooks)
        self._loop_pre_hooks[handle.id] = (hook, views)
        return handle

    def watch_attention(self) -> AttentionWatch:
        """From the next pass on, loop hooks can ask `event.attention(layer)`, until the returned handle's `remove()`.

        Raises:
            ValueError: this model object is watched already.
        """
        if self._attention_watch is not None:
            raise ValueError("watch_attention: this model object is watched already; watch a view of it (with_loop())")
        self._attention_watch = AttentionWatch(self, self.config.loop_blocks())
        return self._attention_watch

    def _ask_pre_hooks(self, block: LoopBlock, r: int, state: Tensor, stopped: Tensor, run: _Pass) -> Mapping[str, Any]:
        """What the pre-step hooks want the layers of step `r` to be given."""
        asked = time.perf_counter()
        event = LoopStepStart(block.index, (block.a, block.b), r, state, stopped, run.real)
        given: dict[str, Any] = {}
        for hook, _ in list(self._loop_pre_hooks.values()):
            given.update(hook(event) or {})
        run.hooks += time.perf_counter() - asked
        return given

    def _tell_hooks(
        self,
        block: LoopBlock,
        r: int,
        previous: Tensor,
        state: Tensor,
        stopped: Tensor,
        kv: LoopCache | None,
        run: _Pass,
        seconds: float,
        ran: Tensor | None,
    ) -> None:
        told = time.perf_counter()
        reads = None if self._attention_watch is None else self._attention_watch.reads(block, r, kv)
        event = LoopStep(
            block.index, (block.a, block.b), r, previous, state, stopped, run.real, seconds, kv, reads, ran
        )
        for hook in list(self._loop_hooks.values()):
            hook(event)
        run.hooks += time.perf_counter() - told


class LoopLlamaForCausalLM(LoopLlamaPreTrainedModel, LlamaForCausalLM):
    """A language model whose blocks loop: `transformers.LlamaForCausalLM` over a `LoopLlamaModel`.

    Args:
        config: a `LoopLlamaConfig`.
    """

    def __init__(self, config: LoopLlamaConfig) -> None:
        super(LlamaForCausalLM, self).__init__(config)  # not Llama's own: it would build the layers twice
        self.model = LoopLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.model.lens = self.lens
        self.post_init()

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As transformers'; a folder without a README.md gets one that says how the model is loaded.

        Weights that the loop does without, as it is set now, are not among what is saved: the folder is what its config.json says.

        Raises:
            OSError: the folder cannot be written.
            ValueError: each loop step has a LoRA of its own, the layers hold int8, or a LoRA lies on packed ones: no folder of one
                model can hold that.
        """
        if self.model.step_adapters is not None:
            raise ValueError(f"save_pretrained: {NOT_ONE_MODEL}")
        if is_quantised(self):
            raise ValueError(
                "save_pretrained: its layers hold int8, which no folder is read from; load it in float32, and save that"
            )
        packed = quantization_of(self) is not None
        if packed and any(hasattr(module, "base_layer") for module in self.modules()):
            raise ValueError(
                "save_pretrained: a LoRA lies on its packed layers, unmerged; keep the adapter's folder beside its base, or make one model "
                "of both in floats (python -m loopviz merge)"
            )
        if (
            packed
        ):  # read from such a folder, transformers knows no way back; and the names are those of bitsandbytes already
            kwargs.setdefault("save_original_format", False)
        lay_by_rows(self)  # files hold rows
        lay_apart(self.model.layers)  # and each weight by itself
        if kwargs.get("state_dict") is None and (idle := self._idle_weights()):
            logger.warning(f"not saved, for the loop does without: {', '.join(idle)}")
            kwargs["state_dict"] = {name: value for name, value in self.state_dict().items() if name not in idle}
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            model_card.write_if_missing(Path(save_directory), self.config)
        return saved

    def _idle_weights(self) -> list[str]:
        """Names of the weights that a loop may have, and this one, as it is set, has not."""
        with torch.device("meta"):
            asked = type(self)(self.config).state_dict()
        return sorted(name for name in self.state_dict() if name not in asked and name.startswith("model.loop_"))

    # -- settings of a live model --------------------------------------------------------------------------------------

    def set_loop(self, **fields: Any) -> None:
        """Change loop fields of this model, from the next forward pass on. Weights are never touched.

        Raises:
            ValueError: an unknown field, a value that is refused, or a setting that needs weights the model was not
                built with. Nothing is changed then. A cache in use whose layout would change is refused, by name, by
                the next forward pass that is given it.
        """
        self._apply_loop(self._checked_loop(fields))
        self.model.take_gates()

    def with_loop(self, **fields: Any) -> LoopLlamaForCausalLM:
        """A model object of its own on the same weights: own loop fields, hooks and `last_pass`, shared parameters.

        Raises:
            ValueError: as `set_loop`.
        """
        config = self._checked_loop(fields)
        view = shallow(self)
        view.model = shallow(self.model)
        view.config = view.model.config = config
        view.generation_config = copy.deepcopy(self.generation_config)
        view.model.lens = view.lens
        view.model.last_pass = LoopReport([], [])
        view.model._loop_hooks = OrderedDict()
        inherited = ((key, pair) for key, pair in self.model._loop_pre_hooks.items() if pair[1])
        view.model._loop_pre_hooks = OrderedDict(inherited)
        view.model.loop_start = None
        if self.model._attention_watch is not None:
            view.model.layers, view.model._attention_watch = self.model._attention_watch.plain_layers, None
        view.model.take_gates()
        return view

    def _checked_loop(self, fields: dict[str, Any]) -> LoopLlamaConfig:
        unknown = [name for name in fields if name not in LOOP_FIELDS]
        if unknown:
            raise FieldError(unknown[0], fields[unknown[0]], "not_a_loop_field", known=", ".join(LOOP_FIELDS))
        config = copy.deepcopy(self.config)
        for name, value in fields.items():
            setattr(config, name, value)
        config.tidy_loop()
        self.model._check_modules(config.loop_blocks())
        return config

    def _apply_loop(self, config: LoopLlamaConfig) -> None:
        for name in LOOP_FIELDS:
            setattr(self.config, name, getattr(config, name))

    # -- watching ------------------------------------------------------------------------------------------------------

    @property
    def last_pass(self) -> LoopReport:
        """Steps and stop reasons of this model object's last forward pass."""
        return self.model.last_pass

    @property
    def spare_gates(self) -> dict[str, ExitGate]:
        """As `LoopLlamaModel.spare_gates`."""
        return self.model.spare_gates

    def register_loop_hook(self, hook: Callable[[LoopStep], None]) -> RemovableHandle:
        """Call `hook(event: LoopStep)` after every loop step, until the returned handle's `remove()`."""
        return self.model.register_loop_hook(hook)

    def register_loop_pre_hook(self, hook: PreHook, *, views: bool = False) -> RemovableHandle:
        """Call `hook(event: LoopStepStart)` before every loop step; see `LoopLlamaModel.register_loop_pre_hook`."""
        return self.model.register_loop_pre_hook(hook, views=views)

    def watch_attention(self) -> AttentionWatch:
        """Let loop hooks ask `event.attention(layer)`, until the returned handle's `remove()`; see `LoopStep.attention`.

        Raises:
            ValueError: this model object is watched already.
        """
        return self.model.watch_attention()

    def lens(self, states: Tensor, normed: bool = False) -> Tensor:
        """Direct lens: logits `lm_head(norm(states))`, `[..., H] -> [..., vocab]`, for states before the final norm.

        Args:
            normed: they are normed already, as the s_r of a loop that norms its states, and are not normed again.
        """
        return self.lm_head(states if normed else self.model.norm(states))

    def exit_lens(
        self,
        states: Tensor,
        cache: LoopCache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Exit lens: states of the last block continued through the real coda, as if the loop had stopped there.

        Args:
            states: `[R, B, T, H]`, states of one pass's tokens after R different steps (they run as one batch).
            cache: the cache after that pass; earlier tokens' coda K/V are read from it, nothing is written.
            attention_mask: as given to the pass.
            position_ids: as given to the pass; by default the last T positions.

        Returns:
            `[R, B, T, vocab]` logits; for s_N they are the model's own, unless a gate chooses what is read out.

        Raises:
            ValueError: a plain Llama has no exit.
        """
        return self.lm_head(self.exit_states(states, cache, attention_mask, position_ids))

    def exit_states(
        self,
        states: Tensor,
        cache: LoopCache | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """As `exit_lens`, before the head: the last hidden states after the final norm, `[R, B, T, H]`."""
        return exit_states(self.model, self.config.loop_blocks(), states, cache, attention_mask, position_ids)

    # -- generate ------------------------------------------------------------------------------------------------------

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Give `generate()` a `LoopCache`; refuse cache kinds that know nothing of loops."""
        kind = generation_config.cache_implementation
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache is not False:
            if kind in (None, "dynamic"):
                model_kwargs["past_key_values"] = LoopCache(self.config)
                return
            if self.config.loop_blocks():
                raise ValueError(
                    f"cache_implementation={kind!r}: a looped model keeps its keys and values in a LoopCache; "
                    "leave cache_implementation out (or 'dynamic')"
                )
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)


def _check_mask(attention_mask: Any, rows: int, tokens: int) -> None:
    """Refuse a 2-D mask of another size before anything is computed.

    A cache that is longer than the tokens it holds (a preallocated one) may come with a longer mask.
    """
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        return
    if attention_mask.shape[0] != rows or attention_mask.shape[1] < tokens:
        raise ValueError(
            f"attention_mask of shape {list(attention_mask.shape)}: must be [{rows}, {tokens}], a value for every token "
            "that the cache holds and every new one"
        )


def _real_tokens(attention_mask: Any, n_tokens: int) -> Tensor | None:
    """`[B, T]` bool of the pass's real tokens, or `None` when none is padding."""
    if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2:
        return None
    real = attention_mask[:, -n_tokens:].bool()
    return None if bool(real.all()) else real


AutoConfig.register("loop_llama", LoopLlamaConfig, exist_ok=True)
AutoModel.register(LoopLlamaConfig, LoopLlamaModel, exist_ok=True)
AutoModelForCausalLM.register(LoopLlamaConfig, LoopLlamaForCausalLM, exist_ok=True)
