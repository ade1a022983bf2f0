"""What every decoder layer computed for one token of a pass, in each loop step: all that stands between two states.

While a pass is probed the model's layers are twins over the same weights that note what goes through them; whoever else runs
the model meets its plain layers. What is noted is what was computed: nothing is computed twice but scores and weights, which
fused attention never shows (:attr:`LayerRun.weights`; :attr:`LayerRun.mixed` is what it really gave).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, eager_attention_forward

from loopviz.checks import FieldError
from loopviz.model import LoopCache, LoopLlamaForCausalLM, LoopStep
from loopviz.model.block import LoopBlock
from loopviz.model.kept_kv import EXACT
from loopviz.model.watching import shallow

from .llama import rotate
from .probed import LayerRun as LayerRun
from .probed import Probed as Probed
from .probed import StepRun as StepRun

_NAME = "loopviz_probed"
# What is noted of a decoder layer, by the path of the module, and under which name; of its input, or of its output.
_INPUTS = {"": "state", "self_attn.o_proj": "mixed", "post_attention_layernorm": "between", "mlp.down_proj": "product"}
_OUTPUTS = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "attended",
    "mlp.gate_proj": "gate",
    "mlp.act_fn": "swish",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
    "": "result",
}
_NORMS = {"input_layernorm": "normed", "post_attention_layernorm": "normed_between"}
_AFTER_BRANCH = {"input_layernorm_2": "normed_attended", "post_attention_layernorm_2": "normed_down"}
_AFTER_SUM = {"input_layernorm_2": "normed_stream", "post_attention_layernorm_2": "normed_result"}
_SUMS = {"input_layernorm_2": "between", "post_attention_layernorm_2": "result"}  # the inputs of the same
# The input of the norm inside of a projection; what leaves the projection has been through it.
_BEFORE_NORM = {"self_attn.q_proj.norm": "query", "self_attn.k_proj.norm": "key"}
_AFTER_NORM = {"self_attn.q_proj": "normed_query", "self_attn.k_proj": "normed_key"}


def noted_of(norm_placement: str, qk_norm: str) -> tuple[dict[str, str], dict[str, str]]:
    """What is noted of a decoder layer of a model with these fields: by the path of a module the name of its input, of its output."""
    inputs, outputs = dict(_INPUTS), dict(_OUTPUTS)
    if norm_placement != "branch":  # there nothing stands in their place
        outputs |= _NORMS
    if norm_placement in ("pre_branch", "branch"):
        outputs |= _AFTER_BRANCH
    if norm_placement == "pre_stream":
        # the sums are no module's own; what leaves the layer, and what enters the norm before the MLP, is a sum that was normed
        del inputs["post_attention_layernorm"], outputs[""]
        inputs |= _SUMS
        outputs |= _AFTER_SUM
    if qk_norm != "none":
        inputs |= _BEFORE_NORM
        outputs |= _AFTER_NORM
    return inputs, outputs


def check_normed_alone(view: LoopLlamaForCausalLM) -> None:
    """FieldError where a LoRA lies unmerged on projections that are normed: it adds to what was normed, and neither is told apart."""
    config = view.config
    if config.qk_norm == "none":
        return
    for layer in view.model.layers:
        for name in ("q_proj", "k_proj"):
            if "norm" not in getattr(layer.self_attn, name)._modules:
                raise FieldError("qk_norm", config.qk_norm, "anatomy_lora_on_norm")


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
    noted: dict[str, Any] = field(default_factory=dict)  # of the layer that is running
    around: dict[str, Tensor] = field(default_factory=dict)  # of the model
    own: bool = True  # whether the layer that is running is of the pass itself

    def __post_init__(self) -> None:
        self.block_of = {index: block for block in self.view.config.loop_blocks() for index in block.layers}
        self.inputs, self.outputs = noted_of(self.view.config.norm_placement, self.view.config.qk_norm)

    @torch.no_grad()
    def read(self, input_ids: Tensor) -> Probed:
        """The pass itself."""
        model, self.pass_tokens = self.view.model, input_ids.shape[1]
        past = self.cache.get_seq_length()
        model.layers = nn.ModuleList(self._twin(layer, index) for index, layer in enumerate(model.layers))
        # states are read through this norm at several places; whoever takes it as noted knows which was the last
        model.norm, model.embed_tokens = _noting(model.norm), _noting(model.embed_tokens)
        model.norm.register_forward_pre_hook(self._note_input("before_norm", self.around))
        model.embed_tokens.register_forward_hook(self._note_output("embedding", self.around))
        self.view.register_loop_hook(self._end_step)
        self._hear_what_leaves()
        out = model(input_ids=input_ids, past_key_values=self.cache, use_cache=True)
        normed = self._of(out.last_hidden_state)
        scale = self.view.config.embedding_scale
        return Probed(
            position=past + self.row,
            embedding=self.around["embedding"],
            scaled=None if scale == 1 else self.around["embedding"] * scale,
            layers=self.layers,
            steps=self.steps,
            blocks=self.view.config.loop_blocks(),
            reasons=[reasons[0] for reasons in self.view.last_pass.reasons],
            final=None if self._ended_normed() else self.around["before_norm"],  # the pass's own is its last
            normed=normed,
            logits=self.view.lm_head(normed),
        )

    def _of(self, states: Tensor) -> Tensor:
        """The token's own of `[1, T, ...]`; a copy, as buffers are used again."""
        return states[0, self.row].clone()

    # -- twins of the layers -------------------------------------------------------------------------------------------

    def _twin(self, layer: nn.Module, index: int) -> nn.Module:
        """A decoder layer over the same parameters that notes what goes through it."""
        paths = {"", "self_attn", "mlp", *self.inputs, *self.outputs}
        twin = _noting(layer)
        for path in sorted(paths - {""}, key=lambda path: path.count(".")):
            owner, _, name = path.rpartition(".")
            parent = twin.get_submodule(owner)
            parent._modules[name] = _noting(parent.get_submodule(name))
        twin.register_forward_pre_hook(self._begin_layer, with_kwargs=True)
        for path, name in self.inputs.items():
            twin.get_submodule(path).register_forward_pre_hook(self._note_input(name, self.noted))
        for path, name in self.outputs.items():
            twin.get_submodule(path).register_forward_hook(self._note_output(name, self.noted))
        attention: Any = twin.get_submodule("self_attn")
        attention.loop_plain_config, attention.config = attention.config, copy.copy(attention.config)
        attention.config._attn_implementation = _NAME
        attention.loop_probe = self
        attention.register_forward_pre_hook(self._note_turn, with_kwargs=True)
        twin.register_forward_hook(lambda *_: self._end_layer(index))
        return twin

    def _note_input(self, name: str, where: dict[str, Any]) -> Callable[..., None]:
        def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            where[name] = self._of(given[0])

        return note

    def _note_output(self, name: str, where: dict[str, Any]) -> Callable[..., None]:
        def note(_: nn.Module, given: Any, made: Tensor) -> None:
            where[name] = self._of(made)

        return note

    def _begin_layer(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """A layer begins. A criterion that asks what the model would say runs the layers after the loop, with another cache, too."""
        self.noted.clear()
        self.own = kwargs.get("past_key_values") is self.cache

    def _note_turn(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Cosine and sine of the token's angles, `[D]` each."""
        self.noted["angles"] = tuple(each[0, self.row] for each in kwargs["position_embeddings"])

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
        if not self.own:
            return
        noted, block, cached = self.noted, self.block_of.get(index), self.cache.layers[index]
        S, D = noted["keys"].shape[1:]
        parallel = block is not None and block.parallel
        held = cached.slots if parallel else 1
        if block is None:
            past, own = S - self.pass_tokens, 1
        else:
            past = cached.length
            own = (S - past * held) // self.pass_tokens
        for name in ("query", "key", "value", "mixed", "normed_query", "normed_key"):
            if name in noted:
                noted[name] = noted[name].reshape(-1, D)
        if cached.kept != EXACT:
            self._note_kept(past * held + self.row * own + (cached.slot if parallel else 0))
        what = {name: noted[name] for name in LayerRun.__dataclass_fields__ if name in noted}
        self.layers.append(
            LayerRun(
                layer=index,
                block=None if block is None else block.index,
                step=0 if block is None else self._running(block.index),
                past=past,
                held=held,
                own=own,
                slot=None if parallel else cached.slot,
                kept=cached.kept,
                **what,
            )
        )

    def _note_kept(self, column: int) -> None:
        """The token's own key and value before they were rounded, and as attention found them in their column."""
        noted = self.noted
        cos, sin = noted["angles"]
        noted["turned_key"] = rotate(noted.get("normed_key", noted["key"]), cos, sin)
        noted["kept_key"], noted["kept_value"] = (noted[name][:, column].clone() for name in ("keys", "values"))

    # -- the loop around them ------------------------------------------------------------------------------------------

    def _running(self, block: int) -> int:
        """The loop step a block is in."""
        return 1 + max((run.step for run in self.steps if run.block == block), default=0)

    def _end_step(self, event: LoopStep) -> None:
        """A loop step is over."""
        ran = [run for run in self.layers if (run.block, run.step) == (event.block, event.step)]
        previous, state = self._of(event.previous), self._of(event.state)
        block = self.view.config.loop_blocks()[event.block]
        damped = (
            self.around["before_norm"] if block.norms_steps else state
        )  # a step's own norm is the last thing it does
        if event.step == 1 and block.init != "entry":
            self._add(ran[0], start=previous)
        if block.norms_steps:
            self._add(ran[-1], damped=damped, normed_step=state)
        self.steps.append(
            StepRun(
                block=event.block,
                step=event.step,
                previous=previous,
                entered=ran[0].state,
                left=ran[-1].leaves,
                damped=damped,
                state=state,
                layers=tuple(run.layer for run in ran),
            )
        )

    def _hear_what_leaves(self) -> None:
        """What leaves a block is told by no hook: the state that is read out, and what a norm after the loop makes of it."""
        model: Any = self.view.model
        leave = model._leave

        def heard(block: LoopBlock, *given: Any) -> Tensor:
            state: Tensor = leave(block, *given)
            self._end_block(block, self._of(state), given[-1].exits[-1])
            return state

        model._leave = heard

    def _end_block(self, block: LoopBlock, leaves: Tensor, exits: Any) -> None:
        """A block's loop is over, and this leaves it, `[H]`."""
        steps = [run for run in self.steps if run.block == block.index]
        if not steps:
            return  # it was skipped
        last = next(run for run in reversed(self.layers) if run.block == block.index)
        ends = block.b == self.view.config.num_hidden_layers - 1
        found: dict[str, Any] = {}
        read = leaves
        if block.final_norm == "last_step" and not ends:
            found = {"damped": steps[-1].damped, "left": leaves}
            read = self.around["before_norm"]  # of this norm, the last of the block
        if exits is not None:
            found["exits"] = exits.pdf[: len(steps), 0, self.row].clone()
            found["exit_step"] = None if exits.steps is None else int(exits.steps[0, self.row])
            found["read_out"] = read
        if found:
            self._add(last, **found)

    def _ended_normed(self) -> bool:
        """Whether what left the last layer was normed already: a loop ends the model, and norms its steps or reads normed ones out."""
        blocks, layers = self.view.config.loop_blocks(), self.view.config.num_hidden_layers
        if not blocks or blocks[-1].b != layers - 1 or not any(run.block == blocks[-1].index for run in self.steps):
            return False
        return blocks[-1].norms_steps or blocks[-1].exit_selection != "last"

    def _add(self, run: LayerRun, **what: Any) -> None:
        """Say more of a run of a layer than was known when it ended."""
        place = next(i for i in reversed(range(len(self.layers))) if _same(self.layers[i], run))
        self.layers[place] = replace(self.layers[place], **what)


def _same(run: LayerRun, other: LayerRun) -> bool:
    """Whether the two are of one run of a layer."""
    return (run.layer, run.step) == (other.layer, other.step)


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
