"""What every decoder layer computed for one token of a pass, in each loop step: all that stands between two states.

While a pass is probed the model's layers are twins over the same weights that note what goes through them; whoever else runs
the model meets its plain layers. What is noted is what was computed: nothing is computed twice but scores and weights, which
fused attention never shows (:attr:`LayerRun.weights`; :attr:`LayerRun.mixed` is what it really gave).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, eager_attention_forward

from loopviz.model import LoopCache, LoopLlamaForCausalLM, LoopStep
from loopviz.model.watching import shallow

_NAME = "loopviz_probed"
# What is noted of a decoder layer, by the path of the module, and under which name; of its input, or of its output.
_INPUTS = {"": "state", "self_attn.o_proj": "mixed", "post_attention_layernorm": "between", "mlp.down_proj": "product"}
_OUTPUTS = {
    "input_layernorm": "normed",
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "attended",
    "post_attention_layernorm": "normed_between",
    "mlp.gate_proj": "gate",
    "mlp.act_fn": "swish",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
    "": "result",
}


@dataclass(frozen=True)
class LayerRun:
    """One run of one decoder layer, for one token. H, N, K, D, F as in :mod:`loopviz.anatomy.llama`.

    What attention could read are S columns: `past` earlier tokens with `held` slots each, side by side, then the tokens of the
    pass with `own` slots each, as :class:`loopviz.model.AttentionRead` has them.

    Attributes:
        layer: physical, 0-based.
        block, step: of which block's loop step it was part, `step` 1-based; None and 0 in a layer that does not loop.
        state: the residual stream that enters, `[H]`.
        normed: after the first RMSNorm, `[H]`.
        query, key, value: the projections, before any position, `[N, D]`, `[K, D]`, `[K, D]`.
        turned: the query after RoPE, `[N, D]`.
        keys, values: of all columns, keys after RoPE, `[K, S, D]`.
        visible: the columns this token may see, `[S]` bool.
        scores: `q . k / sqrt(D)`, `[N, S]` float32 or wider, also where nothing is seen.
        weights: their softmax over the visible ones, `[N, S]`.
        mixed: what attention gave, `[N, D]`: `weights @ values`, to rounding.
        attended: after the output projection, `[H]`.
        between: `state + attended`, `[H]`.
        normed_between: after the second RMSNorm, `[H]`.
        gate, swish, up, product: `[F]`; `swish` is of the gate, `product = swish * up`.
        down: `[H]`.
        result: `between + down`, the state that leaves, `[H]`.
        past, held, own, slot: see above; `slot` is the one that is read where one is, None where all are.
    """

    layer: int
    block: int | None
    step: int
    state: Tensor
    normed: Tensor
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
    normed_between: Tensor
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
        previous: s_{r-1}, `[H]`.
        entered: x_r, after injection and norm, `[H]`.
        left: g(x_r), `[H]`.
        state: s_r, after damping, `[H]`.
        layers: which ran.
    """

    block: int
    step: int
    previous: Tensor
    entered: Tensor
    left: Tensor
    state: Tensor
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Probed:
    """A token's whole way through the model in one pass.

    Attributes:
        position: of the token.
        embedding: `[H]`.
        layers: every run of a layer, in the order they ran.
        steps: every loop step, in order.
        reasons: per block, why it stopped.
        final: what leaves the last layer, `[H]`.
        normed: after the final norm, `[H]`.
        logits: of the next token, `[V]`.
    """

    position: int
    embedding: Tensor
    layers: list[LayerRun]
    steps: list[StepRun]
    reasons: list[str]
    final: Tensor
    normed: Tensor
    logits: Tensor

    def layer_run(self, layer: int, step: int = 0) -> LayerRun | None:
        """The run of a layer in a loop step (0: of a layer that does not loop); None where it did not run."""
        return next((run for run in self.layers if (run.layer, run.step) == (layer, step)), None)

    def step_run(self, block: int, step: int) -> StepRun | None:
        """A loop step; None where the block stopped before."""
        return next((run for run in self.steps if (run.block, run.step) == (block, step)), None)


def probe(view: LoopLlamaForCausalLM, cache: LoopCache, input_ids: Tensor, row: int = -1) -> Probed:
    """Read tokens as the model does, and note everything of one of them.

    Args:
        view: not changed; others may run it meanwhile.
        cache: holds the tokens before; it grows by these.
        input_ids: `[1, T]`, of one pass.
        row: which of the T tokens.

    Raises:
        ValueError: more than one sequence, or no such token.
    """
    B, T = input_ids.shape
    if B != 1 or not -T <= row < T:
        raise ValueError(f"input_ids {[B, T]}, row={row}: must be one sequence and one of its tokens")
    probing = _Probing(view.with_loop(), cache, row % T)
    return probing.read(input_ids.to(view.device))


@dataclass
class _Probing:
    """One probed pass."""

    view: LoopLlamaForCausalLM
    cache: LoopCache
    row: int
    layers: list[LayerRun] = field(default_factory=list)
    steps: list[StepRun] = field(default_factory=list)
    noted: dict[str, Any] = field(default_factory=dict)  # of the layer that is running, and of the model

    def __post_init__(self) -> None:
        self.block_of = {index: block for block in self.view.config.loop_blocks() for index in block.layers}

    @torch.no_grad()
    def read(self, input_ids: Tensor) -> Probed:
        """The pass itself."""
        model, self.pass_tokens = self.view.model, input_ids.shape[1]
        past = self.cache.get_seq_length()
        model.layers = nn.ModuleList(self._twin(layer, index) for index, layer in enumerate(model.layers))
        # a criterion reads states through the same norm; the last that goes through it is the pass's own
        model.norm, model.embed_tokens = _noting(model.norm), _noting(model.embed_tokens)
        model.norm.register_forward_pre_hook(self._note_input("final"))
        model.embed_tokens.register_forward_hook(self._note_output("embedding"))
        self.view.register_loop_hook(self._end_step)
        out = model(input_ids=input_ids, past_key_values=self.cache, use_cache=True)
        normed = self._of(out.last_hidden_state)
        return Probed(
            position=past + self.row,
            embedding=self.noted["embedding"],
            layers=self.layers,
            steps=self.steps,
            reasons=[reasons[0] for reasons in self.view.last_pass.reasons],
            final=self.noted["final"],
            normed=normed,
            logits=self.view.lm_head(normed),
        )

    def _of(self, states: Tensor) -> Tensor:
        """The token's own of `[1, T, ...]`; a copy, as buffers are used again."""
        return states[0, self.row].clone()

    # -- twins of the layers -------------------------------------------------------------------------------------------

    def _twin(self, layer: nn.Module, index: int) -> nn.Module:
        """A decoder layer over the same parameters that notes what goes through it."""
        paths = {"", "self_attn", "mlp", *_INPUTS, *_OUTPUTS}
        twin = _noting(layer)
        for path in sorted(paths - {""}, key=lambda path: path.count(".")):
            owner, _, name = path.rpartition(".")
            parent = twin.get_submodule(owner)
            parent._modules[name] = _noting(parent.get_submodule(name))
        for path, name in _INPUTS.items():
            twin.get_submodule(path).register_forward_pre_hook(self._note_input(name))
        for path, name in _OUTPUTS.items():
            twin.get_submodule(path).register_forward_hook(self._note_output(name))
        attention: Any = twin.get_submodule("self_attn")
        attention.loop_plain_config, attention.config = attention.config, copy.copy(attention.config)
        attention.config._attn_implementation = _NAME
        attention.loop_probe = self
        twin.register_forward_hook(lambda *_: self._end_layer(index))
        return twin

    def _note_input(self, name: str) -> Callable[..., None]:
        def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            self.noted[name] = self._of(given[0])

        return note

    def _note_output(self, name: str) -> Callable[..., None]:
        def note(_: nn.Module, given: Any, made: Tensor) -> None:
            self.noted[name] = self._of(made)

        return note

    def note_attention(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float) -> None:
        """What attention is given: query `[1, N, T, D]`, keys and values `[1, K, S, D]`, mask `[1, 1, T, S]` or None."""
        turned = query[0, :, self.row].clone()  # [N, D]
        keys, values = keys[0].clone(), values[0].clone()  # [K, S, D]
        S, later = keys.shape[1], self.pass_tokens - 1 - self.row
        if mask is None:  # causal, a column a token; or one new token, which sees everything
            visible = torch.arange(S, device=keys.device) < S - later
        else:
            seen = mask[0, 0, self.row]
            visible = seen if seen.dtype == torch.bool else seen > torch.finfo(seen.dtype).min / 2
        wide = torch.promote_types(turned.dtype, torch.float32)
        groups = turned.to(wide).unflatten(0, (keys.shape[0], -1))  # [K, N / K, D]
        scores = (groups @ keys.to(wide).transpose(1, 2) * scaling).flatten(0, 1)  # [N, S]
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        self.noted |= {
            "turned": turned,
            "keys": keys,
            "values": values,
            "visible": visible.clone(),
            "scores": scores,
            "weights": weights,
        }

    def _end_layer(self, index: int) -> None:
        """A layer has run: what was noted of it is all there."""
        noted, block, cached = self.noted, self.block_of.get(index), self.cache.layers[index]
        S, D = noted["keys"].shape[1:]
        held = cached.slots if block is not None and block.parallel else 1
        if block is None:
            past, own = S - self.pass_tokens, 1
        else:
            past = cached.length
            own = (S - past * held) // self.pass_tokens
        for name in ("query", "key", "value", "mixed"):
            noted[name] = noted[name].unflatten(0, (-1, D))
        what = {name: noted[name] for name in LayerRun.__dataclass_fields__ if name in noted}
        self.layers.append(
            LayerRun(
                layer=index,
                block=None if block is None else block.index,
                step=0 if block is None else self._running(block.index),
                past=past,
                held=held,
                own=own,
                slot=None if block is not None and block.parallel else cached.slot,
                **what,
            )
        )

    def _running(self, block: int) -> int:
        """The loop step a block is in."""
        return 1 + max((run.step for run in self.steps if run.block == block), default=0)

    def _end_step(self, event: LoopStep) -> None:
        """A loop step is over."""
        ran = [run for run in self.layers if (run.block, run.step) == (event.block, event.step)]
        previous, state = self._of(event.previous), self._of(event.state)
        self.steps.append(
            StepRun(
                block=event.block,
                step=event.step,
                previous=previous,
                entered=ran[0].state,
                left=ran[-1].result,
                state=state,
                layers=tuple(run.layer for run in ran),
            )
        )


def _noting(module: nn.Module) -> Any:
    """A module object over the same parameters with no hooks but those it will get."""
    twin = shallow(module)
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        twin.__dict__[name] = OrderedDict(twin.__dict__[name])
    for name in ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called"):
        twin.__dict__[name] = OrderedDict(twin.__dict__[name])
    twin._compiled_call_impl = None  # a compiled call would run the module it was made of
    return twin


def _probed_attention(
    module: LlamaAttention, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """An attention function of transformers' that notes what it is given and calls the one it stands for."""
    probing: Any = module.loop_probe
    probing.note_attention(query, key, value, attention_mask, kwargs["scaling"])
    plain = ALL_ATTENTION_FUNCTIONS.get_interface(
        module.loop_plain_config._attn_implementation, eager_attention_forward
    )
    return plain(module, query, key, value, attention_mask, **kwargs)


ALL_ATTENTION_FUNCTIONS.register(_NAME, _probed_attention)
